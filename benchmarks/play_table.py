"""The table of docs/web.md: milliseconds of the page to play with."""

from typing import Any

from benchmarks.markdown import footnote, table

TITLES = {
    "first answer": "from the start of the navigation to the first answer",
    "stroke to bars": "from a stroke to the probabilities",
    "stroke to maps": "from a stroke to the maps of all layers",
}


def play_table(result: dict[str, Any]) -> str:
    """Returns the times of the page, by what is measured."""
    rows = []
    for name, title in TITLES.items():
        values = result["milliseconds"][name]
        numbers = (f"{values[key]:.0f}" for key in ("median", "min", "max"))
        rows.append([title, *numbers, f"{values['n']}"])
    notes = f"{result['browser']}, {result['runtime']}; {result['size']}. {footnote(result)}."
    return table(["milliseconds", "median", "min", "max", "n"], rows, notes)
