"""The training loop: what it writes, early stopping, and what it refuses before training."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn
from cnn.data.splits import check_splits
from cnn.look.run_figures import figures, write_figures
from cnn.runs import derived
from cnn.training.early_stopping import EarlyStopper, should_stop, update_stopper
from tests.helpers import NARROW, assert_same, narrow


def test_a_run_writes_its_files(finished, result, four_epochs, small):
    names = {path.name for path in finished.iterdir()} - {".lock"}
    assert names == {"config.json", "metrics.jsonl", "kernels.jsonl", "result.json", "checkpoints", "summary.txt"}
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert set(rows[0]) == {
        *("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
        *("learning_rate", "seconds", "images_per_second"),
    }
    assert rows == result.history
    written = json.loads((finished / "result.json").read_text())
    assert written == result.summary
    assert {"data", "compile", "train", "eval", "checkpoint"} <= set(written["seconds"])
    described = json.loads((finished / "config.json").read_text())
    assert cnn.load_best(finished)[1] == check_splits(four_epochs, small)
    assert described["versions"]["jax"] == jax.__version__ and described["devices"]["platform"] == "cpu"
    assert len(described["data_sha256"]) == 64
    assert "conv1 (Conv)" in (finished / "summary.txt").read_text()


def test_the_result_is_that_of_the_best_epoch(result, small):
    losses = [row["val_loss"] for row in result.history]
    assert result.summary["best_epoch"] == 1 + losses.index(min(losses))
    assert result.summary["val_loss"] == min(losses)
    assert cnn.evaluate(result.state, small.val).loss == pytest.approx(min(losses), rel=1e-6)
    test = cnn.evaluate(result.state, small.test)
    assert result.summary["test_loss"] == pytest.approx(float(test.loss), rel=1e-6)
    assert result.summary["test_accuracy"] == int(test.correct) / 110


def test_the_training_loss_falls_on_real_images(result):
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


def test_a_finished_run_is_returned_and_nothing_is_written(finished, result, four_epochs, small):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    again = cnn.fit(four_epochs, finished, small)
    assert again.history == result.history and again.summary == result.summary
    assert_same(again.state.params, result.state.params)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


# Early stopping


def test_training_stops_after_two_epochs_without_improvement(fit_with_val_losses):
    result = fit_with_val_losses([0.5, 0.3, 0.4, 0.35, 0.1], patience=2)
    assert (result.summary["best_epoch"], result.summary["stopped_epoch"]) == (2, 4)
    assert result.state.step == 2 * 16  # 500 images in batches of 32


def test_the_best_epoch_is_restored_without_early_stopping_and_a_tie_keeps_the_earlier(fit_with_val_losses, tmp_path):
    result = fit_with_val_losses([0.5, 0.3, 0.4, 0.3, 0.6], patience=9)
    assert (result.summary["best_epoch"], result.summary["stopped_epoch"]) == (2, 5)
    assert result.state.step == 2 * 16
    # The best, the latest, and the one before the latest.
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"32", "64", "80"}


def test_early_stopping_resumes(fit_with_val_losses):
    with pytest.raises(StopIteration):
        fit_with_val_losses([0.2, 0.3], patience=2, epochs=9)
    # One more epoch without improvement is the second in a row, across the restart.
    result = fit_with_val_losses([0.4], patience=2, epochs=9)
    assert (result.summary["best_epoch"], result.summary["stopped_epoch"]) == (1, 3)


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=12), st.integers(0, 4))
def test_early_stopping_equals_keras(losses, patience):
    # Keras' EarlyStopping.on_epoch_end, restated: wait counts epochs since the best; it stops when wait >= patience.
    best, wait, keras_stop, keras_best = float("inf"), 0, len(losses), 0
    for epoch, loss in enumerate(losses, 1):
        wait += 1
        if loss < best:
            best, wait, keras_best = loss, 0, epoch
            continue
        if wait >= patience:
            keras_stop = epoch
            break
    stopper, epoch = EarlyStopper(), 0
    while epoch < len(losses) and not should_stop(stopper, patience):
        epoch += 1
        stopper = update_stopper(stopper, epoch, losses[epoch - 1])
    assert (epoch, stopper.best_epoch) == (keras_stop, keras_best)


# Refused input


def test_a_batch_larger_than_the_split_is_refused_and_leaves_no_directory(config, small, tmp_path):
    large = dataclasses.replace(narrow(config), optim=cnn.OptimConfig(batch_size=501))
    with pytest.raises(cnn.ConfigError, match="--optim.batch_size is 501, but must be at most 500"):
        cnn.fit(large, tmp_path / "run", small)
    assert not (tmp_path / "run").exists()
    assert cnn.fit(narrow(config, epochs=1), tmp_path / "run", small).summary["stopped_epoch"] == 1


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_out_of_range_are_refused(config, small, tmp_path, label):
    labels = np.where(np.arange(500) == 7, label, small.train.labels)
    wrong = small._replace(train=cnn.Split(small.train.images, labels))
    with pytest.raises(cnn.DataError, match=f"train label 7 is {label}"):
        cnn.fit(config, tmp_path, wrong)


def test_a_network_of_more_classes_than_the_data_is_trained_and_drawn(config, small, tmp_path):
    wide = dataclasses.replace(config, model=dataclasses.replace(NARROW, classes=12))
    drawings = figures(wide, cnn.fit(wide, tmp_path, small), small, derived.read_kernels(tmp_path))
    assert len(drawings) == 11
    # Those that name the classes.
    assert len(write_figures(tmp_path, {name: drawings[name] for name in ("sample", "probabilities")})) == 2


def test_fewer_classes_than_the_data_has_are_refused(config, small, tmp_path):
    few = dataclasses.replace(config, model=dataclasses.replace(NARROW, classes=5))
    with pytest.raises(cnn.ConfigError, match="--model.classes is 5, but must be at least 10"):
        cnn.fit(few, tmp_path / "run", small)
