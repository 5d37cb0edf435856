"""Out-of-sample probabilities: each image is classified by a network that was trained without it."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.splits import Split, Splits, check_splits
from cnn.data.stratify import group_equal
from cnn.look.batches import probabilities
from cnn.rules import FILE, FUNCTION, checked, instance, integer
from cnn.runs import outputs, rundir
from cnn.runs.fit import fit

FOLDS = integer(3, 20)
"""With two folds, each network would see half of the images only; beyond 20, little is gained."""


@checked(splits=instance(Splits), folds=FOLDS)
def assign_folds(splits: Splits, folds: int, seed: int) -> np.ndarray:
    """Returns the fold of each image, integers [N] from 0: the training images, then the validation images.

    The folds of each class, and of each split, differ by one image at most, but that equal images share a fold: a
    network that was trained on a copy of an image has seen its label.

    Args:
      splits: images and labels.
      folds: number of folds, 3 to 20.
      seed: of the assignment.
    """
    pair = splits.train, splits.val
    digests = b"".join(hashlib.sha256(image.tobytes()).digest() for split in pair for image in split.images)
    group_of_N = group_equal(np.frombuffer(digests, np.uint8).reshape(-1, 32))
    first_G = np.unique(group_of_N, return_index=True)[1]
    labels_N = np.concatenate([split.labels for split in pair])
    ranks_G = np.random.RandomState(seed).permutation(len(first_G))
    fold_of_G = np.empty(len(first_G), int)
    order_G = np.lexsort([ranks_G, labels_N[first_G], first_G >= len(splits.train.labels)])
    fold_of_G[order_G] = np.arange(len(first_G)) % folds
    return fold_of_G[group_of_N]


def hold_out(splits: Splits, is_held_N: np.ndarray) -> Splits:
    """Returns the images without those of a fold, which become the test images.

    Args:
      splits: training and validation images keep their split, so that early stopping never sees the fold either.
      is_held_N: whether each image is of the fold, the training images first.
    """
    (train, val), (train_held, val_held) = splits[:2], np.split(is_held_N, [len(splits.train.labels)])
    images, labels = (
        np.concatenate([array[is_held] for array, is_held in zip(arrays, (train_held, val_held), strict=True)])
        for arrays in zip(train, val, strict=True)
    )
    return Splits(_select(train, ~train_held), _select(val, ~val_held), Split(images, labels))


def _select(split: Split, is_selected_N: np.ndarray) -> Split:
    return Split(split.images[is_selected_N], split.labels[is_selected_N])


@checked(config=instance(ExperimentConfig), splits=instance(Splits), directory=FILE, folds=FOLDS, report=FUNCTION)
def out_of_sample(
    config: ExperimentConfig,
    splits: Splits,
    directory: str | Path,
    folds: int = 5,
    report: Callable[[str], None] = lambda line: None,
) -> np.ndarray:
    """Trains a configuration once without each fold, and returns the probabilities of the images left out.

    Each training is a run directory, ``fold-1-of-5`` and so on, so that the same call resumes where it was stopped.

    Args:
      config: the experiment; classes are counted in each training again.
      splits: its images.
      directory: for the runs.
      folds: number of folds, 3 to 20.
      report: called with a line for each finished fold.

    Returns:
      Probabilities, float32 [N, K]: of the training images, then of the validation images.

    Raises:
      UserError: configuration, images or directory cannot be used; found before the first training.
      Stopped: a signal was received, and the training is saved.
    """
    directory = Path(directory)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, class_counts=()))
    fold_N = assign_folds(splits, folds, config.data.split_seed)
    places = [directory / f"fold-{fold + 1}-of-{folds}" for fold in range(folds)]
    outputs.check_new_run(places[0])
    for fold, place in enumerate(places):
        rundir.check_entries(place, check_splits(config, hold_out(splits, fold_N == fold)))
    parts = []
    for fold, place in enumerate(places):
        parted = hold_out(splits, fold_N == fold)
        result = fit(config, place, parted)
        parts.append(probabilities(result.state, parted.test.images))
        accuracy, images = result.summary["test_accuracy"], len(parted.test.labels)
        report(f"fold {fold + 1} of {folds}: accuracy {accuracy:.4f} on the {images:,} images left out")
    probabilities_NxK = np.empty((len(fold_N), parts[0].shape[1]), np.float32)
    for fold, part_MxK in enumerate(parts):
        probabilities_NxK[fold_N == fold] = part_MxK
    return probabilities_NxK
