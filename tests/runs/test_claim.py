"""A run directory belongs to one run: locks, links, other content, other configurations, removal during a run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cnn
from cnn.run import default_run_dir
from cnn.runs import checkpoint, rundir
from tests.helpers import ROOT, Interrupted, interrupt_after, narrow


def test_a_second_process_is_refused_with_the_name_of_the_first(config, small, tmp_path):
    messages = []

    def second(row):
        with pytest.raises(cnn.RunDirError) as error:
            cnn.fit(narrow(config), tmp_path, small)
        messages.append(str(error.value))

    assert len(cnn.fit(narrow(config), tmp_path, small, second).history) == len(messages) == 2
    assert all(f"in use by process {os.getpid()} on {os.uname().nodename}" in message for message in messages)


def test_the_lock_of_a_dead_process_is_void(interrupted, four_epochs, small):
    (interrupted / ".lock").write_text("process 1 on elsewhere, long dead")
    assert len(cnn.fit(four_epochs, interrupted, small).history) == 4


def test_a_run_on_other_images_is_refused(config, small, tmp_path):
    with pytest.raises(Interrupted):
        cnn.fit(narrow(config), tmp_path, small, interrupt_after(1))
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(cnn.RunDirError, match="a run on other images"):
        cnn.fit(narrow(config), tmp_path, small._replace(train=small.val))
    assert (tmp_path / "config.json").read_text() == before
    cnn.fit(narrow(config), tmp_path, small)
    with pytest.raises(cnn.RunDirError, match="a run on other images"):
        cnn.fit(narrow(config), tmp_path, small._replace(train=small.val))


def test_a_run_of_another_configuration_is_refused_with_the_differing_fields(finished, config, small):
    with pytest.raises(
        cnn.RunDirError, match=r"train.seed 0 -> 1; .*train.patience 4 -> 2|patience 4 -> 2; .*seed 0 -> 1"
    ):
        cnn.fit(narrow(config, epochs=4, patience=2, seed=1), finished, small)


def test_a_directory_with_other_content_is_refused_and_left_as_it_is(config, small, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(cnn.RunDirError, match="something else .thesis.txt."):
        cnn.fit(config, tmp_path, small)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_inside_of_a_run_is_refused_and_leaves_no_directory(finished, config, small, tmp_path):
    run_dir, link = Path(shutil.copytree(finished, tmp_path / "run")), tmp_path / "link"
    link.symlink_to(run_dir / "figures")
    (run_dir / "figures").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for inner in (run_dir / "inner", run_dir / "checkpoints" / "a" / "b", link / "inner"):
        with pytest.raises(cnn.RunDirError, match=f"{inner} is inside of the run {run_dir}; name another"):
            cnn.fit(config, inner, small)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_is_refused_leaves_none_of_the_directories_that_it_made(config, small, tmp_path, monkeypatch):
    def refuse(config, splits):
        raise cnn.DataError("no images")

    monkeypatch.setattr("cnn.runs.fit.load", refuse)
    with pytest.raises(cnn.DataError, match="no images"):
        cnn.fit(config, tmp_path / "a" / "b", small)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_another_program_is_refused_and_kept(config, small, tmp_path):
    (tmp_path / ".lock").write_text("another program's")
    with pytest.raises(cnn.RunDirError, match="lock is not what a run writes; name another directory"):
        cnn.fit(config, tmp_path, small)
    assert (tmp_path / ".lock").read_text() == "another program's"


def test_a_run_keeps_the_files_that_others_have_put_into_its_directory(interrupted, four_epochs, small):
    names = ".config.json.swp", "notes.txt", "checkpoints/notes.txt", "checkpoints/mine/a.txt", "checkpoints/2024/a.txt"
    for name in (*names, "figures/model.txt"):
        (interrupted / name).parent.mkdir(parents=True, exist_ok=True)
        (interrupted / name).write_text("mine")
    assert len(cnn.fit(four_epochs, interrupted, small).history) == 4
    assert all((interrupted / name).read_text() == "mine" for name in names)


def test_a_run_directory_that_cannot_be_made_is_refused(config, small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(cnn.RunDirError, match="Not a directory"):
        cnn.fit(config, tmp_path / "file" / "run", small)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="/sys, where nobody can write, is Linux' own")
def test_a_read_only_run_directory_is_refused(config, small):
    with pytest.raises(cnn.RunDirError, match="not permitted|denied|Read-only"):
        cnn.fit(config, "/sys/run", small)
    with pytest.raises(cnn.RunDirError, match="something else|not permitted|denied|Read-only"):
        cnn.fit(config, "/sys/kernel", small)


def test_the_name_of_a_run_directory_does_not_lead_out_of_its_root(tmp_path):
    (tmp_path / "runs").mkdir()
    assert default_run_dir("fashion_cnn", tmp_path / "runs").is_relative_to(tmp_path / "runs" / "fashion_cnn")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path)
    with pytest.raises(cnn.RunDirError, match="leads out of"):
        default_run_dir("linked", tmp_path / "runs")
    for name in ("..", "a/b", "/etc", "a\nb", ""):
        with pytest.raises(cnn.ConfigError, match="letters, digits"):
            cnn.ExperimentConfig(name=name)


@pytest.mark.parametrize("name", ["checkpoints", "figures", "checkpoints/32", "damaged"])
def test_a_link_in_a_run_directory_is_not_followed(interrupted, four_epochs, small, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / checkpoint.MANIFEST).write_text("{}")
    shutil.rmtree(interrupted / name, ignore_errors=True)
    (interrupted / name).symlink_to(outside)
    with pytest.raises(cnn.RunDirError, match=f"{name} is a symbolic link"):
        cnn.fit(four_epochs, interrupted, small)
    assert [path.name for path in outside.iterdir()] == [checkpoint.MANIFEST]
    (interrupted / name).unlink()
    (interrupted / "damaged").write_text("a file")
    with pytest.raises(cnn.RunDirError, match="damaged is not a directory"):
        cnn.fit(four_epochs, interrupted, small)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", "[]", "is not what a run writes"),
        ("result.json", '{"best_epoch": "1"}', "best_epoch is '1', but a run writes a int"),
        ("result.json", "{", "result.json: not JSON"),
        ("config.json", "{}", "is not what a run writes"),
        ("metrics.jsonl", '{"epoch": 1}\n', "train_loss is 'missing'"),
        ("metrics.jsonl", "\xff", "metrics.jsonl"),
    ],
)
def test_the_files_of_a_run_directory_are_checked_when_read(interrupted, name, content, message):
    (interrupted / name).write_text(content)
    read = {
        "result.json": rundir.read_result,
        "config.json": rundir.read_description,
        "metrics.jsonl": rundir.read_history,
    }[name]
    with pytest.raises(cnn.RunDirError, match=message):
        read(interrupted)


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("moment", ["report", "track"])
def test_a_run_writes_nothing_into_a_directory_that_replaced_its_own(config, small, tmp_path, epoch, moment):
    run_dir = tmp_path / "run"

    def replace(row, state=None):
        if row["epoch"] == epoch:
            shutil.rmtree(run_dir)
            run_dir.mkdir()
            (run_dir / ".lock").touch()

    with pytest.raises(
        (cnn.RunDirError, cnn.DamagedError), match="no longer belongs to this run|has no finished epoch"
    ):
        cnn.fit(narrow(config), run_dir, small, **{moment: replace})
    assert not [path for path in run_dir.iterdir() if path.name not in (".lock", "checkpoints")]


def test_removing_the_directory_of_a_running_process_is_one_line(tmp_path):
    run_dir = tmp_path / "run"
    run = subprocess.run(
        [sys.executable, "-m", "tests.workers.removed_directory", str(run_dir)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert run.stdout.startswith("cannot write the checkpoint of step 14"), run.stdout + run.stderr
    assert "No such file or directory" in run.stdout
    assert len(run.stdout.splitlines()) == 1 and not run.stderr
    assert not run_dir.exists()
