"""The tutorial: its cells run in order, and the notebook has the same cells."""

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


@pytest.fixture(scope="module")
def source():
    return jupytext.read(TUTORIAL / "tutorial.py")


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(TUTORIAL / "tutorial.ipynb", 4)


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_cell_runs_with_the_outputs_of_the_notebook(tmp_path, source, notebook):
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    # As in pyproject.toml.
    warnings = "-W", "error", "-W", "ignore:Error writing persistent", "-W", "ignore:Error reading persistent"
    ran = subprocess.run(
        [sys.executable, *warnings, "-m", "tests.workers.notebook_cells", str(TUTORIAL / "tutorial.py")],
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
    assert [kind == "Figure" for *_, kind in lines] == shown and sum(shown) == 11
    # The loss of an untrained network, the shape of its kernels, and the difference to NumPy's feature maps.
    assert "first call" in ran.stdout and "(3, 3, 1, 32)" in ran.stdout
    difference = float(ran.stdout.rpartition("feature_maps: ")[2])
    assert 0 <= difference < 1e-5


def test_the_notebook_has_the_cells_of_its_source(source, notebook):
    cells = [[(cell.cell_type, cell.source) for cell in one.cells] for one in (source, notebook)]
    assert cells[0] == cells[1], "make tutorial makes docs/tutorial/tutorial.ipynb of the .py"


def test_the_notebook_was_run_in_order(notebook):
    assert [cell.execution_count for cell in _code(notebook)] == list(range(1, len(_code(notebook)) + 1))
    outputs = [output for cell in _code(notebook) for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "execute_result"}
    assert all(output.name == "stdout" for output in outputs if output.output_type == "stream")
    # On all images, and small enough for GitHub to show it.
    assert any("of 12,000 images" in output.get("text", "") for output in outputs)
    assert (TUTORIAL / "tutorial.ipynb").stat().st_size < 1.5e6


def test_the_tutorial_uses_only_public_names(source):
    named = set(re.findall(r"\bcnn\.([a-zA-Z_]+)", "\n".join(cell.source for cell in source.cells)))
    assert len(named) > 15 and named - {"datasets", "figures", "models", "training"} <= set(cnn.__all__)
