"""No run is lost: killed, stopped, damaged, out of space."""

import dataclasses
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import cnn
from cnn.devices import signals
from cnn.errors import Stopped
from cnn.exchange import readers as archives
from cnn.runs import checkpoint, rundir
from cnn.runs import fit as train
from cnn.runs import verify as verification
from cnn.training.steps import epoch_order
from tests.helpers import NARROW, ROOT, flip_a_bit, narrow, truncate, without_times
from tests.torture import outcome, torture

STEPS = 16
"""Of an epoch: 500 images in batches of 32."""


class Interrupted(Exception):
    pass


def _interrupt():
    raise Interrupted


def _nothing(*arguments):
    pass


def test_a_process_that_is_killed_again_and_again_comes_to_the_same_bits(tmp_path):
    counts = torture(20, tmp_path)
    assert counts["kills"] == 20 and counts["after a checkpoint"] >= 1
    assert counts["runs that finished"] == counts["runs equal to the uninterrupted one"] > 0


def test_an_epoch_in_parts_is_the_whole_epoch_to_the_bit(config, small):
    whole, metrics = cnn.train_epoch(cnn.create_state(config), small.train, batch_size=32)
    for parts in [(16,), (1, 15), (5, 5, 5, 1)]:
        state, so_far = cnn.create_state(config), cnn.Metrics(np.float32(0), np.int32(0), np.int32(0))
        for steps in parts:
            state, so_far = cnn.train_steps(state, so_far, small.train, steps, batch_size=32)
        assert state.step == STEPS and so_far == metrics
        jax.tree.map(np.testing.assert_array_equal, state.params, whole.params)
        jax.tree.map(np.testing.assert_array_equal, state.opt_state, whole.opt_state)


def _stop_after_save(monkeypatch, step):
    """Raises as soon as the checkpoint of a step has been written."""

    def save(checkpoints, state, progress):
        checkpoint.save(checkpoints, state, progress)
        if int(state.step) == step:
            raise Interrupted

    monkeypatch.setattr(train, "save", save)


@pytest.mark.parametrize("step", [5, 15, 16, 21])
def test_a_run_goes_on_from_within_an_epoch_to_the_same_bits(monkeypatch, config, small, tmp_path, step):
    often = narrow(config, epochs=2, checkpoint_steps=5)
    train.fit(often, tmp_path / "whole", small)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        _stop_after_save(patch, step)
        train.fit(often, tmp_path / "run", small)
    assert not (tmp_path / "run" / "result.json").exists()
    result = train.fit(often, tmp_path / "run", small)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert all(row["images_per_second"] > 0 for row in result.history)


def test_how_often_a_run_saves_changes_nothing_else(config, small, tmp_path):
    seldom = train.fit(narrow(config), tmp_path / "seldom", small)
    often = train.fit(narrow(config, checkpoint_steps=3), tmp_path / "often", small)
    assert without_times(often.history) == without_times(seldom.history)
    jax.tree.map(np.testing.assert_array_equal, often.state.opt_state, seldom.state.opt_state)


# Checkpoints


