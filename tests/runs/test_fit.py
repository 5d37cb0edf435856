import dataclasses
import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn
from cnn.runs import checkpoint
from cnn.runs import fit as train
from cnn.training.early_stopping import EarlyStopper, should_stop, update_stopper
from tests.helpers import NARROW, Stopped, flip_a_bit, narrow, stop_after, truncate, without_times


def _assert_equal_bits(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


@pytest.fixture(scope="module")
def finished(config, small, tmp_path_factory):
    """A run that trains for six epochs."""
    run_dir = tmp_path_factory.mktemp("run") / "six"
    return run_dir, train.fit(narrow(config, epochs=6, patience=6), run_dir, small)


def test_the_run_directory_holds_what_it_promises(finished, config, small):
    run_dir, result = finished
    names = {path.name for path in run_dir.iterdir()} - {".lock"}
    assert names == {"config.json", "metrics.jsonl", "kernels.jsonl", "result.json", "checkpoints", "summary.txt"}
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert set(rows[0]) == {
        *("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
        *("learning_rate", "seconds", "images_per_second"),
    }
    assert rows == result.history
    written = json.loads((run_dir / "result.json").read_text())
    assert written == result.summary
    assert {"data", "compile", "train", "eval", "checkpoint"} <= set(written["seconds"])
    described = json.loads((run_dir / "config.json").read_text())
    assert cnn.load_best(run_dir)[1] == narrow(config, epochs=6, patience=6)
    assert described["versions"]["jax"] == jax.__version__ and described["devices"]["platform"] == "cpu"
    assert len(described["data_sha256"]) == 64
    assert "conv1 (Conv)" in (run_dir / "summary.txt").read_text()


def test_the_result_is_that_of_the_best_epoch(finished, small):
    run_dir, result = finished
    losses = [row["val_loss"] for row in result.history]
    assert result.summary["best_epoch"] == 1 + losses.index(min(losses))
    assert result.summary["val_loss"] == min(losses)
    assert cnn.evaluate(result.state, small.val).loss == pytest.approx(min(losses), rel=1e-6)
    test = cnn.evaluate(result.state, small.test)
    assert result.summary["test_loss"] == pytest.approx(float(test.loss), rel=1e-6)
    assert result.summary["test_accuracy"] == int(test.correct) / 110


def test_training_on_real_images_learns(finished):
    _, result = finished
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


def test_load_best_gives_the_same_state_and_predictions(finished, small):
    run_dir, result = finished
    state, _ = cnn.load_best(run_dir)
    _assert_equal_bits(state.params, result.state.params)
    _assert_equal_bits(cnn.predict(state, small.test.images), cnn.predict(result.state, small.test.images))


def test_a_finished_run_is_returned_and_nothing_is_overwritten(finished, config, small):
    run_dir, result = finished
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    again = train.fit(narrow(config, epochs=6, patience=6), run_dir, small)
    assert again.history == result.history and again.summary == result.summary
    _assert_equal_bits(again.state.params, result.state.params)
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(finished, config, small, tmp_path):
    _, whole = finished

    for epoch in (2, 3):
        with pytest.raises(Stopped):
            train.fit(narrow(config, epochs=6, patience=6), tmp_path / "run", small, report=stop_after(epoch))
        assert not (tmp_path / "run" / "result.json").exists()
    result = train.fit(narrow(config, epochs=6, patience=6), tmp_path / "run", small)
    _assert_equal_bits(result.state.params, whole.state.params)
    _assert_equal_bits(result.state.opt_state, whole.state.opt_state)
    assert without_times(result.history) == without_times(whole.history)
    assert without_times(result.summary) == without_times(whole.summary)


def _metrics(loss):
    return cnn.Metrics(jnp.float32(loss), jnp.int32(0), jnp.int32(1))


def _fit_with_val_losses(monkeypatch, config, small, run_dir, losses, **train_fields):
    """Runs fit with validation losses that are given, and an accuracy that tells the epochs apart."""
    values = iter(losses)

    class Given:
        def lower(self, *args):
            return self

        def compile(self):
            return lambda state, val: _metrics(next(values))

        def __call__(self, state, split):
            return _metrics(0)

    monkeypatch.setattr(train, "evaluate", Given())
    return train.fit(narrow(config, **{"epochs": len(losses), **train_fields}), run_dir, small)


def test_stops_after_two_epochs_without_improvement_and_restores_the_best(monkeypatch, config, small, tmp_path):
    losses = [0.5, 0.3, 0.4, 0.35, 0.1]
    result = _fit_with_val_losses(monkeypatch, config, small, tmp_path, losses, patience=2)
    assert (result.summary["best_epoch"], result.summary["stopped_epoch"]) == (2, 4)
    assert result.state.step == 2 * 16  # 500 images in batches of 32


def test_the_best_is_restored_when_stopping_never_fires_and_ties_keep_the_earlier(monkeypatch, config, small, tmp_path):
    losses = [0.5, 0.3, 0.4, 0.3, 0.6]
    result = _fit_with_val_losses(monkeypatch, config, small, tmp_path, losses, patience=9)
    assert (result.summary["best_epoch"], result.summary["stopped_epoch"]) == (2, 5)
    assert result.state.step == 2 * 16
    # The best, the latest, and the one before the latest.
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"32", "64", "80"}


def test_the_early_stopper_survives_a_restart(monkeypatch, config, small, tmp_path):
    with pytest.raises(StopIteration):
        _fit_with_val_losses(monkeypatch, config, small, tmp_path, [0.2, 0.3], patience=2, epochs=9)
    # One more epoch without improvement is the second in a row, though the process is another.
    result = _fit_with_val_losses(monkeypatch, config, small, tmp_path, [0.4], patience=2, epochs=9)
    assert (result.summary["best_epoch"], result.summary["stopped_epoch"]) == (1, 3)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_best(monkeypatch, config, small, tmp_path):
    with pytest.raises(FloatingPointError, match="epoch 2"):
        _fit_with_val_losses(monkeypatch, config, small, tmp_path, [0.2, float("nan")], patience=2)
    assert cnn.load_best(tmp_path)[0].step == 16


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=12), st.integers(0, 4))
def test_early_stopping_is_what_keras_does(losses, patience):
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


