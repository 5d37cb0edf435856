"""Commands write over what they have written before, and over nothing else; they say so before they compute."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import cnn
from cnn.__main__ import main
from cnn.figures import plots
from cnn.report.page import render_page
from cnn.run import run
from cnn.runs import outputs, rundir

FILES = {
    "export": ["export", "{run}", "--format", "safetensors"],
    "report": ["report", "{run}"],
    "comparison": ["report", "{run}", "{other}"],
}
DIRECTORIES = {
    "look": ["look", "{run}"],
    "look at a layer": ["look", "{run}", "--layer", "conv1"],
    "evaluate": ["evaluate", "{run}"],
    "unknown": ["evaluate", "{run}", "--unknown"],
    "evaluate robustness": ["evaluate", "{run}", "--robust"],
    "web": ["export", "{run}", "--format", "web"],
}


@pytest.fixture(scope="module")
def home(finished, tmp_path_factory) -> Path:
    """A directory with three runs and files of the user."""
    tmp_path = tmp_path_factory.mktemp("home")
    for name in ("run", "other", "third"):
        shutil.copytree(finished, tmp_path / name)
        (tmp_path / name / "report.html").write_text(render_page("a run's", "", {}))
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to("mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pictures").mkdir()
    for name in ("model.png", "look_conv1_maps.png", "embedding.png", "robustness.png", "unknown.json"):
        (tmp_path / "pictures" / name).write_text("mine")
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_is_computed(home, monkeypatch) -> None:
    """Starts each test in that directory, and fails it if a command computes."""
    monkeypatch.chdir(home)
    for name in ("exchange.exporting.load_best", "report.report.load_result", "look.layer_figures.load_best"):
        monkeypatch.setattr(f"cnn.{name}", lambda *arguments: pytest.fail("computes"))
    computing = "look.evaluation.evaluate_run", "trust.robustness.evaluate_run", "trust.unknown.load_best"
    for name in (*computing, "runs.result.load_result"):
        monkeypatch.setattr(f"cnn.{name}", lambda *arguments: pytest.fail("computes"))


def _content(home: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in home.rglob("*")}


def _refused(home: Path, command: list[str], output: str) -> None:
    before = _content(home)
    with pytest.raises(cnn.ConfigError, match="^--output is .*; name a"):
        main([*(part.format(run=home / "run", other=home / "other") for part in command), "--output", output])
    assert _content(home) == before


@pytest.mark.parametrize("command", FILES.values(), ids=FILES)
@pytest.mark.parametrize(
    "output",
    [
        *("mine", "link", "pipe", "pictures", "..", "", "new/file", "/dev/null", 256 * "x"),
        *("run/config.json", "run/.lock", "run/transfer.txt", "run/checkpoints/new", "run/figures/new", "run/damaged"),
        *("other/report.html", "third/report.html", "third/new"),
    ],
)
def test_a_file_is_never_written_over_what_its_command_has_not_written(home, command, output):
    _refused(home, command, output)


@pytest.mark.parametrize("command", DIRECTORIES.values(), ids=DIRECTORIES)
@pytest.mark.parametrize(
    "output",
    [
        *("mine", "pipe", "pictures", "new/directory", "/dev/null", 256 * "x"),
        *("run", "run/config.json", "run/checkpoints", "run/checkpoints/new", "third", "third/figures", "third/new"),
    ],
)
def test_figures_are_never_written_over_what_their_command_has_not_drawn(home, command, output):
    _refused(home, command, output)


def test_a_link_to_a_run_leads_into_the_run(home):
    (home / "alias").symlink_to("run")
    _refused(home, FILES["export"], str(home / "alias" / "config.json"))
    _refused(home, DIRECTORIES["look"], str(home / "alias" / "checkpoints"))


def test_a_page_and_figures_are_written_again(tmp_path):
    page, figure = tmp_path / "page.html", tmp_path / "model.png"
    page.write_text(render_page("a run", "", {}))
    figure.write_bytes(plots.png(plots.units(np.ones(2), "Units")))
    assert outputs.check_file(page, "page", []) == page
    assert outputs.check_directory(tmp_path, "figure", [], ["*.png"]) == tmp_path
    with pytest.raises(cnn.ConfigError, match="which this command has not written"):
        outputs.check_file(page, "onnx", [])


def test_new_files_are_welcome_anywhere_else(home):
    (home / "run" / "notes").mkdir()
    for name in ("new", "run/new", "run/notes/new", "run/report.html", "pictures/new"):
        assert outputs.check_file(Path(name), "page", [home / "run"])
    for name in ("new", "run/new", "run/figures", "."):
        assert outputs.check_directory(Path(name), "figure", [home / "run"], ["*.png"])


def test_a_run_is_known_by_its_lock_or_by_its_history(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    assert outputs.is_run(copy) and outputs.run_of(copy / "a" / "b") == copy
    (copy / ".lock").unlink()
    (copy / "config.json").unlink()
    assert outputs.is_run(copy) and outputs.run_of(tmp_path) is None
    # As the checkpoints of another program have.
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".lock").write_text("another program's")
    assert not outputs.is_run(tmp_path)


def _draw(run_dir, *_):
    (run_dir / rundir.FIGURES).mkdir()


def test_a_page_that_was_being_written_at_a_kill_is_written_by_the_same_command(
    finished, four_epochs, small, tmp_path, monkeypatch
):
    written = []

    def write_report(run_dir, splits):
        written.append((run_dir / "report.html").exists())
        raise KeyboardInterrupt

    monkeypatch.setattr("cnn.look.run_figures.draw_figures", _draw)
    monkeypatch.setattr("cnn.report.report.write_report", write_report)
    run_dir = Path(shutil.copytree(finished, tmp_path / "run"))
    (run_dir / rundir.REPORT).write_text("of fewer epochs")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(four_epochs, run_dir, small)
    assert written == [False, False]
    (run_dir / rundir.REPORT).write_text("complete")
    run(four_epochs, run_dir, small)


def test_figures_that_were_removed_are_drawn_again_by_the_same_command(
    finished, four_epochs, small, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr("cnn.look.run_figures.draw_figures", lambda *arguments: drawn.append(_draw(*arguments)))
    monkeypatch.setattr("cnn.run.write_page", lambda run_dir, splits: (run_dir / rundir.REPORT).write_text("page"))
    run_dir = Path(shutil.copytree(finished, tmp_path / "run"))
    for expected in (1, 1):
        run(four_epochs, run_dir, small)
        assert len(drawn) == expected
    (run_dir / rundir.FIGURES).rmdir()
    run(four_epochs, run_dir, small)
    assert len(drawn) == 2 and (run_dir / rundir.FIGURES).is_dir()


def test_the_root_of_the_file_system_is_no_directory_for_figures():
    with pytest.raises(cnn.ConfigError, match="'/', which is the root of the file system; name a directory"):
        outputs.check_directory(Path("/"), "figure", [], ["*.png"])
