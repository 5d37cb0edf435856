"""python docs/tutorial/build.py: makes a notebook of each .py beside it, and runs it. Needs the extra "tutorial"."""

import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent

OPTIONS = {"record_timing": False, "coalesce_streams": True, "timeout": None}

for name in sys.argv[1:] or ("tutorial", "next"):
    notebook = jupytext.read(HERE / f"{name}.py")
    for number, cell in enumerate(notebook.cells):
        # Otherwise, they are drawn at random each time.
        cell.id = f"cell-{number}"
    NotebookClient(notebook, resources={"metadata": {"path": str(HERE)}}, **OPTIONS).execute()
    nbformat.write(notebook, HERE / f"{name}.ipynb")