def test_what_a_killed_process_did_not_come_to_remove_is_removed(monkeypatch, begun, expected, config, small, tmp_path):
    run_dir = _copy(begun, tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(checkpoint, "_remove", lambda checkpoints, old: _interrupt() if old else None)
        train.fit(narrow(config, epochs=4, patience=4), run_dir, small)
    # The last epoch is saved, so that nothing more will be.
    assert len(list((run_dir / "checkpoints").iterdir())) == 3
    train.fit(narrow(config, epochs=4, patience=4), run_dir, small)
    assert outcome(run_dir) == expected


@pytest.fixture(scope="module")
def begun(config, small, tmp_path_factory):
    """A run that was interrupted after its third epoch, its best one, with the one before and the latest."""
    run_dir = tmp_path_factory.mktemp("begun") / "run"

    def report(row):
        if row["epoch"] == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        train.fit(narrow(config, epochs=4, patience=4), run_dir, small, report)
    return run_dir


@pytest.fixture(scope="module")
def expected(config, small, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("expected") / "run"
    train.fit(narrow(config, epochs=4, patience=4), run_dir, small)
    return outcome(run_dir)


def _copy(run_dir, tmp_path):
    return Path(shutil.copytree(run_dir, tmp_path / "run"))


def _data_file(directory):
    return max(directory.glob("state/**/d/*"), key=lambda path: path.stat().st_size)


def _every_kind_of_damage(directory):
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        for damage in (flip_a_bit, truncate, Path.unlink):
            yield path.relative_to(directory), damage


def test_whatever_is_damaged_in_the_latest_checkpoint_no_wrong_number_is_taken(begun, config, tmp_path):
    """Each of its files in turn, by each kind of damage: it loads as it was saved, or the one before does."""
    like = cnn.create_state(narrow(config, epochs=4, patience=4), 500)

    def load(run_dir):
        warnings = []
        with checkpoint.open_checkpoints(run_dir) as checkpoints:
            found = checkpoint.load_latest(checkpoints, like, warnings.append)
        assert found
        return found[0], found[1], warnings

    whole = {3 * STEPS: load(begun)}
    before = _copy(begun, tmp_path)
    shutil.rmtree(before / "checkpoints" / str(3 * STEPS))
    whole[2 * STEPS] = load(before)
    shutil.rmtree(before)

    fell_back = 0
    for file, damage in _every_kind_of_damage(begun / "checkpoints" / str(3 * STEPS)):
        run_dir = _copy(begun, tmp_path)
        damage(run_dir / "checkpoints" / str(3 * STEPS) / file)
        state, progress, warnings = load(run_dir)
        wanted_state, wanted_progress, _ = whole[int(state.step)]
        jax.tree.map(np.testing.assert_array_equal, state.params, wanted_state.params)
        jax.tree.map(np.testing.assert_array_equal, state.opt_state, wanted_state.opt_state)
        assert progress == wanted_progress
        if state.step == 2 * STEPS:
            fell_back += 1
            # Without its manifest it is none, and only metrics.jsonl knows of it.
            problem = "is missing" if file.name == checkpoint.MANIFEST and damage == Path.unlink else "is damaged"
            assert len(warnings) == 1 and problem in warnings[0]
        shutil.rmtree(run_dir)
    assert fell_back >= 8  # files, of which a bit, a half or all went


def test_a_damaged_checkpoint_is_named_the_one_before_is_taken_and_the_run_comes_to_the_same(
    begun, expected, config, small, tmp_path
):
    run_dir, warnings = _copy(begun, tmp_path), []
    flip_a_bit(_data_file(run_dir / "checkpoints" / str(3 * STEPS)))
    train.fit(narrow(config, epochs=4, patience=4), run_dir, small, warn=warnings.append)
    assert len(warnings) == 1 and "is not what was saved" in warnings[0] and "the one before it is taken" in warnings[0]
    assert (run_dir / "damaged" / str(3 * STEPS)).is_dir()
    shutil.rmtree(run_dir / "damaged")
    assert outcome(run_dir) == expected


def _damage_all(run_dir):
    for directory in (run_dir / "checkpoints").iterdir():
        truncate(_data_file(directory))


def _hide_all(run_dir):
    for directory in (run_dir / "checkpoints").iterdir():
        (directory / "commit_success.txt").unlink()


def _forget_all(run_dir):
    for directory in (run_dir / "checkpoints").iterdir():
        (directory / checkpoint.MANIFEST).unlink()


@pytest.mark.parametrize(
    "damage", [_damage_all, _hide_all, _forget_all, lambda run_dir: shutil.rmtree(run_dir / "checkpoints")]
)
def test_when_no_checkpoint_is_whole_nothing_is_trained_anew(begun, config, small, tmp_path, damage):
    run_dir = _copy(begun, tmp_path)
    damage(run_dir)
    before = (run_dir / "metrics.jsonl").read_text()
    with pytest.raises(cnn.DamagedError, match="no checkpoint of .* is whole, and nothing is trained anew"):
        train.fit(narrow(config, epochs=4, patience=4), run_dir, small, warn=lambda line: None)
    assert (run_dir / "metrics.jsonl").read_text() == before


def test_another_model_optimizer_or_dtype_is_refused_with_the_leaves_that_differ(begun, config):
    def message(**fields):
        like = cnn.create_state(dataclasses.replace(narrow(config), **fields))
        with checkpoint.open_checkpoints(begun) as checkpoints, pytest.raises(cnn.RunDirError) as error:
            checkpoint.load_latest(checkpoints, like)
        return str(error.value)

    wider = message(model=dataclasses.replace(NARROW, conv2_features=6))
    assert "params/conv2/kernel float32 [3, 3, 4, 4] -> float32 [3, 3, 4, 6]" in wider
    assert "conv1" not in wider and "\n" not in wider
    assert "opt_state/0/mu/conv1/bias float32 [4] -> missing" in message(optim=cnn.OptimConfig(name="sgd"))
    like = cnn.create_state(narrow(config))
    halves = like.replace(params=jax.tree.map(lambda leaf: leaf.astype("bfloat16"), like.params))
    with (
        checkpoint.open_checkpoints(begun) as checkpoints,
        pytest.raises(cnn.RunDirError, match="float32.*-> bfloat16"),
    ):
        checkpoint.load_latest(checkpoints, halves)


def test_verify_says_what_is_whole_and_what_is_not(begun, tmp_path):
    run_dir = _copy(begun, tmp_path)
    names = ["config.json", "metrics.jsonl", "kernels.jsonl", *(f"checkpoints/{epoch * STEPS}" for epoch in (2, 3))]
    assert verification.verify(run_dir) == dict.fromkeys(names, "")
    flip_a_bit(_data_file(run_dir / "checkpoints" / str(2 * STEPS)))
    (run_dir / "metrics.jsonl").write_text("{}\n")
    found = verification.verify(run_dir)
    assert [name for name, problem in found.items() if problem] == ["metrics.jsonl", f"checkpoints/{2 * STEPS}"]
    command = subprocess.run(
        [sys.executable, "-m", "cnn", "verify", str(run_dir)], capture_output=True, text=True, cwd=ROOT, timeout=100
    )
    assert command.returncode == 1
    assert [f"checkpoints/{3 * STEPS}", "good"] in [line.split() for line in command.stdout.splitlines()]
    assert command.stderr == f"error: damaged in {run_dir}: metrics.jsonl, checkpoints/{2 * STEPS}\n"


def test_a_lost_best_checkpoint_is_not_replaced_by_another(begun, tmp_path):
    run_dir = _copy(begun, tmp_path)
    truncate(_data_file(run_dir / "checkpoints" / str(3 * STEPS)))
    with pytest.raises(cnn.DamagedError, match=f"checkpoints/{3 * STEPS} is damaged"):
        cnn.load_best(run_dir)
    shutil.rmtree(run_dir / "checkpoints" / str(3 * STEPS))
    # Step 32 was the best until then, but is not the run's.
    with pytest.raises(cnn.DamagedError, match="the latest checkpoint of .* is missing"):
        cnn.load_best(run_dir)
    shutil.rmtree(run_dir / "checkpoints" / str(2 * STEPS))
    with pytest.raises(cnn.RunDirError, match="has no checkpoint"):
        cnn.load_best(run_dir)


def _remove(name):
    return lambda directory: (directory / name).unlink()


@pytest.mark.parametrize("lose", [_remove("commit_success.txt"), _remove(checkpoint.MANIFEST), shutil.rmtree])
def test_a_latest_checkpoint_that_is_lost_is_told_of_and_no_other_is_the_best(
    begun, expected, config, small, tmp_path, lose
):
    run_dir, warnings = _copy(begun, tmp_path), []
    lose(run_dir / "checkpoints" / str(3 * STEPS))
    assert any(verification.verify(run_dir).values())
    with pytest.raises(cnn.DamagedError):
        cnn.load_best(run_dir)
    train.fit(narrow(config, epochs=4, patience=4), run_dir, small, warn=warnings.append)
    assert len(warnings) == 1
    shutil.rmtree(run_dir / "damaged", ignore_errors=True)
    assert outcome(run_dir) == expected
    assert not any(verification.verify(run_dir).values())


def test_verify_compares_the_epochs_with_the_latest_checkpoint(begun, tmp_path):
    run_dir = _copy(begun, tmp_path)
    lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "metrics.jsonl").write_text("".join(lines[:2]))  # as if killed before the last one
    assert not any(verification.verify(run_dir).values())
    (run_dir / "metrics.jsonl").write_text(lines[0].replace('"train_loss": ', '"train_loss": 1') + lines[1])
    assert [name for name, problem in verification.verify(run_dir).items() if problem] == ["metrics.jsonl"]


# Run directories


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", "[]", "is not what a run writes"),
        ("result.json", '{"best_epoch": "1"}', "best_epoch is '1', but a run writes a int"),
        ("result.json", "{", "it is not JSON"),
        ("config.json", "{}", "is not what a run writes"),
        ("metrics.jsonl", '{"epoch": 1}\n', "train_loss is 'missing'"),
        ("metrics.jsonl", "\xff", "metrics.jsonl"),
    ],
)
def test_what_is_read_from_a_run_directory_is_checked(begun, tmp_path, name, content, message):
    run_dir = _copy(begun, tmp_path)
    (run_dir / name).write_text(content)
    read = {
        "result.json": rundir.read_result,
        "config.json": rundir.read_description,
        "metrics.jsonl": rundir.read_history,
    }[name]
    with pytest.raises(cnn.RunDirError, match=message):
        read(run_dir)


