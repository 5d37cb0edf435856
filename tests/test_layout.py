"""The direction of imports: folder by folder as README's layout lists them, and nothing impure in the core."""

import ast
import re
from pathlib import Path

import pytest

from tests.helpers import ROOT

LAYOUT = re.findall(r"^  (\w+)(?:\.py|/) ", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
"""The parts of cnn/, each of which imports only from those after it."""

IMPURE = {"os", "sys", "io", "time", "signal", "pathlib", "shutil", "tempfile", "orbax", "matplotlib"}


def _files(part: str) -> list[Path]:
    path = ROOT / "cnn" / part
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def _imports(path: Path) -> set[str]:
    """The dotted names of all modules that a file imports, wherever in it, and of the names that it takes from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_the_layout_lists_every_part_of_the_package():
    parts = {path.stem for path in (ROOT / "cnn").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(LAYOUT) == sorted(parts - {"__init__"})


@pytest.mark.parametrize("part", LAYOUT)
def test_imports_run_downwards_folder_by_folder(part):
    below = {part, *LAYOUT[LAYOUT.index(part) + 1 :]}
    for path in _files(part):
        imported = {name.split(".")[1] for name in _imports(path) if name.startswith("cnn.")}
        assert imported <= below, f"{path.relative_to(ROOT)} imports {imported - below}"


@pytest.mark.parametrize("path", _files("training"), ids=lambda path: path.stem)
def test_the_core_touches_no_file_clock_or_signal(path):
    imported = _imports(path)
    assert not {name.split(".")[0] for name in imported} & IMPURE
    assert not {name for name in imported if name.startswith("cnn.runs")}
