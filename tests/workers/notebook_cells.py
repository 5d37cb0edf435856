"""Runs the cells of a notebook in one namespace, as Jupyter does; prints the type of each value on stderr."""

import ast
import sys
from typing import Any

import jupytext


def run(number: int, source: str, names: dict[str, Any]) -> Any:
    """Returns the value of the cell's last line, None if that is not an expression."""
    *body, last = ast.parse("".join(line for line in source.splitlines(True) if not line.startswith("%"))).body
    if not isinstance(last, ast.Expr):
        body.append(last)
    exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
    return (
        eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        if isinstance(last, ast.Expr)
        else None
    )


if __name__ == "__main__":
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell.source for cell in jupytext.read(sys.argv[1]).cells if cell.cell_type == "code"]
    for number, source in enumerate(cells):
        print("cell", number, type(run(number, source, names)).__name__, file=sys.stderr)
