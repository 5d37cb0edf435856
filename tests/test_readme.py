"""README.md and docs/: tables, code blocks, links, commands, paths, and the table of guarantees."""

import ast
import importlib
import json
import re

import pytest

import cnn
from benchmarks import readme
from cnn.__main__ import main
from cnn.serialization import config_fields
from experiments import fashion_cnn, fashion_fast
from tests.helpers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_tables_match_the_committed_results():
    for name in readme.PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        assert readme.render(page) == page


def test_every_table_is_on_one_page():
    readme.check_marks({name: (ROOT / name).read_text(encoding="utf-8") for name in readme.PAGES})


LADDER = json.loads((readme.RESULTS / "ladder.json").read_text())["rungs"]


@pytest.mark.parametrize("rung", LADDER)
def test_rung_docstring_has_the_committed_numbers(rung):
    docstring, numbers = str(importlib.import_module(f"experiments.{rung}").__doc__), LADDER[rung]
    assert f"Command:        python -m experiments.{rung}\n" in docstring
    assert f"Parameters:     {numbers['parameters']:,}\n" in docstring
    assert f"{len(numbers['rows'])} seed" in docstring
    for key in ("val_accuracy", "test_accuracy"):
        assert readme.spread(numbers["summary"][key], 4).replace("±", "+-") in docstring


@pytest.mark.parametrize("experiment", [fashion_cnn, fashion_fast], ids=lambda module: module.CONFIG.name)
def test_experiment_docstring_has_the_committed_numbers(experiment):
    result = json.loads((readme.RESULTS / "seeds.json").read_text())["summary"][experiment.CONFIG.name]
    for key in ("val_loss", "val_accuracy", "test_accuracy"):
        assert f"{result[key]['mean']:.4f} +- {result[key]['std']:.4f}" in str(experiment.__doc__)


def test_python_block_of_the_readme_runs(monkeypatch, small, capsys):
    monkeypatch.setattr(cnn, "load_data", lambda config: small)
    names = {}
    exec(BLOCKS[0], names)
    assert names["state"].step == 1 + 16  # a step, and an epoch of 500 images
    assert names["maps"]["conv1"].shape == (1, 28, 28, 32)
    assert names["probabilities"].shape == (110, 10)
    _, train_accuracy, val_accuracy = map(float, capsys.readouterr().out.split()[:3])
    assert 0 < train_accuracy < 1 and 0 < val_accuracy < 1


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_linked_files_and_headings_exist(page):
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", PAGES[page])
    assert len(links) >= (15 if page.name == "README.md" else 0)
    for path, heading in links:
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name} links {path}"
        headings = [line.lstrip("# ").lower() for line in PAGES.get(target, "").splitlines() if line.startswith("#")]
        assert not heading or heading in {re.sub(r"[^\w -]", "", line).replace(" ", "-") for line in headings}, heading


def test_commands_options_and_paths_in_the_pages_exist(capsys):
    text, makefile = "\n".join(PAGES.values()), (ROOT / "Makefile").read_text(encoding="utf-8")
    main(["--help"])
    commands = set(re.findall(r"^  (\w+) ", capsys.readouterr().out, flags=re.MULTILINE))
    assert set(re.findall(r"python -m cnn ([a-z]+)", text)) == commands
    targets = set(re.findall(r"`make ([a-z]+)", text))
    assert len(targets) >= 6 and all(f"\n{target}:" in makefile for target in targets)
    modules = set(re.findall(r"\b((?:experiments|benchmarks)\.[a-z_]\w+)(?!\w)", text))
    paths = set(re.findall(r"\b((?:cnn|benchmarks|docs|experiments|tests)/[\w/]+\.\w+)", text))
    paths |= {f"{module.replace('.', '/')}.py" for module in modules}
    paths -= {"experiments/mine.py"}  # the example
    assert len(paths) >= 40 and not [path for path in paths if not (ROOT / path).is_file()]
    options = {name.replace(".no_", ".") for name in re.findall(r"--((?:[a-z]+)\.[a-z_0-9]+)", text)}
    # Of the example, and of a rung.
    known = set(config_fields(fashion_cnn.CONFIG)) | {"model.features", "model.blocks", "model.cell"}
    assert len(options) >= 15 and options <= known, options - known


def test_the_six_files_to_read_have_fewer_than_1000_lines():
    section = README.split("these six files, fewer than 1,000 lines")[1].split("```")[0]
    paths = re.findall(r"^\d\. \[([\w/.]+)\]\(\1\)", section, flags=re.MULTILINE)
    assert len(paths) == 6
    assert sum(len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in paths) < 1000


@pytest.mark.parametrize("name", ["guarantees", "traps"])
def test_every_row_names_an_existing_test(name):
    page = PAGES[ROOT / "docs" / f"{name}.md"]
    rows = re.findall(r"^\| .+ \| `(tests/[\w/]+\.py)::(test_\w+)` \|$", page, flags=re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| ", page, flags=re.MULTILINE)) - 1 >= 20
    for path, test in rows:
        functions = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        assert test in {node.name for node in functions if isinstance(node, ast.FunctionDef)}, f"{path}::{test}"
