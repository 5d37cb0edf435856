"""Numbers -> matplotlib figures; the style of all figures, and how they are saved.

Images, feature maps and kernels are in ``image_plots``. Figures use matplotlib's objects, not pyplot: no display is
needed, and no global state outlives a figure.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from cnn.training.summary import LayerRow

_STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "savefig.dpi": 200,
}
# "default" first, so that a user's matplotlibrc changes nothing.
styled = style.context(["default", _STYLE])

# Okabe and Ito's colours, distinct for the colour-blind: https://jfly.uni-koeln.de/color/
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"

# Width of a figure in inches, that of a slide.
WIDTH = 11.0

# P. Tol's muted colours, distinct for the colour-blind, with a darker grey: https://sronpersonalpages.nl/~pault/
CLASS_COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499"),
    "#777777",
)


def check(name: str, array: np.ndarray, axes: Sequence[str]) -> None:
    """Raises ValueError unless the array has these axes, all of them non-empty."""
    if array.ndim != len(axes) or 0 in array.shape:
        raise ValueError(f"{name} must be [{','.join(axes)}] with no axis of length 0, not {list(array.shape)}")


@styled
def learning_curves(history: Sequence[Mapping[str, Any]], best_epoch: int) -> Figure:
    """Draws loss and accuracy by epoch, with their values at the best epoch.

    Args:
      history: a row per epoch with epoch, starting from 1, train_loss, train_accuracy, val_loss and val_accuracy.
      best_epoch: the epoch with the kept parameters.

    Raises:
      ValueError: the best epoch is not in the history.
    """
    epochs = [row["epoch"] for row in history]
    if best_epoch not in epochs:
        raise ValueError(f"best_epoch is {best_epoch}, but must be an epoch of the history: {epochs}")
    best = history[epochs.index(best_epoch)]
    figure = Figure(figsize=(WIDTH, 5))
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, split, look in (("train", "training", "o-"), ("val", "validation", "s-")):
            key, colour = f"{key}_{name}", BLUE if key == "train" else VERMILLION
            values = [row[key] for row in history]
            axes.plot(epochs, values, look, color=colour, markersize=4, label=f"{split}: {best[key]:.4f}")
        axes.axvline(best_epoch, color=GREY, linestyle="--", zorder=1)
        title = f"At the best epoch, {best_epoch} (dashed)"
        axes.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set(title=f"{name.capitalize()} by epoch", xlabel="epoch", ylabel=name)
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    return figure


@styled
def weights_histogram(trained: np.ndarray, untrained: np.ndarray, name: str, origin: str = "untrained") -> Figure:
    """Draws histograms of the values of a layer's kernel, of any shape, untrained and trained.

    Args:
      trained: the kernel after training.
      untrained: the kernel before training.
      name: name of the layer.
      origin: label of the kernel before training.

    Raises:
      ValueError: a kernel is empty or not finite.
    """
    figure = Figure(figsize=(WIDTH, 4.5))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    bins = np.histogram_bin_edges(np.concatenate([trained.ravel(), untrained.ravel()]), bins=60)
    kernels = ((origin, untrained, VERMILLION), ("trained", trained, BLUE))
    for axes, (state, kernel, colour) in zip(panels, kernels, strict=True):
        check(state, kernel.ravel(), "N")
        axes.hist(kernel.ravel(), bins=bins, color=colour, edgecolor="white", linewidth=0.5)
        moments = f"μ = {kernel.mean():.4f}, σ = {kernel.std():.4f}"
        axes.set(title=f"The {kernel.size:,} weights of {name}, {state}\n{moments}", xlabel="weight", ylabel="count")
        axes.tick_params(labelleft=True)
    return figure


@styled
def model_diagram(rows: "Sequence[LayerRow]") -> Figure:
    """Draws a network's layers in the order of ``rows`` with their shapes, as Keras' ``plot_model`` does.

    Raises:
      ValueError: there are no layers.
    """
    if not rows:
        raise ValueError("rows must have at least one layer")
    figure = Figure(figsize=(6, len(rows)))
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.35, 0))
    axes.set_title(f"Layers: {len(rows)}, parameters: {sum(row.parameters for row in rows):,}", pad=12)
    axes.set_axis_off()
    for i, row in enumerate(rows):
        head = f"{row.name} ({row.kind})", f"{row.parameters:,} parameters" if row.parameters else ""
        cells = [head, (f"input: {row.input_shape}", f"output: {row.output_shape}")]
        colours = [["#CCE3F0"] * 2, ["white"] * 2]
        bottom = axes.transLimits.transform((0, i + 0.65))[1]
        axes.table(cells, colours, "center", bbox=Bbox.from_bounds(0, bottom, 1, 0.65 / (len(rows) - 0.35)))
        if i:
            arrow = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (0.5, i), (0.5, i - 0.35), arrowprops=arrow)
    return figure


@styled
def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws how many images of each class (row) are predicted as each class (column); only errors are coloured.

    Args:
      counts: integers [K, K].
      names: names of the classes, [K].

    Raises:
      ValueError: the shape is wrong.
    """
    check("counts", counts, ("K", "K"))
    figure = Figure(figsize=(0.75 * len(names) + 2.5, 0.6 * len(names) + 2))
    axes = figure.subplots()
    # Correct predictions dominate, and would leave no colours for the others.
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
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
    errors, total = int(wrong.sum()), int(counts.sum())
    axes.set(
        xlabel="predicted class",
        ylabel="true class",
        title=f"{errors:,} of {total:,} images are predicted as another class",
    )
    axes.grid(False)
    axes.tick_params(length=0)
    return figure


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
def units(values: np.ndarray, title: str, names: Sequence[str] | None = None) -> Figure:
    """Draws the activations [D] of a layer without pixels for one image, by the names of the units, if any.

    Raises:
      ValueError: the shape is wrong, or the number of names differs.
    """
    check("values", values, "D")
    figure = Figure(figsize=(WIDTH, 4))
    axes = figure.subplots()
    if names:
        bars = axes.bar(range(len(values)), values, color=BLUE)
        axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=3, fontsize="small")
        axes.set_xticks(range(len(values)), names)
        axes.margins(y=0.1)
    else:
        # One patch for all units, as there may be thousands.
        axes.stairs(values, np.arange(len(values) + 1) - 0.5, fill=True, color=BLUE)
        axes.set(xlabel="unit", xlim=(-0.5, len(values) - 0.5))
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(title=title, ylabel="activation")
    axes.grid(visible=False, axis="x")
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
    for label, name in enumerate(names):
        members, colour = points[labels == label], CLASS_COLOURS[label % len(CLASS_COLOURS)]
        if len(members):
            axes.scatter(*members.T, s=16, color=colour, alpha=0.8, linewidths=0)
            # The mean of two clusters would lie between them; a quarter of the points are nearest to this one.
            distances = np.linalg.norm(members[:, None] - members, axis=-1)
            x, y = members[np.argmin(np.quantile(distances, 0.25, axis=1))]
            box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": colour, "alpha": 0.9}
            axes.text(x, y, name, ha="center", va="center", zorder=3, bbox=box)
    axes.set(title=title, xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set(visible=True, color="0.8")
    return figure


@styled
def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically; figures of the same arrays give the same bytes.

    Raises:
      OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # None keeps matplotlib from writing its version into the file.
        figure.savefig(temporary, format="png", metadata={"Software": None})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