@pytest.mark.parametrize("name", ["checkpoints", "figures", f"checkpoints/{2 * STEPS}", "damaged"])
def test_a_link_in_a_run_directory_is_not_followed(begun, config, small, tmp_path, name):
    run_dir, outside = _copy(begun, tmp_path), tmp_path / "outside"
    outside.mkdir()
    (outside / checkpoint.MANIFEST).write_text("{}")
    shutil.rmtree(run_dir / name, ignore_errors=True)
    (run_dir / name).symlink_to(outside)
    with pytest.raises(cnn.RunDirError, match=f"{name} is a symbolic link"):
        train.fit(narrow(config, epochs=4, patience=4), run_dir, small)
    assert [path.name for path in outside.iterdir()] == [checkpoint.MANIFEST]
    (run_dir / name).unlink()
    (run_dir / "damaged").write_text("no directory")
    with pytest.raises(cnn.RunDirError, match="damaged is no directory"):
        train.fit(narrow(config, epochs=4, patience=4), run_dir, small)


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("moment", ["report", "track"])
def test_a_run_whose_directory_was_replaced_writes_nothing_into_its_successors(config, small, tmp_path, epoch, moment):
    run_dir = tmp_path / "run"

    def replace(row, state=None):
        if row["epoch"] == epoch:
            shutil.rmtree(run_dir)
            run_dir.mkdir()
            (run_dir / ".lock").touch()

    with pytest.raises((cnn.RunDirError, cnn.DamagedError), match="is not this run's any more|has no finished epoch"):
        train.fit(narrow(config), run_dir, small, **{moment: replace})
    assert not [path for path in run_dir.iterdir() if path.name not in (".lock", "checkpoints")]


