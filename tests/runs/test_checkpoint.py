"""Checkpoints: loading, every kind of damage, another process that saves meanwhile, a full disk, no pickle."""

import dataclasses
import gc
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import cnn
from cnn.__main__ import main
from cnn.cli import exit_status
from cnn.exchange import readers
from cnn.runs import checkpoint
from cnn.runs import verify as verification
from tests.helpers import (
    NARROW,
    ROOT,
    Interrupted,
    assert_same,
    flip_a_bit,
    interrupt_after,
    largest_file,
    narrow,
    truncate,
)
from tests.torture import outcome

STEPS = 16
"""Of an epoch: 500 images in batches of 32."""

BEST = f"checkpoints/{3 * STEPS}"
"""Of the interrupted run: its best and latest; the one before is also there."""


# Loading


def test_load_best_returns_the_same_state_and_predictions(finished, result, small):
    state, _ = cnn.load_best(finished)
    assert_same(state.params, result.state.params)
    assert_same(cnn.predict(state, small.test.images), cnn.predict(result.state, small.test.images))


def test_checkpoints_load_from_a_directory_of_any_name(finished, result, tmp_path):
    moved = shutil.copytree(finished, tmp_path / "c# 100%25? 모델")
    assert_same(cnn.load_best(moved)[0].params, result.state.params)


def test_checkpoints_load_with_the_saved_seed(finished, config):
    like = cnn.create_state(narrow(config, seed=9))
    with checkpoint.open_checkpoints(finished) as checkpoints:
        latest = checkpoint.load_latest(checkpoints, like)
    assert latest
    state, progress = latest
    assert state.step == 4 * STEPS and len(progress["history"]) == 4
    assert jax.random.key_data(state.key).tolist() == jax.random.key_data(jax.random.key(0)).tolist()


@pytest.mark.parametrize("content", [None, "{", '"text"', '{"config": {"optim": {"batch_size": 0}}}'])
def test_load_best_without_a_run_names_the_directory(tmp_path, content):
    if content:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(cnn.RunDirError, match=str(tmp_path)):
        cnn.load_best(tmp_path)


def test_load_best_without_a_checkpoint_is_refused(finished, tmp_path):
    (tmp_path / "config.json").write_text((finished / "config.json").read_text())
    with pytest.raises(cnn.RunDirError, match="has no checkpoint"):
        cnn.load_best(tmp_path)


def test_another_model_optimizer_or_dtype_is_refused_with_the_differing_leaves(monkeypatch, interrupted, config):
    # A short name, as a message is cut.
    monkeypatch.chdir(interrupted.parent)
    run_dir = Path(interrupted.name)

    def message(**fields):
        like = cnn.create_state(dataclasses.replace(narrow(config), **fields))
        with checkpoint.open_checkpoints(run_dir) as checkpoints, pytest.raises(cnn.RunDirError) as error:
            checkpoint.load_latest(checkpoints, like)
        return str(error.value)

    wider = message(model=dataclasses.replace(NARROW, conv2_features=6))
    assert "params/conv2/kernel float32 [3, 3, 4, 4] -> float32 [3, 3, 4, 6]" in wider
    assert "conv1" not in wider and "\n" not in wider
    assert "opt_state/0/mu/conv1/bias float32 [4] -> missing" in message(optim=cnn.OptimConfig(name="sgd"))
    like = cnn.create_state(narrow(config))
    halves = like.replace(params=jax.tree.map(lambda leaf: leaf.astype("bfloat16"), like.params))
    with (
        checkpoint.open_checkpoints(interrupted) as checkpoints,
        pytest.raises(cnn.RunDirError, match="float32.*-> bfloat16"),
    ):
        checkpoint.load_latest(checkpoints, halves)


@pytest.mark.parametrize("moment", ["create_state", "_read_description"])
def test_load_best_while_another_process_saves_reports_no_damage(monkeypatch, interrupted, four_epochs, small, moment):
    """After it has opened the directory, and between two of its reads."""
    original = getattr(checkpoint, moment)

    def meanwhile(*arguments):
        monkeypatch.setattr(checkpoint, moment, original)
        cnn.fit(four_epochs, interrupted, small)
        return original(*arguments)

    monkeypatch.setattr(checkpoint, moment, meanwhile)
    assert cnn.load_best(interrupted)[0].step in (3 * STEPS, 4 * STEPS)


