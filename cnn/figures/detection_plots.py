"""The numbers of detections -> matplotlib figures, in the style of ``cnn/figures/plots.py``.

Scenes with their boxes are in ``scene_plots``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnn.figures.evaluation_plots import CLASS_COLOURS, confusion_matrix
from cnn.figures.fonts import labels as class_labels
from cnn.figures.plots import BLUE, MANY, WIDTH, check, styled

LINES = 10
"""Maximum number of classes with a curve each."""

PALE_BLUE = "#A6CBE3"


@styled
def precision_recall(
    precision: np.ndarray, recall: np.ndarray, names: Sequence[str], average_precision: np.ndarray, title: str
) -> Figure:
    """Draws precision by recall: the mean over classes, and each class, or of more than ``LINES`` some and a band.

    Args:
      precision: [K, R]; NaN for a class without objects, which is left out.
      recall: [R], from 0 to 1.
      names: of the classes, [K].
      average_precision: [K].
      title: title of the figure.

    Raises:
      ValueError: a shape is wrong.
    """
    check("precision", precision, "KR")
    check("recall", recall, "R")
    check("average_precision", average_precision, "K")
    names = class_labels(names)
    figure = Figure(figsize=(WIDTH, 5.5))
    axes = figure.subplots()
    known = np.flatnonzero(~np.isnan(average_precision))
    order = known[np.argsort(-average_precision[known], kind="stable")].tolist()
    shown = order
    if len(order) > LINES:
        shown = [*order[: LINES // 2 - 1], *order[1 - LINES // 2 :]]
        low, high = np.quantile(precision[order], [0.1, 0.9], axis=0)
        axes.fill_between(recall, low, high, color="0.88", linewidth=0, label="80 % of the classes")
        title += f"\nthe best and the worst of {len(order)} classes"
    if order:
        text = f"{average_precision[order].mean():.3f}  mean of all"
        mean = precision[order].mean(0)
        axes.plot(recall, mean, color="black", linewidth=3, label=text, clip_on=False, zorder=2.5)
    for line, label in enumerate(shown):
        look: Any = {"color": CLASS_COLOURS[line % len(CLASS_COLOURS)], "linestyle": ("-", "--", "-.")[line % 3]}
        text = f"{average_precision[label]:.3f}  {names[label]}"
        axes.plot(recall, precision[label], linewidth=1.6, label=text, clip_on=False, **look)
    if order:
        axes.legend(title="average precision", loc="center left", bbox_to_anchor=(1.02, 0.5), alignment="left")
    if missing := len(precision) - len(order):
        title += f"\n{missing} class{'' if missing == 1 else 'es'} without objects"
    axes.set(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    return figure


@styled
def detection_confusion(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws how many objects of each class (row) are detected as each class (column); the last ones are background.

    Args:
      counts: integers [K + 1, K + 1]; the last row counts boxes where no object is, the last column missed objects.
      names: names of the classes, [K].

    Raises:
      ValueError: the shape is wrong.
    """
    check("counts", counts, ("K+1", "K+1"))
    figure = confusion_matrix(counts, [*class_labels(names), "background"])
    matrix, *others = figure.axes
    missed, unfounded, found = counts[:-1, -1].sum(), counts[-1, :-1].sum(), np.trace(counts[:-1, :-1])
    matrix.set_title(
        f"{found:,} of {counts[:-1].sum():,} objects detected as their class, {missed:,} missed;\n"
        f"{unfounded:,} seen where no object is"
    )
    # Background where nothing is detected cannot be counted.
    for corner in matrix.texts[-1:]:
        corner.set(text="–", color="0.7")
    for bar in (child for axes in others for child in axes.child_axes):
        bar.set_xlabel("objects or boxes")
    return figure


@styled
def average_precision_by_class(
    average_precision: np.ndarray, names: Sequence[str], areas: Sequence[str], title: str
) -> Figure:
    """Draws the average precision at an IoU of 0.5 and its mean over 0.5 to 0.95, by class and by size of the object.

    Of more than ``MANY`` classes, the best and the worst are shown.

    Args:
      average_precision: by threshold from 0.5 to 0.95, class and range of sizes, [T, K, A]; NaN for a class without
        objects of such a size. The first range has all sizes.
      names: of the classes, [K].
      areas: names of the ranges, [A].
      title: title of the figure.

    Raises:
      ValueError: the shape is wrong.
    """
    check("average_precision", average_precision, "TKA")
    names = class_labels(names)
    # At 0.5, and the mean, of each class in each range.
    values = np.stack([average_precision[0], average_precision.mean(0)], axis=-1)
    overall = values[:, 0, 1]
    known = np.flatnonzero(~np.isnan(overall))
    order = known[np.argsort(-overall[known], kind="stable")].tolist()
    rows = [(names[label], *values[label, 0]) for label in order]
    if len(rows) > MANY:
        between = order[10:-10]
        rows = [*rows[:10], (f"mean of {len(between)} others", *values[between, 0].mean(0)), *rows[-10:]]
    head = f"by class ({len(overall) - len(order)} without objects)" if len(order) < len(overall) else "by class"
    groups = {head: rows, "by size": []}
    for area, name in enumerate(areas):
        present = values[~np.isnan(values[:, area, 1]), area]
        groups["by size"].append((name, *(present.mean(0) if len(present) else (np.nan, np.nan))))
    most = max(map(len, groups.values()))
    figure = Figure(figsize=(WIDTH, max(0.3 * most + 1.6, 3.4)))
    figure.suptitle(title)
    panels = figure.subplots(1, 2, width_ratios=[3, 2])
    for axes, (head, group) in zip(panels, groups.items(), strict=True):
        _draw_bars(axes, group)
        axes.set(title=head, xlabel="average precision", xlim=(0, 1.12), xticks=np.linspace(0, 1, 6))
        # Bars of both panels are equally high.
        axes.set_ylim(most - 0.5, -0.5)
        axes.spines["left"].set_bounds(-0.5, len(group) - 0.5)
    handles, texts = panels[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=2)
    return figure


def _draw_bars(axes: Axes, rows: Sequence[tuple[str, float, float]]) -> None:
    """Two bars a row, the second before the first, which is at least as long."""
    places = range(len(rows))
    for number, (colour, label) in enumerate(((PALE_BLUE, "at an IoU of 0.5"), (BLUE, "mean at 0.5 to 0.95")), 1):
        axes.barh(places, np.nan_to_num([row[number] for row in rows]), 0.75, color=colour, label=label)
    for place, (_, half, mean) in zip(places, rows, strict=True):
        if np.isnan(half):
            axes.text(0.01, place, "no objects", va="center", size="small", color="0.4")
        elif mean > 0.15:
            axes.text(half + 0.01, place, f"{half:.3f}", va="center", size="small")
            axes.text(mean - 0.01, place, f"{mean:.3f}", va="center", ha="right", size="small", color="white")
        else:
            # No space within the bar.
            axes.text(half + 0.01, place, f"{mean:.3f} / {half:.3f}", va="center", size="small")
    axes.set_yticks(places, [row[0] for row in rows])
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
