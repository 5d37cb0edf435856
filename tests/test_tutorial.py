"""The tutorial: its cells run, one after the other, and the notebook that is shown is made of them."""

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

# As Jupyter runs a notebook: the cells in turn, in one namespace, with what the last line of each gives.
RUN = """
import ast, sys
import jupytext

def run(number, source, names):
    *body, last = ast.parse("".join(line for line in source.splitlines(True) if not line.startswith("%"))).body
    is_shown = isinstance(last, ast.Expr)
    exec(compile(ast.Module([*body, *[last][is_shown:]], []), f"cell {number}", "exec"), names)
    return eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names) if is_shown else None

names = {"__name__": "__main__"}
cells = [cell.source for cell in jupytext.read(sys.argv[1]).cells if cell.cell_type == "code"]
for number, source in enumerate(cells):
    print("cell", number, type(run(number, source, names)).__name__, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def source():
    return jupytext.read(TUTORIAL / "tutorial.py")


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(TUTORIAL / "tutorial.ipynb", 4)


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_cell_runs_and_shows_what_it_shows_in_the_notebook(tmp_path, source, notebook):
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    ran = subprocess.run(
        # Now and then, jaxlib cannot serialize what it has compiled, and goes on without.
        [sys.executable, "-W", "error", "-W", "ignore:Error writing", "-c", RUN, str(TUTORIAL / "tutorial.py")],
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
    # An untrained network's loss, the shape of its kernels, and what NumPy makes of them.
    assert "first call" in ran.stdout and "(3, 3, 1, 32)" in ran.stdout
    difference = float(ran.stdout.rpartition("feature_maps: ")[2])
    assert 0 <= difference < 1e-5


def test_the_notebook_is_made_of_the_same_cells(source, notebook):
    cells = [[(cell.cell_type, cell.source) for cell in one.cells] for one in (source, notebook)]
    assert cells[0] == cells[1], "make tutorial makes docs/tutorial/tutorial.ipynb of the .py"


def test_the_notebook_was_run_from_its_first_cell_to_its_last(notebook):
    assert [cell.execution_count for cell in _code(notebook)] == list(range(1, len(_code(notebook)) + 1))
    outputs = [output for cell in _code(notebook) for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "execute_result"}
    assert all(output.name == "stdout" for output in outputs if output.output_type == "stream")
    # On all images, and small enough for GitHub to show it.
    assert any("of 12,000 images" in output.get("text", "") for output in outputs)
    assert (TUTORIAL / "tutorial.ipynb").stat().st_size < 1.5e6


def test_what_it_names_of_the_project_is_public(source):
    named = set(re.findall(r"\bcnn\.([a-zA-Z_]+)", "\n".join(cell.source for cell in source.cells)))
    assert len(named) > 15 and named - {"datasets", "figures", "training"} <= set(cnn.__all__)