@pytest.mark.parametrize("moment", ["create_state", "_read_description"])
def test_who_reads_a_run_while_another_process_saves_is_told_of_no_damage(
    monkeypatch, begun, config, small, tmp_path, moment
):
    """After it has opened the directory, and between two of its looks at it."""
    run_dir, original = _copy(begun, tmp_path), getattr(checkpoint, moment)

    def meanwhile(*arguments):
        monkeypatch.setattr(checkpoint, moment, original)
        train.fit(narrow(config, epochs=4, patience=4), run_dir, small)
        return original(*arguments)

    monkeypatch.setattr(checkpoint, moment, meanwhile)
    assert cnn.load_best(run_dir)[0].step in (3 * STEPS, 4 * STEPS)


def test_a_run_directorys_name_does_not_lead_out_of_its_root(tmp_path):
    from cnn.run import default_run_dir

    (tmp_path / "runs").mkdir()
    assert default_run_dir("fashion_cnn", tmp_path / "runs").is_relative_to(tmp_path / "runs" / "fashion_cnn")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path)
    with pytest.raises(cnn.RunDirError, match="leads out of"):
        default_run_dir("linked", tmp_path / "runs")
    for name in ("..", "a/b", "/etc", "a\nb", ""):
        with pytest.raises(cnn.ConfigError, match="letters, digits"):
            cnn.ExperimentConfig(name=name)


def test_the_second_process_on_a_directory_is_told_who_has_it_and_a_dead_ones_lock_is_void(config, small, tmp_path):
    message = []

    def second(row):
        with pytest.raises(cnn.RunDirError) as error:
            train.fit(narrow(config), tmp_path, small)
        message.append(str(error.value))
        raise Interrupted

    with pytest.raises(Interrupted):
        train.fit(narrow(config), tmp_path, small, second)
    assert f"in use by process {os.getpid()} on {os.uname().nodename}" in message[0]
    (tmp_path / ".lock").write_text("process 1 on elsewhere, long dead")
    assert len(train.fit(narrow(config), tmp_path, small).history) == 2