# Damage


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink])
def test_load_best_names_a_damaged_checkpoint(interrupted, damage):
    shutil.rmtree(interrupted / "checkpoints" / str(2 * STEPS))
    damage(largest_file(interrupted / BEST))
    with pytest.raises(cnn.DamagedError, match=f"{interrupted / BEST} is damaged"):
        cnn.load_best(interrupted)
    gc.collect()  # No read has been left behind, unfinished, which would be a warning.


def _every_kind_of_damage(directory):
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        for damage in (flip_a_bit, truncate, Path.unlink):
            yield path.relative_to(directory), damage


def test_a_damaged_latest_checkpoint_loads_as_saved_or_the_one_before_does(interrupted, four_epochs, tmp_path):
    """Each of its files in turn, by each kind of damage."""
    like = cnn.create_state(four_epochs, 500)

    def load(run_dir):
        warnings = []
        with checkpoint.open_checkpoints(run_dir) as checkpoints:
            latest = checkpoint.load_latest(checkpoints, like, warnings.append)
        assert latest
        return *latest, warnings

    expected = {3 * STEPS: load(interrupted)}
    before = Path(shutil.copytree(interrupted, tmp_path / "before"))
    shutil.rmtree(before / BEST)
    expected[2 * STEPS] = load(before)

    fell_back = 0
    for file, damage in _every_kind_of_damage(interrupted / BEST):
        run_dir = Path(shutil.copytree(interrupted, tmp_path / "damaged"))
        damage(run_dir / BEST / file)
        state, progress, warnings = load(run_dir)
        expected_state, expected_progress, _ = expected[int(state.step)]
        assert_same((state.params, state.opt_state), (expected_state.params, expected_state.opt_state))
        assert progress == expected_progress
        if state.step == 2 * STEPS:
            fell_back += 1
            # Without its manifest it is not a checkpoint, and only metrics.jsonl knows of it.
            problem = "is missing" if file.name == checkpoint.MANIFEST and damage == Path.unlink else "is damaged"
            assert len(warnings) == 1 and problem in warnings[0]
        shutil.rmtree(run_dir)
    assert fell_back >= 8  # files, of which a bit, a half or all went


def test_a_run_resumes_bitwise_from_the_checkpoint_before_a_damaged_one(interrupted, expected, four_epochs, small):
    warnings = []
    flip_a_bit(largest_file(interrupted / BEST))
    cnn.fit(four_epochs, interrupted, small, warn=warnings.append)
    assert len(warnings) == 1 and "is not what was saved" in warnings[0] and "the one before it is used" in warnings[0]
    assert (interrupted / "damaged" / str(3 * STEPS)).is_dir()
    shutil.rmtree(interrupted / "damaged")
    assert outcome(interrupted) == expected


def _truncate_all(checkpoints):
    for directory in checkpoints.iterdir():
        truncate(largest_file(directory))


def _unlink_all(name):
    def unlink(checkpoints):
        for directory in checkpoints.iterdir():
            (directory / name).unlink()

    return unlink


@pytest.mark.parametrize(
    "damage",
    [_truncate_all, _unlink_all("commit_success.txt"), _unlink_all(checkpoint.MANIFEST), shutil.rmtree],
    ids=["truncated", "uncommitted", "no_manifest", "removed"],
)
def test_nothing_is_trained_over_checkpoints_that_are_all_damaged(interrupted, four_epochs, small, damage):
    damage(interrupted / "checkpoints")
    before = (interrupted / "metrics.jsonl").read_text()
    with pytest.raises(cnn.DamagedError, match="all checkpoints of .* are damaged, and nothing is trained over"):
        cnn.fit(four_epochs, interrupted, small, warn=lambda line: None)
    assert (interrupted / "metrics.jsonl").read_text() == before


def test_no_other_checkpoint_replaces_a_damaged_or_missing_best(interrupted):
    truncate(largest_file(interrupted / BEST))
    with pytest.raises(cnn.DamagedError, match=f"{BEST} is damaged"):
        cnn.load_best(interrupted)
    shutil.rmtree(interrupted / BEST)
    # Step 32 was the best until then, but is not the run's.
    with pytest.raises(cnn.DamagedError, match="the latest checkpoint of .* is missing"):
        cnn.load_best(interrupted)
    shutil.rmtree(interrupted / "checkpoints" / str(2 * STEPS))
    with pytest.raises(cnn.RunDirError, match="has no checkpoint"):
        cnn.load_best(interrupted)


