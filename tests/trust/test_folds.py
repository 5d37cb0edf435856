"""Folds: every image is left out once; trainings that resume; a stop in between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn
from cnn.trust import folds
from tests.helpers import narrow, shrink


@given(st.integers(0, 2**32 - 1), st.integers(3, 20), st.integers(30, 60), st.integers(20, 40))
def test_folds_are_balanced_by_class_and_split_and_keep_copies_together(seed, count, train, val):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (train + val, 2, 2, 1), np.uint8)
    # Three copies, one of them with another label.
    images[[3, train + 1]] = images[0]
    labels = rng.integers(0, 3, train + val).astype(np.int32)
    pairs = zip(np.split(images, [train]), np.split(labels, [train]), strict=True)
    splits = cnn.Splits(*(cnn.Split(*pair) for pair in pairs), test=cnn.Split(images[:1], labels[:1]))
    fold_N = folds.assign_folds(splits, count, seed)
    np.testing.assert_array_equal(fold_N, folds.assign_folds(splits, count, seed))
    assert fold_N[0] == fold_N[3] == fold_N[train + 1]
    stratum = labels + 3 * (np.arange(train + val) >= train)
    for name in range(6):
        sizes = np.bincount(fold_N[stratum == name], minlength=count)
        # The three copies count as one image, and may be of three strata.
        assert sizes.max() - sizes.min() <= 3
    parted = folds.hold_out(splits, fold_N == 0)
    assert len(parted.test.labels) == (fold_N == 0).sum()
    np.testing.assert_array_equal(parted.train.images, splits.train.images[fold_N[:train] != 0])
    np.testing.assert_array_equal(parted.val.labels, splits.val.labels[fold_N[train:] != 0])
    np.testing.assert_array_equal(parted.test.images, images[fold_N == 0])


@pytest.fixture(scope="module")
def tiny(config, splits):
    return narrow(config, epochs=1), shrink(splits, 240, 60, 30)


def test_each_image_has_the_probabilities_of_the_network_that_was_trained_without_it(tiny, tmp_path, monkeypatch):
    config, splits = tiny
    lines = []
    probabilities = folds.out_of_sample(config, splits, tmp_path, 3, lines.append)
    assert probabilities.shape == (300, 10) and len(lines) == 3
    fold_N = folds.assign_folds(splits, 3, config.data.split_seed)
    images = np.concatenate([splits.train.images, splits.val.images])
    for fold in range(3):
        run_dir = tmp_path / f"fold-{fold + 1}-of-3"
        state, saved = cnn.load_best(run_dir)
        held = fold_N == fold
        np.testing.assert_array_equal(probabilities[held], cnn.predict(state, images[held]))
        _, result = cnn.load_result(run_dir)
        labels = np.concatenate([splits.train.labels, splits.val.labels])
        accuracy = (probabilities[held].argmax(1) == labels[held]).mean()
        assert result.summary["test_accuracy"] == pytest.approx(accuracy)
        assert sum(saved.data.class_counts) == (~held[:240]).sum()
    # Finished trainings are loaded.
    monkeypatch.setattr("cnn.runs.fit.train_steps", None)
    np.testing.assert_array_equal(folds.out_of_sample(config, splits, tmp_path, 3), probabilities)
    changed = splits._replace(train=splits.train._replace(labels=np.roll(splits.train.labels, 1)))
    monkeypatch.undo()
    with pytest.raises(cnn.RunDirError, match="holds a run on other images"):
        folds.out_of_sample(config, changed, tmp_path, 3)


def test_wrong_arguments_are_refused_before_the_first_training(tiny, tmp_path):
    config, splits = tiny
    with pytest.raises(cnn.ConfigError, match="folds is 2, but must be an integer from 3 to 20"):
        folds.out_of_sample(config, splits, tmp_path, 2)
    (tmp_path / "fold-3-of-3").mkdir()
    (tmp_path / "fold-3-of-3" / "notes.txt").write_text("mine")
    with pytest.raises(cnn.RunDirError, match="holds something else"):
        folds.out_of_sample(config, splits, tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["fold-3-of-3"]