VANISHING = """
import shutil, sys
import cnn
from tests.helpers import NARROW
splits = cnn.load_data(cnn.DataConfig())
small = cnn.Splits(*(cnn.Split(s.images[:200], s.labels[:200]) for s in splits))
try:
    config = cnn.ExperimentConfig(model=NARROW, train=cnn.TrainConfig(epochs=3))
    cnn.fit(config, sys.argv[1], small, report=lambda row: shutil.rmtree(sys.argv[1]))
except cnn.RunDirError as error:
    print(error)
"""


def test_a_run_directory_that_vanishes_is_one_line(tmp_path):
    run_dir = tmp_path / "run"
    run = subprocess.run(
        [sys.executable, "-c", VANISHING, str(run_dir)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert run.stdout.startswith("cannot write the checkpoint of step 14"), run.stdout + run.stderr
    assert "No such file or directory" in run.stdout
    assert len(run.stdout.splitlines()) == 1 and not run.stderr
    assert not run_dir.exists()


def test_no_pickle_is_executed_or_written(monkeypatch, config, small, tmp_path):
    """Neither by our code nor by what it uses, in training, saving, going on, loading and looking, and importing."""

    def refuse(*args, **kwargs):
        raise AssertionError("pickle is used")

    for name in ("load", "loads", "dump", "dumps", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        _stop_after_save(patch, STEPS)
        train.fit(narrow(config), tmp_path, small)
    train.fit(narrow(config), tmp_path, small)
    cnn.predict(cnn.load_best(tmp_path)[0], small.test.images)
    cnn.load_data(config.data)
    # There is one in PyTorch's files, of which the instructions are read.
    assert archives.read_torch(ROOT / "tests" / "files" / "torch_narrow.pt")
    for path in (ROOT / "cnn").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        imported = r"import (cloudpickle|pickle|shelve|marshal|joblib|dill)\b"
        assert not re.search(f"{imported}|allow_pickle=True", text), path


# Numbers that are none


def test_a_loss_that_is_no_number_is_found_to_the_step_and_its_images(config, small, tmp_path):
    """A learning rate at which float32 overflows: the loop takes no notice, the message is exact all the same."""
    steep = dataclasses.replace(narrow(config, epochs=3), optim=cnn.OptimConfig(name="sgd", learning_rate=1e30))
    with pytest.raises(FloatingPointError) as error:
        train.fit(steep, tmp_path, small)
    state, step = cnn.create_state(steep, 500), 0
    order = np.asarray(epoch_order(state.key, 0, 500, 32))
    while True:
        batch = cnn.Batch(small.train.images[order[step]], small.train.labels[order[step]])
        state, metrics = cnn.train_step(state, batch)
        step += 1
        if not np.isfinite(metrics.loss):
            break
    assert f"at step {step}, in epoch 1" in str(error.value)
    assert f"training images {', '.join(map(str, order[step - 1]))};" in str(error.value)


def test_a_loss_that_is_no_number_stops_the_run_though_the_latest_checkpoint_is_damaged(config, small, tmp_path):
    """Then the steps are taken again from the one before, here from within the epoch before."""
    often = narrow(config, checkpoint_steps=5)
    with pytest.raises(Interrupted):
        train.fit(often, tmp_path / "run", small, lambda row: _interrupt())
    flip_a_bit(_data_file(tmp_path / "run" / "checkpoints" / str(STEPS)))
    warnings: list[str] = []
    begin, steps = partial(cnn.create_state, often, 500), partial(cnn.train_steps, batch_size=32)
    run = train.Run(often, tmp_path / "run", _nothing, begin, small, {}, _nothing, warnings.append, _nothing)
    diverged = train.initial_progress()._replace(metrics=cnn.Metrics(np.float32(np.nan), np.int32(0), np.int32(0)))
    state = begin().replace(step=20)
    with checkpoint.open_checkpoints(tmp_path / "run") as checkpoints:
        with pytest.raises(FloatingPointError, match="at step 20, in epoch 2"):
            train._check_finite(run, steps, checkpoints, state, diverged)
    assert len(warnings) == 1 and f"checkpoints/{STEPS} is damaged" in warnings[0]


def test_skipping_leaves_the_parameters_as_they_were_and_counts_nothing(config, small):
    """A pixel cannot be no number, but a label can be no class, which makes the loss one."""
    skips = narrow(config, nan_policy="skip")
    state = cnn.create_state(skips)
    before = jax.tree.map(np.array, state.params)
    bad = cnn.Batch(small.train.images[:32], np.where(np.arange(32) == 3, 99, small.train.labels[:32]))
    state, metrics = cnn.train_step(state, bad)
    jax.tree.map(np.testing.assert_array_equal, state.params, before)
    assert (state.step, metrics.count, metrics.loss_sum) == (1, 0, 0)
    state, metrics = cnn.train_step(state, cnn.Batch(small.train.images[:32], small.train.labels[:32]))
    assert metrics.count == 32 and np.isfinite(metrics.loss)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(before), strict=True))


def test_after_ten_in_a_row_skipping_gives_up(config, small):
    state = cnn.create_state(narrow(config, nan_policy="skip"))
    bad = cnn.Batch(small.train.images[:8], np.full(8, 99))
    counts, losses = [], []
    for _ in range(11):
        state, metrics = cnn.train_step(state, bad)
        counts.append(int(metrics.count))
        losses.append(float(metrics.loss_sum))
    assert counts == [0] * 10 + [8] and losses[:10] == [0] * 10 and np.isnan(losses[10])


# Signals


WORKER = """
import sys
import cnn
from cnn import run
from cnn.runs import fit as train
from tests.helpers import NARROW
splits = cnn.load_data(cnn.DataConfig())
train.load_data = lambda config: cnn.Splits(*(cnn.Split(s.images[:2000], s.labels[:2000]) for s in splits))
run.main(cnn.ExperimentConfig(model=NARROW, train=cnn.TrainConfig(epochs=900, patience=900)))
"""


def _start(run_dir, *options) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, "--run-dir", str(run_dir), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _epoch(line):
    return int(line.split()[1].split("/")[0]) if line.startswith("epoch ") else line


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_says_how_to_go_on_and_has_its_exit_status(tmp_path, number, status):
    process = _start(tmp_path / "run")
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert _epoch(lines[1]) == 1, (lines, process.communicate())
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors.startswith("stopped at step ") and errors.count("\n") == 1
    assert f"the same command with --run-dir {tmp_path / 'run'} goes on from there" in errors
    step = int(errors.split()[3].rstrip(","))
    assert (tmp_path / "run" / "checkpoints" / str(step)).is_dir()
    assert not any(verification.verify(tmp_path / "run").values())
    again = _start(tmp_path / "run")
    lines = [again.stdout.readline() for _ in range(3)]
    again.kill()
    again.communicate()
    assert lines[1].startswith("found the beginning of a run") and _epoch(lines[2]) == step // 63 + 1


@pytest.mark.parametrize("looks", [1, 3, 11])
def test_a_signal_is_noticed_within_an_eighth_of_an_epoch(monkeypatch, config, small, tmp_path, looks):
    looked = count(1)

    @contextmanager
    def catch_signals():
        yield lambda: signal.SIGTERM if next(looked) == looks else 0

    monkeypatch.setattr(signals, "catch_signals", catch_signals)
    # Eight times in an epoch of 16 steps, and once more after it, when it is saved.
    with pytest.raises(Stopped, match=f"stopped at step {2 * (looks - (looks > 8))}, which is saved"):
        train.fit(narrow(config), tmp_path, small)


TWO_SIGNALS = """
import os, signal, sys, time
import jax
from cnn.devices import signals
with signals.catch_signals() as received:
    os.kill(os.getpid(), signal.SIGTERM)
    while not received():
        time.sleep(0.01)
    print("noted", received(), flush=True)
    # One call that goes on for minutes, and does not come back to Python.
    jax.jit(lambda n: jax.lax.fori_loop(0, n, lambda i, x: jax.numpy.sin(x), jax.numpy.ones(9999)))(10**8)[0].item()
print("survived")
"""


def test_a_second_signal_ends_at_once():
    process = subprocess.Popen(
        [sys.executable, "-c", TWO_SIGNALS], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "noted 15\n"
    time.sleep(2)  # until it is in that call
    assert process.poll() is None
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert time.monotonic() - begin < 5
    assert (process.returncode, output, errors) == (143, "", "")


def test_handlers_are_put_back_and_what_is_ignored_stays_so():
    before = [signal.getsignal(number) for number in signals.STOPPING]
    with signals.catch_signals() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not received() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert received() == signal.SIGTERM
    assert [signal.getsignal(number) for number in signals.STOPPING] == before
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    of_the_users = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with signals.catch_signals() as received:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.1)
            assert received() == 0
    finally:
        signal.signal(signal.SIGINT, before[1])
        signal.signal(signal.SIGUSR1, of_the_users)
