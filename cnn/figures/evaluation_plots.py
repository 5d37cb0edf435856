"""The figures of an evaluation: confusions, calibration and embedding, of any number of classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnn.figures.fonts import labels as class_labels
from cnn.figures.plots import BLUE, GREY, MANY, WIDTH, check, styled
from cnn.text import columns

# P. Tol's muted colours, distinct for the colour-blind, with a darker grey: https://sronpersonalpages.nl/~pault/
CLASS_COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499"),
    "#777777",
)

# Of the first ten classes, the next ten, and so on.
MARKERS = "os^Dv"

# Names among the points, which they hide.
MOST_NAMES = 40

# Correct predictions, where no number says so.
DIAGONAL = "#CCE3F0"


@styled
def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws how many images of each class (row) are predicted as each class (column); only errors are coloured.

    Of more than ``MANY`` classes, the counts are colours alone, beside the most confused pairs.

    Args:
      counts: integers [K, K].
      names: names of the classes, [K].

    Raises:
      ValueError: the shape is wrong.
    """
    check("counts", counts, ("K", "K"))
    names = class_labels(names)
    # Correct predictions dominate, and would leave no colours for the others.
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    if len(names) > MANY:
        figure, axes = _confusion_colours(wrong, names)
    else:
        figure, axes = _confusion_counts(counts, wrong, names)
    errors, total = int(wrong.sum()), int(counts.sum())
    axes.set(
        xlabel="predicted class",
        ylabel="true class",
        title=f"{errors:,} of {total:,} images are predicted as another class",
    )
    axes.grid(False)
    axes.tick_params(length=0)
    return figure


def _confusion_counts(counts: np.ndarray, wrong: np.ndarray, names: Sequence[str]) -> tuple[Figure, Axes]:
    """The number of each pair of classes in its cell."""
    figure = Figure(figsize=(0.75 * len(names) + 2.5, 0.6 * len(names) + 2))
    axes = figure.subplots()
    most = max(wrong.max(), 1)
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=1.2 * most)
    for (row, column), count in np.ndenumerate(counts):
        colour = BLUE if row == column else "white" if count > 0.6 * most else "black" if count else "0.7"
        axes.text(
            column, row, f"{count:,}", ha="center", va="center", color=colour, weight=700 if row == column else 400
        )
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    return figure, axes


def _confusion_colours(wrong: np.ndarray, names: Sequence[str]) -> tuple[Figure, Axes]:
    """A colour for each pair of classes, with as many names as there is space for, and the most confused pairs."""
    figure = Figure(figsize=(WIDTH, 8))
    axes, side = figure.subplots(1, 2, width_ratios=[5, 2])
    # One error is as visible as many: the palest tenths of the scale are left to cells without any.
    colours = ListedColormap(colormaps["Oranges"](np.linspace(0.3, 1, 256)))
    scale = PowerNorm(0.5, 0, max(wrong.max(), 1))
    axes.imshow(np.where(np.eye(len(wrong), dtype=bool), 1, np.nan), cmap=ListedColormap([DIAGONAL]))
    mappable = axes.imshow(np.ma.masked_equal(wrong, 0), cmap=colours, norm=scale)
    # Points between the lines of the matrix, and between the lines of text.
    step = -(-9 * len(wrong) // 440)
    ticks = range(0, len(names), step)
    for set_ticks, options in ((axes.set_xticks, {"rotation": 90}), (axes.set_yticks, {})):
        set_ticks(ticks, [names[label] for label in ticks], fontsize=7, **options)
    side.set_axis_off()
    order = np.argsort(-wrong, axis=None, kind="stable")[:12]
    pairs = [(wrong[pair], *pair) for pair in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[pair]]
    side.set_title("Most confused" if pairs else "", loc="left")
    for line, (count, label, other) in enumerate(pairs):
        text = f"{count:,}  {names[label]}\n{' ' * len(f'{count:,}')}  as {names[other]}"
        side.text(0, 0.98 - line * 0.07, text, va="top", fontsize=9, transform=side.transAxes)
    bar = figure.colorbar(mappable, cax=side.inset_axes((0, 0.04, 0.95, 0.025)), orientation="horizontal")
    bar.set_label("images predicted as another class")
    bar.ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return figure, axes


@styled
def reliability(diagrams: Mapping[str, Any]) -> Figure:
    """Draws reliability diagrams, one panel each: accuracy by confidence; on the diagonal, both are equal.

    Args:
      diagrams: by title, the result of ``cnn.look.evaluation.reliability``.
    """
    figure = Figure(figsize=(WIDTH, 5))
    panels = figure.subplots(1, len(diagrams), sharey=True, squeeze=False)[0]
    for axes, (title, bins) in zip(panels, diagrams.items(), strict=True):
        filled = bins.share > 0
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="accuracy = confidence")
        # The area of a point shows the share of the images in its bin.
        sizes = 20 + 400 * bins.share[filled]
        shown = {"color": BLUE, "alpha": 0.8, "clip_on": False, "zorder": 3}
        axes.scatter(bins.confidence[filled], bins.accuracy[filled], sizes, label="images, by area", **shown)
        axes.set(
            title=f"{title}\nexpected calibration error {bins.error:.4f}", xlabel="confidence", xlim=(0, 1), ylim=(0, 1)
        )
        axes.set_aspect("equal")
    panels[0].set_ylabel("accuracy")
    panels[0].legend(loc="upper left", markerscale=0.5)
    return figure


