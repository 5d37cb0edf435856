"""Images and labels as arrays in memory, verified and split."""

import hashlib
from typing import NamedTuple

import numpy as np

from cnn.config import DataConfig, ExperimentConfig, class_names
from cnn.data.cache import load_arrays
from cnn.errors import ConfigError, DataError


class Split(NamedTuple):
    """Images with their labels."""

    images: np.ndarray
    """uint8 [N,H,W,C], 0 to 255."""
    labels: np.ndarray
    """int32 [N]."""


class Splits(NamedTuple):
    """A data set, split three ways."""

    train: Split
    val: Split
    test: Split


def load_data(config: DataConfig) -> Splits:
    """Returns the training, validation and test images of a data set.

    The published test images are the test split. The published training images are divided exactly as by
    scikit-learn's ``train_test_split(test_size=val_fraction, random_state=split_seed)``; within each split they keep
    their published order.

    A directory that the user names, with ``config.source`` or, for Fashion-MNIST, the environment variable
    ``FASHION_MNIST_DIR``, is read and verified each time: it may be wrong, and the cache must not hide that.
    Otherwise the images come from the cache in ``$XDG_CACHE_HOME/fashion-cnn`` (``~/.cache`` without the variable),
    verified by SHA-256. An empty or damaged cache is filled from the installed Debian package, or from the network.

    Raises:
      ConfigError: ``val_fraction`` leaves no training image.
      DataError: the images cannot be found, downloaded, verified or cached.
    """
    if config.train_images < 1:
        raise ConfigError(
            f"--data.val_fraction is {config.val_fraction}, but must leave one of {config.val_images:,} images"
        )
    arrays = load_arrays(config)
    permutation = np.random.RandomState(config.split_seed).permutation(len(arrays.train_images))
    # The assignment is scikit-learn's; within each split, images keep their published order.
    val, train = (np.sort(part) for part in np.split(permutation, [config.val_images]))
    labels = arrays.train_labels.astype(np.int32)
    splits = Splits(
        train=Split(arrays.train_images[train], labels[train]),
        val=Split(arrays.train_images[val], labels[val]),
        test=Split(np.array(arrays.test_images), arrays.test_labels.astype(np.int32)),
    )
    for name, split in zip(Splits._fields, splits, strict=True):
        check_split(split, config.image_shape, len(class_names(config)), name)
    return splits


def data_digest(splits: Splits) -> str:
    """Returns the hex SHA-256 of the data of a run: all images and labels, their order, shapes and dtypes."""
    digest = hashlib.sha256()
    for array in (array for split in splits for array in split):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def check_split(split: Split, image_shape: tuple[int, int, int], classes: int, name: str) -> None:
    """Checks that a split can be trained or evaluated on.

    Args:
      split: images and labels.
      image_shape: height, width and channels that the images must have.
      classes: labels must be from 0 to ``classes - 1``.
      name: name of the split in the message.

    Raises:
      DataError: images or labels have the wrong shape, dtype or range, or there are none.
    """
    images, labels = np.asarray(split.images), np.asarray(split.labels)
    if images.dtype != np.uint8 or images.shape[1:] != image_shape:
        shape = ", ".join(("N", *map(str, image_shape)))
        extent = ""
        if np.issubdtype(images.dtype, np.floating) and images.size:
            extent = f" from {images.min():g} to {images.max():g}"
        raise DataError(
            f"{name} images are {images.dtype} {list(images.shape)}{extent}, but must be uint8 [{shape}] from 0 to 255"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise DataError(
            f"{name} labels are {labels.dtype} {list(labels.shape)}, but must be integers [{len(images)}], 1 per image"
        )
    if not len(images):
        raise DataError(f"{name} has no images, but must have at least 1")
    invalid = np.flatnonzero((labels < 0) | (labels >= classes))
    if invalid.size:
        raise DataError(f"{name} label {invalid[0]} is {labels[invalid[0]]}, but must be from 0 to {classes - 1}")


def check_splits(config: ExperimentConfig, splits: Splits) -> Splits:
    """Returns the splits if the experiment can run on them.

    Raises:
      UserError: images or labels do not match the configuration, or are fewer than a batch.
    """
    known, classes = len(class_names(config.data)), config.model.classes
    # Images that the user passes may have fewer classes.
    if classes < known and any(np.max(split.labels, initial=0) >= classes for split in splits):
        raise ConfigError(f"--model.classes is {config.model.classes}, but {config.data.name} has {known} classes")
    for name, split in splits._asdict().items():
        check_split(split, config.data.image_shape, config.model.classes, name)
    count, batch_size = len(splits.train.labels), config.optim.batch_size
    if batch_size > count:
        raise ConfigError(
            f"--optim.batch_size is {batch_size}, but must be at most {count}, the number of training images"
        )
    return splits
