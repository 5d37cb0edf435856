"""What the README says is so: its tables, its code, and the direction of imports in its layout."""

import ast
import importlib
import json
import re
import subprocess
import sys

import pytest

import cnn
from benchmarks import readme
from experiments import fashion_cnn, fashion_fast
from tests.helpers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_tables_are_those_of_the_committed_results():
    for name in readme.PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        assert readme.render(page) == page


def test_every_table_has_its_place():
    readme.check_marks({name: (ROOT / name).read_text(encoding="utf-8") for name in readme.PAGES})


LADDER = json.loads((readme.RESULTS / "ladder.json").read_text())["rungs"]


@pytest.mark.parametrize("rung", LADDER)
def test_a_rungs_docstring_has_the_committed_numbers(rung):
    docstring, numbers = str(importlib.import_module(f"experiments.{rung}").__doc__), LADDER[rung]
    assert f"Command:        python -m experiments.{rung}\n" in docstring
    assert f"Parameters:     {numbers['parameters']:,}\n" in docstring
    assert f"{len(numbers['rows'])} seed" in docstring
    for key in ("val_accuracy", "test_accuracy"):
        assert readme.spread(numbers["summary"][key], 4).replace("±", "+-") in docstring


@pytest.mark.parametrize("experiment", [fashion_cnn, fashion_fast])
def test_the_experiments_docstring_has_the_committed_numbers(experiment):
    result = json.loads((readme.RESULTS / "seeds.json").read_text())["summary"][experiment.CONFIG.name]
    for key in ("val_loss", "val_accuracy", "test_accuracy"):
        assert f"{result[key]['mean']:.4f} +- {result[key]['std']:.4f}" in str(experiment.__doc__)


def test_the_library_can_be_used_as_shown(monkeypatch, small, capsys):
    monkeypatch.setattr(cnn, "load_data", lambda config: small)
    names = {}
    exec(BLOCKS[0], names)
    assert names["state"].step == 1 + 16  # a step, and an epoch of 500 images
    assert names["maps"]["conv1"].shape == (1, 28, 28, 32)
    assert names["probabilities"].shape == (110, 10)
    _, train_accuracy, val_accuracy = map(float, capsys.readouterr().out.split()[:3])
    assert 0 < train_accuracy < 1 and 0 < val_accuracy < 1


def test_an_experiment_can_be_written_as_shown(tmp_path):
    (tmp_path / "wide.py").write_text(BLOCKS[1])
    code = "import sys; sys.path.insert(0, sys.argv[1]); import wide; print(wide.CONFIG.name, wide.CONFIG.model)"
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert shown.stdout.startswith("wide ModelConfig(family='cnn', conv1_features=64, conv2_features=128"), shown.stderr


def test_every_picture_and_file_that_is_named_is_there():
    named = re.findall(r"\]\((docs/[^)#]+)", README)
    assert len(named) == 12
    assert all((ROOT / path).is_file() for path in named)


def test_every_promise_names_a_test_that_is_there():
    promises = re.findall(r"^\| .+ \| `(tests/[\w/]+\.py)::(test_\w+)` \|$", README, flags=re.MULTILINE)
    section = README.split("## What is promised")[1].split("\n## ")[0]
    assert len(promises) == len(re.findall(r"^\| ", section, flags=re.MULTILINE)) - 1 >= 20
    for path, name in promises:
        functions = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        assert name in {node.name for node in functions if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"
