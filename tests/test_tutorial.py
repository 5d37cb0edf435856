"""The notebooks of the tutorial: their cells run in order, and each notebook has the cells of its source."""

import os
import re
import subprocess
import sys

import jupytext
import nbformat
import pytest

import cnn
from tests.helpers import ROOT

TUTORIAL = ROOT / "docs" / "tutorial"


FIGURES = {"tutorial": 11, "next": 6}
"""The notebooks, and how many figures each has."""


@pytest.fixture(scope="module", params=FIGURES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def source(name):
    return jupytext.read(TUTORIAL / f"{name}.py")


@pytest.fixture(scope="module")
def notebook(name):
    return nbformat.read(TUTORIAL / f"{name}.ipynb", 4)


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_cell_runs_with_the_outputs_of_the_notebook(tmp_path, name, source, notebook):
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    # As in pyproject.toml.
    warnings = "-W", "error", "-W", "ignore:Error writing persistent", "-W", "ignore:Error reading persistent"
    ran = subprocess.run(
        [sys.executable, *warnings, "-m", "tests.workers.notebook_cells", str(TUTORIAL / f"{name}.py")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "SUBSET": "200", "PYTHONPATH": path},
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stderr.splitlines()]
    assert [int(number) for _, number, _ in lines] == list(range(len(_code(source))))
    shown = [any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in _code(notebook)]
    assert [kind == "Figure" for *_, kind in lines] == shown and sum(shown) == FIGURES[name]
    if name == "tutorial":
        # The loss of an untrained network, the shape of its kernels, and the difference to NumPy's feature maps.
        assert "first call" in ran.stdout and "(3, 3, 1, 32)" in ran.stdout
        difference = float(ran.stdout.rpartition("feature_maps: ")[2])
        assert 0 <= difference < 1e-5
    else:
        assert "val_map" in ran.stdout and "(200, 96, 96, 1) (200, 6, 5)" in ran.stdout


def test_the_notebook_has_the_cells_of_its_source(source, notebook):
    cells = [[(cell.cell_type, cell.source) for cell in one.cells] for one in (source, notebook)]
    assert cells[0] == cells[1], "make tutorial makes docs/tutorial/tutorial.ipynb of the .py"


def test_the_notebook_was_run_in_order(name, notebook):
    assert [cell.execution_count for cell in _code(notebook)] == list(range(1, len(_code(notebook)) + 1))
    outputs = [output for cell in _code(notebook) for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "execute_result"}
    assert all(output.name == "stdout" for output in outputs if output.output_type == "stream")
    # On all images, and small enough for GitHub to show it.
    on_all = {"tutorial": "of 12,000 images", "next": "(48000, 28, 28, 1)"}
    assert any(on_all[name] in output.get("text", "") for output in outputs)
    assert (TUTORIAL / f"{name}.ipynb").stat().st_size < 1.5e6


def test_the_tutorial_uses_only_public_names(source):
    named = set(re.findall(r"\bcnn\.([a-zA-Z_]+)", "\n".join(cell.source for cell in source.cells)))
    assert len(named) > 10 and named - {"datasets", "figures", "look", "models", "training"} <= set(cnn.__all__)
