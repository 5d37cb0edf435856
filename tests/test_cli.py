"""Messages that depend on the terminal and on how the package was installed; directories that the program names."""

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

import cnn
from cnn import cli, errors, run
from cnn.look.tracking import tracked
from tests.helpers import ROOT, narrow


def test_a_message_about_an_option_has_no_colours_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    def look(run_dir: Path, /) -> None: ...

    with pytest.raises(cnn.UserError) as error:
        cli.parse_options(look, "python -m cnn look", [])
    assert str(error.value) == "Missing from python -m cnn look: PATH run_dir (required); --help lists what is allowed"


# Extras


def test_a_hint_to_install_an_extra_fits_the_installation(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert errors.install_command("exchange") == "pip install -c constraints.txt -e '.[exchange]'"
    monkeypatch.chdir(tmp_path)
    assert errors.install_command("exchange") == f"pip install -c {ROOT}/constraints.txt -e '{ROOT}[exchange]'"
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "cnn" / "errors.py"))
    assert errors.install_command("exchange") == "pip install 'fashion-cnn[exchange]'"


def test_every_hint_about_an_extra_is_that_of_the_installation(monkeypatch, config, tmp_path):
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "cnn" / "errors.py"))
    with pytest.raises(cnn.UserError, match=r"no_such_package is not installed; run pip install 'fashion-cnn\[exch"):
        errors.import_extra("no_such_package")
    with pytest.raises(cnn.ConfigError, match=r"sees no such device.*: pip install 'fashion-cnn\[cuda\]'"):
        cnn.make_mesh(config.mesh, "gpu")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    logged = cnn.ExperimentConfig(log=cnn.LogConfig(tracker="mlflow"))
    refused = pytest.raises(cnn.ConfigError, match=r"leave the option out, or run pip install 'fashion-cnn\[mlflow\]'$")
    with refused, tracked(logged, tmp_path):
        pass


# Directories that the program names


class _Frozen(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def one_second(monkeypatch, tmp_path):
    """An empty directory to work in, and a clock that stands still."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "datetime", _Frozen)
    return Path("runs/fashion_cnn")


def test_runs_of_the_same_second_have_directories_of_their_own(one_second):
    with ThreadPoolExecutor(8) as threads:
        paths = list(threads.map(run.default_run_dir, ["fashion_cnn"] * 8))
    time = "2026-01-02T03-04-05Z"
    assert {path.name for path in paths} == {time, *(f"{time}-{number}" for number in range(2, 9))}
    assert all(path.parent == one_second and path.is_dir() for path in paths)


def _main(monkeypatch, config, splits, *options):
    monkeypatch.setattr(sys, "argv", ["experiment", "--log.no_figures", *options])
    with pytest.raises(SystemExit) as stop:
        run.main(config, splits)
    return stop.value.code


def test_two_runs_of_the_same_second_both_train(one_second, monkeypatch, config, small):
    short = narrow(config, epochs=1)
    assert [_main(monkeypatch, short, small) for _ in range(2)] == [0, 0]
    assert {path.parent.name for path in one_second.glob("*/result.json")} == {
        *("2026-01-02T03-04-05Z", "2026-01-02T03-04-05Z-2")
    }


def test_a_refused_run_leaves_no_directory(one_second, monkeypatch, config, small, capsys):
    assert _main(monkeypatch, narrow(config), small, "--optim.batch_size", "501") == 2
    assert "--optim.batch_size is 501" in capsys.readouterr().err
    assert list(one_second.iterdir()) == []
    # Also if it was refused under its lock, before anything else was written.
    with run.named_or_new(None, "fashion_cnn") as path:
        (path / ".lock").write_text("process 1")
    assert list(one_second.iterdir()) == []


def test_a_named_directory_is_neither_made_nor_removed(tmp_path):
    with run.named_or_new(tmp_path / "run", "fashion_cnn") as path:
        assert path == tmp_path / "run" and not path.exists()
        path.mkdir()
    assert path.is_dir()


def test_a_directory_that_cannot_be_made_is_refused(one_second):
    Path("runs").write_text("")
    with pytest.raises(cnn.RunDirError, match="cannot make a directory in runs/fashion_cnn: Not a directory; name one"):
        run.default_run_dir("fashion_cnn")
