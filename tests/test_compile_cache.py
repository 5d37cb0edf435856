"""The directory in which the tests keep what JAX compiles."""

import os
import time
from pathlib import Path

import jax
import pytest

from tests import compile_cache


@pytest.fixture
def programs(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = Path(compile_cache.claim_directory("gw9"))
    assert path.is_relative_to(tmp_path / "fashion-cnn" / "tests" / jax.__version__) and "gw9" in path.parts
    return path


def test_a_claimed_directory_is_not_given_to_another(programs, tmp_path):
    assert not Path(compile_cache.claim_directory("gw9")).is_relative_to(tmp_path)


def test_directories_of_other_versions_and_large_ones_are_removed(monkeypatch, programs, tmp_path):
    other, directory = tmp_path / "fashion-cnn" / "tests" / "0.1.2", programs.parents[1] / "gw8" / "programs"
    for path in (other, directory):
        path.mkdir(parents=True)
    (directory / "entry").write_text("large")
    monkeypatch.setattr(compile_cache, "MAX_BYTES", 4)
    assert compile_cache.claim_directory("gw8") == str(directory)
    assert not list(directory.iterdir()) and not other.exists()


def test_a_worker_reads_what_others_have_compiled_before_its_start_and_since(programs):
    other = Path(compile_cache.claim_directory("gw8"))
    for name, age in (("settled", 60), ("half written", 0)):
        (programs / name).write_text(name)
        os.utime(programs / name, (time.time() - age, time.time() - age))
    compile_cache.link_programs(other)
    for directory in (other, Path(compile_cache.claim_directory("gw7"))):
        assert [path.name for path in directory.iterdir()] == ["settled"]


@pytest.mark.parametrize("home", ["/sys/cache", "file"])
def test_an_unusable_home_gives_a_temporary_directory(monkeypatch, tmp_path, home):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
    assert Path(compile_cache.claim_directory("gw9")).is_dir()


def test_programs_that_are_removed_meanwhile_are_no_error(tmp_path):
    other, mine = (tmp_path / worker / "programs" for worker in ("gw0", "gw1"))
    other.mkdir(parents=True)
    (other / "program").touch()
    os.utime(other / "program", (0, 0))
    compile_cache.link_programs(mine)
    assert not mine.exists()
    mine.mkdir(parents=True)
    compile_cache.link_programs(mine)
    assert (mine / "program").samefile(other / "program")