def _unlink(name):
    return lambda directory: (directory / name).unlink()


@pytest.mark.parametrize(
    "lose",
    [_unlink("commit_success.txt"), _unlink(checkpoint.MANIFEST), shutil.rmtree],
    ids=["uncommitted", "no_manifest", "removed"],
)
def test_a_missing_latest_checkpoint_is_reported_and_the_run_resumes_bitwise(
    interrupted, expected, four_epochs, small, lose
):
    warnings = []
    lose(interrupted / BEST)
    assert any(verification.verify(interrupted).values())
    with pytest.raises(cnn.DamagedError):
        cnn.load_best(interrupted)
    cnn.fit(four_epochs, interrupted, small, warn=warnings.append)
    assert len(warnings) == 1
    shutil.rmtree(interrupted / "damaged", ignore_errors=True)
    assert outcome(interrupted) == expected
    assert not any(verification.verify(interrupted).values())


def test_stale_checkpoints_are_removed_on_resume(monkeypatch, interrupted, expected, four_epochs, small):
    def remove(checkpoints, old):
        if old:
            raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(checkpoint, "remove", remove)
        cnn.fit(four_epochs, interrupted, small)
    # The last epoch is saved, so that nothing more will be.
    assert len(list((interrupted / "checkpoints").iterdir())) == 3
    cnn.fit(four_epochs, interrupted, small)
    assert outcome(interrupted) == expected


# Verification


def test_verify_reports_what_is_intact_and_what_is_damaged(interrupted, capsys):
    names = ["config.json", "metrics.jsonl", "kernels.jsonl", "summary.txt", *(f"checkpoints/{2 * STEPS}", BEST)]
    assert verification.verify(interrupted) == dict.fromkeys(names, "")
    flip_a_bit(largest_file(interrupted / "checkpoints" / str(2 * STEPS)))
    (interrupted / "metrics.jsonl").write_text("{}\n")
    problems = verification.verify(interrupted)
    assert [name for name, problem in problems.items() if problem] == ["metrics.jsonl", f"checkpoints/{2 * STEPS}"]
    capsys.readouterr()
    assert exit_status(lambda: main(["verify", str(interrupted)])) == 1
    printed = capsys.readouterr()
    assert [BEST, "good"] in [line.split() for line in printed.out.splitlines()]
    assert printed.err == f"error: damaged in {interrupted}: metrics.jsonl, checkpoints/{2 * STEPS}\n"


def test_verify_compares_the_epochs_with_the_latest_checkpoint(interrupted):
    lines = (interrupted / "metrics.jsonl").read_text().splitlines(keepends=True)
    (interrupted / "metrics.jsonl").write_text("".join(lines[:2]))  # as if killed before the last one
    assert not any(verification.verify(interrupted).values())
    (interrupted / "metrics.jsonl").write_text(lines[0].replace('"train_loss": ', '"train_loss": 1') + lines[1])
    assert [name for name, problem in verification.verify(interrupted).items() if problem] == ["metrics.jsonl"]


# The disk, and pickle


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    """A real process that cannot write another byte to any file after its first epoch."""
    # A warning that JAX could not write its own cache would be one line more.
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.workers.full_disk", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert run.stdout.startswith("cannot write the checkpoint of step 14"), run.stdout + run.stderr
    assert "the same command resumes from step 7" in run.stdout
    assert len(run.stdout.splitlines()) == 1 and not run.stderr
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["7"]
    assert cnn.load_best(tmp_path)[0].step == 7
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_no_pickle_is_executed_or_written(monkeypatch, config, small, tmp_path):
    """Neither by our code nor by what it calls: in training, saving, resuming, loading, predicting and importing."""

    def refuse(*args, **kwargs):
        raise AssertionError("pickle is used")

    for name in ("load", "loads", "dump", "dumps", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    with pytest.raises(Interrupted):
        cnn.fit(narrow(config), tmp_path, small, interrupt_after(1))
    cnn.fit(narrow(config), tmp_path, small)
    cnn.predict(cnn.load_best(tmp_path)[0], small.test.images)
    cnn.load_data(config.data)
    # There is one in PyTorch's files, of which the instructions are read.
    assert readers.read_torch(ROOT / "tests" / "files" / "torch_narrow.pt")
    for path in (ROOT / "cnn").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        imported = r"import (cloudpickle|pickle|shelve|marshal|joblib|dill)\b"
        assert not re.search(f"{imported}|allow_pickle=True", text), path
