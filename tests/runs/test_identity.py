"""Which run a checkpoint, a configuration and a result are of; what was written by hand; runs from before all that."""

import json
import resource
import shutil
from pathlib import Path

import pytest

import cnn
from cnn.__main__ import main
from cnn.cli import exit_status
from cnn.runs import checkpoint, digests, identity, rundir, store
from cnn.runs import verify as verification
from tests.helpers import Interrupted, narrow
from tests.torture import outcome


def _content(run_dir: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock"}


def _edit(path: Path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def _damaged(run_dir: Path) -> list[str]:
    return verification.damaged(verification.verify(run_dir))


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "finished"))


# Another run's


@pytest.fixture(scope="module")
def other(config, small, tmp_path_factory) -> Path:
    """A checkpoint of another run, of the same shapes."""
    run_dir = tmp_path_factory.mktemp("other")
    cnn.fit(narrow(config, epochs=1, seed=1), run_dir, small)
    return run_dir / "checkpoints" / "16"


def test_another_runs_checkpoint_is_refused_and_verify_says_so(interrupted, other, four_epochs, small, capsys):
    shutil.copytree(other, interrupted / "checkpoints" / "64")
    before = _content(interrupted)
    for use in (lambda: cnn.load_best(interrupted), lambda: cnn.fit(four_epochs, interrupted, small)):
        with pytest.raises(cnn.RunDirError, match="checkpoints/64 is of another run than .*config.json"):
            use()
    assert exit_status(lambda: main(["export", str(interrupted), "--format", "safetensors"])) == 2
    assert "is of another run" in capsys.readouterr().err
    assert _damaged(interrupted) == ["checkpoints/64"]
    assert _content(interrupted) == before


def test_another_runs_checkpoint_is_not_removed(interrupted, other, four_epochs, small):
    foreign = Path(shutil.copytree(other, interrupted / "checkpoints" / "16"))
    before = _content(foreign)
    cnn.fit(four_epochs, interrupted, small)
    assert _content(foreign) == before
    assert _damaged(interrupted) == ["checkpoints/16"]


def test_another_runs_checkpoint_of_its_first_epoch_is_not_removed(interrupted, config, four_epochs, small, tmp_path):
    """Its best loss so far is infinite, which the JSON of a checkpoint may hold, and that of others may not."""

    def save(*arguments):
        checkpoint.save(*arguments)
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("cnn.runs.fit.save", save)
        cnn.fit(narrow(config, epochs=1, seed=1, checkpoint_steps=5), tmp_path / "other", small)
    foreign = Path(shutil.copytree(tmp_path / "other/checkpoints/5", interrupted / "checkpoints" / "5"))
    before = _content(foreign)
    assert any(b"Infinity" in content for content in before.values())
    cnn.fit(four_epochs, interrupted, small)
    assert _content(foreign) == before


def test_another_runs_config_is_refused_and_verify_says_so(copied, four_epochs, small):
    # The same options: only the ID tells them apart.
    _edit(copied / "config.json", lambda values: values.update(run=identity.new_id()))
    before = _content(copied)
    for use in (cnn.load_best, cnn.load_result, lambda run_dir: cnn.fit(four_epochs, run_dir, small)):
        with pytest.raises(cnn.RunDirError, match="config.json"):
            use(copied)
    assert {"config.json", "result.json"} < set(_damaged(copied))
    assert _content(copied) == before


def test_only_epochs_that_may_be_raised_leave_a_run_the_same():
    def digest(epochs, schedule):
        return identity.identify({"config": {"train": {"epochs": epochs}, "optim": {"schedule": schedule}}}).digest

    assert digest(2, "constant") == digest(3, "constant")
    assert digest(2, "cosine") != digest(3, "cosine")


# Written by hand


def _accuracy(values):
    values["test_accuracy"] = 0.99


def _seconds(values):
    values["seconds"]["train"] = 0.1


def _learning_rate(values):
    values["config"]["optim"]["learning_rate"] = 0.002


def _version(values):
    values["versions"]["jax"] = "9.9"


