"""Decisions on single labels, from a CSV file: each image is kept, gets another class, or is dropped."""

import csv
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn.errors import DataError
from cnn.text import listed, read_regular, reason, shown

COLUMNS = ("index", "given", "action", "label")
ACTIONS = ("keep", "change", "drop")


class Decision(NamedTuple):
    """A row of the file."""

    image: int
    """Its index among the training and validation images before anything is dropped."""
    given: str
    """Name of the class that the data gives it: a file made for other images is recognized by it."""
    action: str
    label: str
    """Name of the class that it gets; empty unless it is changed."""


def read_decisions(path: str, labels_N: np.ndarray, names: Sequence[str]) -> list[Decision]:
    """Returns the rows of a file of decisions.

    Args:
      path: of a CSV file with the columns ``index,given,action,label``, in UTF-8.
      labels_N: classes that the data gives all training and validation images, integers [N].
      names: of the classes, by label.

    Raises:
      DataError: the file cannot be read, or a row cannot be applied; the message has the number of its line.
    """
    hint = "python -m cnn labels RUN_DIR makes such a file"
    try:
        text = read_regular(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        # Of bytes that are not UTF-8, the reason would be Python's.
        why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else reason(error)
        raise DataError(f"--data.labels is {shown(path)}, which cannot be read: {why}; {hint}") from error
    rows = csv.reader(text.splitlines(), strict=True)
    decisions: list[Decision] = []
    line_of: dict[int, int] = {}
    try:
        if next(rows, None) != list(COLUMNS):
            raise ValueError(f"it is not {','.join(COLUMNS)}; {hint}")
        for row in filter(None, rows):
            decision = _decision(row, labels_N, names)
            if decision.image in line_of:
                raise ValueError(f"image {decision.image} is also in line {line_of[decision.image]}; remove one")
            line_of[decision.image] = rows.line_num
            decisions.append(decision)
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}, line {max(rows.line_num, 1)}: {reason(error)}") from error
    return decisions


def _decision(row: list[str], labels_N: np.ndarray, names: Sequence[str]) -> Decision:
    """Returns a row's decision; raises ValueError with what is wrong with it."""
    if len(row) != len(COLUMNS):
        raise ValueError(f"{len(row)} values, but must be {len(COLUMNS)}: {', '.join(COLUMNS)}")
    text, given, action, label = row
    _require(text.isascii() and text.isdigit() and len(text) < 12, "index", text, "a number from 0")
    index = int(text)
    _require(index < len(labels_N), "index", index, f"at most {len(labels_N) - 1}, the last image's")
    _require(action in ACTIONS, "action", action, ", ".join(ACTIONS))
    expected = names[labels_N[index]]
    _require(given == expected, "given", given, f"{shown(expected)}, as in the data; the file may be of other images")
    allowed = listed(names) if action == "change" else f"empty with {action}"
    _require(label in names if action == "change" else not label, "label", label, allowed)
    return Decision(index, given, action, label)


def _require(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {shown(value)}, but must be {allowed}")


def relabel(decisions: Sequence[Decision], labels_N: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels with changes, int32 [N], and whether each image stays, bool [N].

    Args:
      decisions: as of ``read_decisions``.
      labels_N: classes that the data gives the images, integers [N].
      names: of the classes, by label.
    """
    labels_N, stays_N = labels_N.astype(np.int32), np.ones(len(labels_N), bool)
    for decision in decisions:
        if decision.action == "change":
            labels_N[decision.image] = names.index(decision.label)
        stays_N[decision.image] = decision.action != "drop"
    return labels_N, stays_N
