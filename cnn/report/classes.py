"""The tables of a page that have a row for each class."""

from collections.abc import Mapping, Sequence

import numpy as np

from cnn.look.scores import MANY
from cnn.report.page import escaped, table
from cnn.text import shortened

MOST_CLASSES = 300
"""Maximum number of classes in the confusion matrix of a page."""

NAME = 24
"""Columns of the name of a class at the side of the confusion matrix."""


def most_mistaken(confusion: Sequence[Sequence[int]], count: int = MOST_CLASSES) -> list[int]:
    """Returns the labels of the classes with the most errors, from and to them, in ascending order."""
    counts = np.asarray(confusion)
    errors = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
    return np.sort(np.argsort(-errors, kind="stable")[:count]).tolist()


def confusion_table(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Returns the confusion matrix, HTML; of more than ``MANY`` classes without the cells, which the script adds."""
    many = len(names) > MANY
    texts = [_short(name) for name in names]
    heads = "".join(f'<th scope="col">{text}</th>' for text in texts)

    def cell(label: int, other: int) -> str:
        count = confusion[label][other]
        kind = "diagonal" if label == other else "" if count else "none"
        return f'<td class="{kind}">{count}</td>'

    rows = "".join(
        f'<tr><th scope="row">{text}</th>'
        f"{'' if many else ''.join(cell(label, other) for other in range(len(names)))}</tr>"
        for label, text in enumerate(texts)
    )
    return (
        f'<table class="confusion{" many" if many else ""}"><thead><tr><td>true \\ predicted</td>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _short(name: str) -> str:
    """The name of a class, shortened, HTML."""
    text = shortened(name, NAME)
    title = "" if text == name else f' title="{escaped(name)}"'
    return f"<span{title}>{escaped(text)}</span>"


def confusion_note(classes: int) -> str:
    """Returns how to read the confusion matrix of this number of classes; "" if its cells have numbers."""
    if classes <= MANY:
        return ""
    part = f"Of the {classes} classes, the {MOST_CLASSES} with the most errors are shown. "
    return f"{part if classes > MOST_CLASSES else ''}The darker a cell, the more images. "


def class_table(classes: Mapping[str, Mapping[str, float]], korean: Sequence[str]) -> str:
    """Returns the scores of each class, HTML; of more than ``MANY``, in a box that scrolls, the lowest F1 first."""
    suffixes = [f' <span lang="ko">{escaped(name)}</span>' for name in korean] + [""] * (len(classes) - len(korean))
    many, scores = len(classes) > MANY, ("precision", "recall", "f1")
    lines = list(zip(classes.items(), suffixes, strict=True))
    rows = (
        (f"{escaped(name)}{suffix}", *(f"{values[score]:.3f}" for score in scores), f"{values['images']:,}")
        for (name, values), suffix in (sorted(lines, key=lambda line: line[0][1]["f1"]) if many else lines)
    )
    box = ' class="scroll tall" tabindex="0" role="region" aria-label="Scores by class"' if many else ' class="scroll"'
    return f"<div{box}>{table(('class', *scores, 'images'), rows)}</div>"
