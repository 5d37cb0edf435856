"""Kernels and other weights -> matplotlib figures: tiles, as of images, in colours that show the sign."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnn.figures.image_plots import draw_color_bar, draw_tiles, tiled_figure, write_below
from cnn.figures.plots import WIDTH, check, styled

HIGHEST_LIMIT = 0.5
"""The weight with the strongest colour in the chapter's figures of kernels."""


def weight_limit(*kernels: np.ndarray) -> float:
    """Returns the weight with the strongest colour on a common scale for these kernels.

    The largest 2 % of the weights are cut off, so that a few strong weights do not leave the others pale.
    """
    most = max(float(np.quantile(np.abs(np.concatenate([kernel.ravel() for kernel in kernels])), 0.98)), 1e-6)
    digit = 10.0 ** np.floor(np.log10(most))
    return min(float(np.ceil(most / digit) * digit), HIGHEST_LIMIT)


def _diverging(limit: float) -> dict[str, Any]:
    """The colour scale of weights, which diverges at zero: it shows the sign, which the chapter's viridis hides."""
    return {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}


@styled
def kernels(kernel: np.ndarray, title: str, columns: int = 16, limit: float = HIGHEST_LIMIT) -> Figure:
    """Draws the weights of each kernel of a convolution for the first input channel.

    Args:
      kernel: [H, W, C_in, C_out], no axis empty.
      title: title of the figure.
      columns: number of kernels in a row.
      limit: the weight with the strongest colour, such as ``weight_limit`` of all kernels to compare.

    Raises:
      ValueError: the shape is wrong.
    """
    check("kernel", kernel, ("H", "W", "C_in", "C_out"))
    figure, axes = tiled_figure(list(np.moveaxis(kernel[:, :, 0], -1, 0)), title, columns, 0.1, **_diverging(limit))
    draw_color_bar(figure, axes, axes.images[0])
    return figure


@styled
def kernels_compared(untrained: np.ndarray, trained: np.ndarray, title: str, names: Sequence[str]) -> Figure:
    """Draws kernels before and after training, side by side on one scale.

    Rows are up to 8 input channels, columns up to 8 kernels; with one input channel, up to 32 kernels are shown.
    Kernels of one pixel are shown as one matrix.

    Args:
      untrained: [H, W, C_in, C_out].
      trained: as ``untrained``.
      title: title of the figure; the number of kernels is added.
      names: titles of the two panels.

    Raises:
      ValueError: a shape is wrong.
    """
    for name, kernel in (("untrained", untrained), ("trained", trained)):
        check(name, kernel, ("H", "W", "C_in", "C_out"))
    height, width, inputs, outputs = trained.shape
    if (height, width) == (1, 1):
        return _matrices((untrained[0, 0], trained[0, 0]), title, names)
    rows = min(inputs, 8)
    several = min(outputs, 32 if rows == 1 else 8)
    # Rows as full as possible, of at most 8.
    columns = -(-several // -(-several // 8))
    shown = [kernel[:, :, :rows, :several] for kernel in (untrained, trained)]
    scale = _diverging(weight_limit(*shown))
    figure = Figure(
        figsize=(WIDTH, (5.3 * rows * -(-several // columns) / columns) * min(height, 2 * width) / width + 1.4)
    )
    part = f"the first {several} of {outputs} kernels" if several < outputs else f"its {outputs} kernels"
    from_inputs = f", by the first {rows} of {inputs} input channels" if rows < inputs else ", by input channels"
    figure.suptitle(f"{title}: {part}{from_inputs if rows > 1 else ''}")
    panels = figure.subplots(1, 2, gridspec_kw={"wspace": 0.06})
    for axes, kernel, name in zip(panels, shown, names, strict=True):
        tiles = kernel.transpose(2, 3, 0, 1).reshape(-1, height, width)
        draw_tiles(axes, list(tiles), columns, WIDTH / 2 / columns, 0.1, **scale)
        axes.set_title(name)
        if rows > 1:
            axes.text(-0.02, 0.5, "input channel", rotation=90, ha="right", va="center", transform=axes.transAxes)
            axes.text(0.5, -0.02, "kernel", ha="center", va="top", transform=axes.transAxes)
    draw_color_bar(figure, panels, panels[0].images[0])
    return figure


def _matrices(matrices: Sequence[np.ndarray], title: str, names: Sequence[str]) -> Figure:
    """Draws matrices [inputs, units] one below the other, the longer side horizontal."""
    inputs, outputs = matrices[0].shape
    figure = Figure(figsize=(WIDTH, 6))
    figure.suptitle(f"{title}: its weights from {inputs} inputs to {outputs} units")
    panels = figure.subplots(2, 1)
    labels = {"xlabel": "input", "ylabel": "unit"} if inputs > outputs else {"xlabel": "unit", "ylabel": "input"}
    for axes, matrix, name in zip(panels, matrices, names, strict=True):
        axes.imshow(matrix.T if inputs > outputs else matrix, aspect="auto", **_diverging(weight_limit(*matrices)))
        axes.set(title=name, **labels)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(False)
    draw_color_bar(figure, panels, panels[0].images[0])
    return figure


@styled
def kernels_by_epoch(kernels: np.ndarray, epochs: Sequence[int], title: str) -> Figure:
    """Draws kernels by epoch on one scale: a row per kernel, a column per epoch.

    Args:
      kernels: [E, H, W, N].
      epochs: numbers of the epochs, [E].
      title: title of the figure.

    Raises:
      ValueError: the shape is wrong.
    """
    check("kernels", kernels, ("E", "H", "W", "N"))
    tiles = kernels.transpose(3, 0, 1, 2).reshape(-1, *kernels.shape[1:3])
    figure, axes = tiled_figure(list(tiles), title, len(kernels), 0.1, 0.7, **_diverging(weight_limit(kernels)))
    for tile, epoch in zip(axes.images[-len(epochs) :], epochs, strict=True):
        write_below(axes, tile, str(epoch))
    write_below(axes, axes.images[-(len(epochs) // 2 + 1)], "epoch", 19)
    draw_color_bar(figure, axes, axes.images[0])
    return figure
