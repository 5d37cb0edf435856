"""Writing a file: whole or not at all, and nothing is left of processes that were killed."""

import fcntl
import os

import pytest

import cnn
from cnn.runs import rundir
from cnn.runs.files import replacing


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    (tmp_path / "page.html").write_text("old")
    with pytest.raises(OSError, match="no space"), replacing(tmp_path / "page.html") as temporary:
        temporary.write_text("half a page")
        raise OSError("no space left on device")
    assert os.listdir(tmp_path) == ["page.html"] and (tmp_path / "page.html").read_text() == "old"


def test_a_temporary_file_is_removed_if_its_process_is_dead_and_only_then(tmp_path):
    names = ".page.html.1", ".page.html.2", ".page.html.swp", ".other.html.1"
    for name in names:
        (tmp_path / name).touch()
    with open(tmp_path / names[1], "rb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        rundir.write_text(tmp_path / "page.html", "new")
    assert sorted(os.listdir(tmp_path)) == sorted((*names[1:], "page.html"))


def test_the_longest_name_that_the_system_allows_can_be_written(tmp_path):
    path = tmp_path / ("é" * 127 + "x")
    for content in (b"old", b"new"):
        rundir.write_bytes(path, content)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"new"]


def test_a_pipe_or_directory_in_place_of_a_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "directory"):
        with pytest.raises(cnn.RunDirError, match=f"cannot write .*{name}: not a regular file"):
            rundir.write_text(tmp_path / name, "new")
    assert sorted(os.listdir(tmp_path)) == ["directory", "pipe"]
    assert (tmp_path / "pipe").is_fifo()