def test_a_batch_larger_than_the_split_is_refused_and_leaves_the_directory_to_a_better_try(config, small, tmp_path):
    large = dataclasses.replace(narrow(config), optim=cnn.OptimConfig(batch_size=501))
    with pytest.raises(cnn.ConfigError, match="--optim.batch_size is 501, but must be at most 500"):
        train.fit(large, tmp_path / "run", small)
    assert not (tmp_path / "run").exists()
    assert train.fit(narrow(config, epochs=1), tmp_path / "run", small).summary["stopped_epoch"] == 1


def test_other_images_are_no_part_of_the_same_run(config, small, tmp_path):
    with pytest.raises(Stopped):
        train.fit(narrow(config), tmp_path, small, report=stop_after(1))
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(cnn.RunDirError, match="a run on other images"):
        train.fit(narrow(config), tmp_path, small._replace(train=small.val))
    assert (tmp_path / "config.json").read_text() == before
    train.fit(narrow(config), tmp_path, small)
    with pytest.raises(cnn.RunDirError, match="a run on other images"):
        train.fit(narrow(config), tmp_path, small._replace(train=small.val))


def test_two_at_once_on_a_directory_are_refused(config, small, tmp_path):
    def second(row):
        with pytest.raises(cnn.RunDirError, match="in use by process"):
            train.fit(narrow(config), tmp_path, small)

    assert len(train.fit(narrow(config), tmp_path, small, report=second).history) == 2


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink])
def test_a_damaged_checkpoint_is_named_and_never_used(finished, config, small, tmp_path, damage):
    run_dir, _ = finished
    shutil.copytree(run_dir, tmp_path / "run")
    best = max((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    for other in (tmp_path / "run" / "checkpoints").iterdir():
        if other != best:
            shutil.rmtree(other)
    damage(max(best.glob("state/**/d/*"), key=lambda path: path.stat().st_size))
    with pytest.raises(cnn.DamagedError, match=f"{best} is damaged"):
        cnn.load_best(tmp_path / "run")
    gc.collect()  # No read has been left behind, unfinished, which would be a warning.


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_out_of_range_are_refused(config, small, tmp_path, label):
    labels = np.where(np.arange(500) == 7, label, small.train.labels)
    wrong = small._replace(train=cnn.Split(small.train.images, labels))
    with pytest.raises(cnn.DataError, match=f"train label 7 is {label}"):
        train.fit(config, tmp_path, wrong)


def test_a_directory_that_holds_something_else_is_refused_and_left_alone(config, small, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(cnn.RunDirError, match="something else .thesis.txt."):
        train.fit(config, tmp_path, small)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_configuration_is_refused_with_the_fields_that_differ(finished, config, small):
    run_dir, _ = finished
    with pytest.raises(
        cnn.RunDirError, match=r"train.seed 0 -> 1; .*train.patience 6 -> 2|patience 6 -> 2; .*seed 0 -> 1"
    ):
        train.fit(narrow(config, epochs=6, patience=2, seed=1), run_dir, small)


def test_a_run_directory_that_cannot_be_made_is_refused(config, small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(cnn.RunDirError, match="Not a directory"):
        train.fit(config, tmp_path / "file" / "run", small)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="/sys, where nobody can write, is Linux' own")
def test_a_read_only_run_directory_is_refused(config, small):
    with pytest.raises(cnn.RunDirError, match="not permitted|denied|Read-only"):
        train.fit(config, "/sys/run", small)
    with pytest.raises(cnn.RunDirError, match="something else|not permitted|denied|Read-only"):
        train.fit(config, "/sys/kernel", small)


def test_more_classes_than_the_data_has_can_be_trained_and_drawn(config, small, tmp_path):
    from cnn.look.pictures import draw_figures

    wide = dataclasses.replace(config, model=dataclasses.replace(NARROW, classes=12))
    result = train.fit(wide, tmp_path, small)
    assert len(draw_figures(tmp_path, wide, result, small)) == 11


def test_fewer_classes_than_the_data_has_are_refused(config, small, tmp_path):
    few = dataclasses.replace(config, model=dataclasses.replace(NARROW, classes=5))
    with pytest.raises(cnn.ConfigError, match="--model.classes is 5, but fashion_mnist has 10 classes"):
        train.fit(few, tmp_path / "run", small)


@pytest.mark.parametrize("content", [None, "{", '"text"', '{"config": {"optim": {"batch_size": 0}}}'])
def test_load_best_of_what_is_no_run_names_the_directory(tmp_path, content):
    if content:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(cnn.RunDirError, match=str(tmp_path)):
        cnn.load_best(tmp_path)


def test_checkpoints_load_from_a_directory_of_any_name(finished, tmp_path):
    run_dir, result = finished
    moved = shutil.copytree(run_dir, tmp_path / "c# 100%25? 모델")
    _assert_equal_bits(cnn.load_best(moved)[0].params, result.state.params)


def test_load_best_without_a_checkpoint_says_so(finished, tmp_path):
    run_dir, _ = finished
    (tmp_path / "config.json").write_text((run_dir / "config.json").read_text())
    with pytest.raises(cnn.RunDirError, match="has no checkpoint"):
        cnn.load_best(tmp_path)


FULL_DISK = """
import resource, sys
import cnn
from tests.helpers import NARROW
splits = cnn.load_data(cnn.DataConfig())
small = cnn.Splits(*(cnn.Split(s.images[:200], s.labels[:200]) for s in splits))
config = cnn.ExperimentConfig(model=NARROW, train=cnn.TrainConfig(epochs=3))
def fill_disk(row):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    cnn.fit(config, sys.argv[1], small, report=fill_disk)
except cnn.RunDirError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    """A real process that cannot write another byte to any file after its first epoch."""
    # JAX' own cache is no part of this: a warning that it could not be written would be one line more.
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    assert run.stdout.startswith("cannot write the checkpoint of step 14"), run.stdout + run.stderr
    assert "the same command goes on from step 7, which is whole" in run.stdout
    assert len(run.stdout.splitlines()) == 1 and not run.stderr
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["7"]
    assert cnn.load_best(tmp_path)[0].step == 7
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_checkpoints_load_whatever_the_seed_of_the_template(finished, config):
    run_dir, result = finished
    like = cnn.create_state(narrow(config, seed=9))
    with checkpoint.open_checkpoints(run_dir) as checkpoints:
        latest = checkpoint.load_latest(checkpoints, like)
    assert latest
    state, progress = latest
    assert state.step == 6 * 16 and len(progress["history"]) == 6
    assert jax.random.key_data(state.key).tolist() == jax.random.key_data(jax.random.key(0)).tolist()