def _epochs(values):
    values["config"]["train"]["epochs"] = 9


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("result.json", _accuracy, "result.json"),
        ("result.json", _seconds, "result.json"),
        ("config.json", _learning_rate, "config.json"),
        ("config.json", _version, "config.json"),
        # May be raised by a command, which makes the run unfinished.
        ("config.json", _epochs, "result.json"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_value_written_by_hand_is_found(copied, four_epochs, small, file, change, named):
    _edit(copied / file, change)
    assert named in _damaged(copied)
    with pytest.raises(cnn.RunDirError, match=named):
        cnn.load_result(copied)


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json"])
def test_verify_reports_a_file_that_is_a_link_to_nowhere(interrupted, name):
    (interrupted / name).unlink(missing_ok=True)
    (interrupted / name).symlink_to(name)
    assert [file for file, problem in verification.verify(interrupted).items() if problem] == [name]


def test_verify_compares_the_layer_table_and_the_kernels_with_the_checkpoint(copied, interrupted):
    for name, old, new in (("summary.txt", "conv1", "conv9"), ("kernels.jsonl", "0.", "1.")):
        content = (copied / name).read_text()
        (copied / name).write_text(content.replace(old, new, 1))
        assert _damaged(copied) == [name]
        (copied / name).unlink()
        assert _damaged(copied) == [name]
        (copied / name).write_text(content)
    assert not _damaged(copied)
    # An epoch whose checkpoint was not written, as the process was killed before.
    shutil.copy(copied / "kernels.jsonl", interrupted)
    assert not _damaged(interrupted)


def test_a_result_without_digests_is_refused_unless_the_run_is_older(copied):
    def strip(values):
        for name in identity.SIGNED:
            del values[name]

    _edit(copied / "result.json", strip)
    with pytest.raises(cnn.RunDirError, match="result.json is not what was written"):
        rundir.read_result(copied)


def test_the_command_of_a_run_writes_a_refused_result_again(copied, result, four_epochs, small):
    _edit(copied / "result.json", _accuracy)
    with pytest.raises(cnn.RunDirError, match="remove result.json, and the command that made the run writes it again"):
        cnn.fit(four_epochs, copied, small)
    (copied / "result.json").unlink()
    again = cnn.fit(four_epochs, copied, small).summary
    assert again["test_accuracy"] == result.summary["test_accuracy"] and not _damaged(copied)


def test_a_history_that_differs_from_the_checkpoint_is_refused(copied):
    lines = (copied / "metrics.jsonl").read_text().splitlines(keepends=True)
    for content in ("".join(lines[:2]), "", lines[0].replace('"val_loss": ', '"val_loss": 1') + "".join(lines[1:])):
        (copied / "metrics.jsonl").write_text(content)
        with pytest.raises(cnn.RunDirError, match="metrics.jsonl are not those of the latest checkpoint"):
            cnn.load_result(copied)
        assert _damaged(copied) == ["metrics.jsonl"]


# Runs from before


def _make_older(run_dir: Path) -> None:
    """Makes a run what it was before runs had IDs, and before digests of more than the checkpoints were kept."""

    def strip(names):
        return lambda values: [values.pop(name) for name in names]

    _edit(run_dir / "config.json", strip([identity.ID]))
    for path in (run_dir / "checkpoints").iterdir():
        _edit(path / "_CHECKPOINT_METADATA", lambda values: strip([identity.RUN, "files"])(values["custom_metadata"]))
        (path / store.MANIFEST).write_text(json.dumps(digests.file_digests(path, but=store.MANIFEST)))
    if (run_dir / "result.json").exists():
        _edit(run_dir / "result.json", strip(identity.SIGNED))


def test_an_older_run_loads_and_verify_says_what_is_not_recorded(copied, result, four_epochs, small, capsys):
    _make_older(copied)
    before = _content(copied)
    assert cnn.load_result(copied)[1].history == result.history
    assert cnn.fit(four_epochs, copied, small).summary["test_accuracy"] == result.summary["test_accuracy"]
    capsys.readouterr()
    assert exit_status(lambda: main(["verify", str(copied)])) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {name for name, state in lines.items() if state == verification.NOT_RECORDED} == {
        *("config.json", "result.json", "summary.txt", "kernels.jsonl")
    }
    assert lines["metrics.jsonl"] == lines["checkpoints/64"] == "good"
    assert _content(copied) == before
    # What follows from the checkpoints is compared.
    _edit(copied / "result.json", lambda values: values.update(best_epoch=99))
    with pytest.raises(cnn.RunDirError, match="differs from the latest checkpoint in best_epoch"):
        cnn.load_result(copied)
    assert _damaged(copied) == ["result.json"]


def test_an_older_run_is_resumed_and_recorded_from_then_on(interrupted, expected, four_epochs, small):
    _make_older(interrupted)
    cnn.fit(four_epochs, interrupted, small)
    assert outcome(interrupted)["result"] == expected["result"]
    assert set(verification.verify(interrupted).values()) == {""}
    _edit(interrupted / "config.json", _learning_rate)
    with pytest.raises(cnn.RunDirError, match="is of another run"):
        cnn.load_best(interrupted)


def test_an_older_checkpoint_is_not_taken_for_a_newer_runs(copied, interrupted):
    _make_older(copied)
    shutil.copytree(copied / "checkpoints" / "64", interrupted / "checkpoints" / "64")
    with pytest.raises(cnn.RunDirError, match="is of another run"):
        cnn.load_best(interrupted)


# Failures of the machine


def _raising(error):
    def load(*arguments):
        raise error

    return load


@pytest.mark.parametrize(
    ("where", "error", "problem"),
    [
        ("orbax", MemoryError(), "not enough memory"),
        ("orbax", ValueError("RESOURCE_EXHAUSTED: Too many open files\n  at a.cc"), "RESOURCE_EXHAUSTED: Too many"),
        ("files", PermissionError(13, "Permission denied"), "Permission denied"),
    ],
    ids=["memory", "orbax", "permission"],
)
def test_a_failure_of_the_machine_moves_nothing(monkeypatch, interrupted, four_epochs, where, error, problem):
    before = _content(interrupted)
    like = cnn.create_state(four_epochs, 500)
    with store.open_checkpoints(interrupted) as checkpoints:
        if where == "orbax":
            monkeypatch.setattr(type(checkpoints.orbax), "load", _raising(error))
        else:
            monkeypatch.setattr(digests, "_file_digest", _raising(error))
        with pytest.raises(cnn.RunDirError, match=f"cannot read .*checkpoints/48: {problem}"):
            checkpoint.load_latest(checkpoints, like)
    assert _content(interrupted) == before


@pytest.mark.parametrize("free", [0, 6])
def test_too_many_open_files_are_reported_and_move_nothing(interrupted, four_epochs, free):
    before = _content(interrupted)
    like = cnn.create_state(four_epochs, 500)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with store.open_checkpoints(interrupted) as checkpoints:
        used = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
        number = [number for number in range(limits[0]) if number not in used][free]
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, limits[1]))
        try:
            with pytest.raises(cnn.RunDirError, match="cannot read .*checkpoints/48: Too many open files"):
                checkpoint.load_latest(checkpoints, like)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert _content(interrupted) == before


def test_a_checkpoint_that_orbax_cannot_list_is_named(interrupted, four_epochs, small):
    """Orbax reads the metadata of every checkpoint when it opens them, and has a traceback for some of them."""
    _edit(interrupted / "checkpoints/32/_CHECKPOINT_METADATA", lambda values: values.update(performance_metrics="x"))
    before = _content(interrupted)
    for use in (cnn.load_best, lambda run_dir: cnn.fit(four_epochs, run_dir, small)):
        with pytest.raises(cnn.DamagedError, match="checkpoints/32 is damaged"):
            use(interrupted)
    problems = verification.verify(interrupted)
    assert [name for name, problem in problems.items() if "checkpoints/32 is damaged" in problem] == ["checkpoints"]
    assert _content(interrupted) == before


def test_what_callbacks_do_to_their_rows_changes_nothing(interrupted, expected, four_epochs, small):
    def change(row, state=None):
        row.clear()
        row["val_loss"] = float("nan")

    cnn.fit(four_epochs, interrupted, small, report=change, track=change)
    assert outcome(interrupted) == expected
