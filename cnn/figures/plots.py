"""Numbers -> matplotlib figures; the style of all figures, and their files.

Images and feature maps are in ``image_plots``, kernels in ``kernel_plots``. Figures use matplotlib's objects, not
pyplot: no display is needed, and no global state outlives a figure.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from cnn.figures.fonts import labels, use_fallbacks
from cnn.text import columns

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
    # A dollar in the name of a class or a file is no formula.
    "text.parse_math": False,
}
# "default" first, so that a user's matplotlibrc changes nothing.
styled = style.context(["default", _STYLE])

# Okabe and Ito's colours, distinct for the colour-blind: https://jfly.uni-koeln.de/color/
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"

# Width of a figure in inches, that of a slide.
WIDTH = 11.0

PANELS = {
    name: [(f"train_{name}", "training", "o-", BLUE), (f"val_{name}", "validation", "s-", VERMILLION)]
    for name in ("loss", "accuracy")
} | {
    "mean average precision": [
        ("val_map", "validation, IoU 0.5 to 0.95", "s-", VERMILLION),
        ("val_map_50", "validation, IoU 0.5", "^-", GREEN),
    ]
}
"""Panels of the learning curves: key in a row, label, line and colour of each curve."""

MANY = 25
"""Classes of which a figure has no space for each name and number."""


def check(name: str, array: np.ndarray, axes: Sequence[str]) -> None:
    """Raises ValueError unless the array has these axes, all of them non-empty."""
    if array.ndim != len(axes) or 0 in array.shape:
        raise ValueError(f"{name} must be [{','.join(axes)}] with no axis of length 0, not {list(array.shape)}")


@styled
def learning_curves(history: Sequence[Mapping[str, Any]], best_epoch: int) -> Figure:
    """Draws loss and accuracy by epoch, and mean average precision if there is one; with values at the best epoch.

    Args:
      history: a row per epoch with epoch, starting from 1, train_loss, train_accuracy, val_loss and val_accuracy; of a
        detector with val_map and val_map_50, too.
      best_epoch: the epoch with the kept parameters.

    Raises:
      ValueError: the best epoch is not in the history.
    """
    epochs = [row["epoch"] for row in history]
    if best_epoch not in epochs:
        raise ValueError(f"best_epoch is {best_epoch}, but must be an epoch of the history: {epochs}")
    best = history[epochs.index(best_epoch)]
    panels = [panel for panel in PANELS.items() if any(key in best for key, *_ in panel[1])]
    figure = Figure(figsize=(WIDTH, 5))
    for axes, (name, curves) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for key, label, look, colour in curves:
            values = [row[key] for row in history]
            axes.plot(epochs, values, look, color=colour, markersize=4, label=f"{label}: {best[key]:.4f}")
        axes.axvline(best_epoch, color=GREY, linestyle="--", zorder=1)
        title = f"At the best epoch, {best_epoch} (dashed)"
        axes.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2 if len(panels) < 3 else 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set(title=f"{name[0].upper()}{name[1:]} by epoch", xlabel="epoch", ylabel=name)
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


def _crowded(names: Sequence[str], limit: int) -> bool:
    """Whether names side by side, each as wide as the longest, are longer than a limit in columns."""
    return len(names) * (max(map(columns, names)) + 1) > limit


@styled
def units(values: np.ndarray, title: str, names: Sequence[str] | None = None) -> Figure:
    """Draws the activations [D] of a layer without pixels for one image, by the names of the units, if any.

    Raises:
      ValueError: the shape is wrong, or the number of names differs.
    """
    check("values", values, "D")
    figure = Figure(figsize=(WIDTH, 4))
    axes = figure.subplots()
    names = labels(names or ())
    if 0 < len(names) <= MANY:
        bars = axes.bar(range(len(values)), values, color=BLUE)
        axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=3, fontsize="small")
        # Side by side, names have 130 columns together.
        slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if _crowded(names, 130) else {}
        axes.set_xticks(range(len(values)), names, **slanted)
        axes.margins(y=0.1)
    else:
        # One patch for all units, as there may be thousands.
        axes.stairs(values, np.arange(len(values) + 1) - 0.5, fill=True, color=BLUE)
        axes.set(xlabel="unit", xlim=(-0.5, len(values) - 0.5))
        if names:
            highest = np.argsort(-values, kind="stable")[:5]
            text = "\n".join(f"{values[unit]:.2f}  unit {unit}: {names[unit]}" for unit in highest)
            axes.set_xlabel(f"unit; the highest are\n{text}")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(title=title, ylabel="activation")
    axes.grid(visible=False, axis="x")
    return figure


@styled
def png(figure: Figure) -> bytes:
    """Returns a figure as a PNG file; figures of the same arrays give the same bytes."""
    use_fallbacks(figure)
    file = io.BytesIO()
    # In place of matplotlib's version. By this name, a command knows the figures that it may draw again.
    with warnings.catch_warnings():
        # Boxes stand for what no installed font can draw, such as the name of a file.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format="png", metadata={"Software": "fashion-cnn"})
    return file.getvalue()