@styled
def embedding(points: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Draws points of a plane, one per image, coloured by class, with each class name where its points are densest.

    Args:
      points: [N, 2]; only their distances are meaningful.
      labels: integers [N].
      names: names of the classes, [K].
      title: title of the figure.

    Raises:
      ValueError: a shape is wrong.
    """
    check("points", points, ("N", "2"))
    check("labels", labels, "N")
    figure = Figure(figsize=(WIDTH, 6.5))
    axes = figure.subplots()
    # Directions are meaningless, so the longest one is horizontal.
    points = points - points.mean(0)
    points = points @ np.linalg.svd(points, full_matrices=False)[2].T
    places = []
    for label, name in enumerate(class_labels(names)):
        members, colour = points[labels == label], CLASS_COLOURS[label % len(CLASS_COLOURS)]
        if len(members):
            marker = MARKERS[label // len(CLASS_COLOURS) % len(MARKERS)]
            axes.scatter(*members.T, s=16, color=colour, alpha=0.8, linewidths=0, marker=marker)
            # The mean of two clusters would lie between them; a quarter of the points are nearest to this one.
            spreads = np.quantile(np.linalg.norm(members[:, None] - members, axis=-1), 0.25, axis=1)
            places.append((spreads.min(), *members[np.argmin(spreads)], name, colour))
    shown = places if len(places) <= MANY else _without_overlap(places, points)
    for _, x, y, name, colour in shown:
        box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": colour, "alpha": 0.9}
        axes.text(x, y, name, ha="center", va="center", zorder=3, bbox=box, size=10 if shown is places else 8)
    if len(shown) < len(places):
        title += f"\n{len(shown)} of {len(places)} classes are named, those with near points first"
    axes.set(title=title, xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set(visible=True, color="0.8")
    return figure


def _without_overlap(places: Sequence[tuple[Any, ...]], points: np.ndarray) -> list[tuple[Any, ...]]:
    """The names that have space: of those that would overlap, the one whose points are nearest to each other."""
    # Inches of the axes by units of the points, which have the same scale in both directions.
    scale = min(np.array([WIDTH - 1.4, 5.1]) / np.maximum(np.ptp(points, axis=0), 1e-9))
    kept, boxes = [], []
    for place in sorted(places):
        _, x, y, name, _ = place
        box = x * scale, y * scale, 0.08 * columns(name) + 0.15, 0.26
        if len(kept) < MOST_NAMES and all(
            abs(box[0] - x) > (box[2] + w) / 2 or abs(box[1] - y) > box[3] for x, y, w, _ in boxes
        ):
            kept.append(place)
            boxes.append(box)
    return kept
