"""python docs/tutorial/build.py: makes tutorial.ipynb of tutorial.py, and runs it. Needs the extra "tutorial"."""

from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent

notebook = jupytext.read(HERE / "tutorial.py")
for number, cell in enumerate(notebook.cells):
    # Otherwise, they are drawn at random each time.
    cell.id = f"cell-{number}"
options = {"record_timing": False, "coalesce_streams": True, "timeout": None}
NotebookClient(notebook, resources={"metadata": {"path": str(HERE)}}, **options).execute()
nbformat.write(notebook, HERE / "tutorial.ipynb")
