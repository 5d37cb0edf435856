"""Training dynamics -> the map of easy, ambiguous and hard images, with pictures of each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cnn.figures import fonts
from cnn.figures.image_plots import PICTURE, TILE_NAME, draw_tiles, write_below
from cnn.figures.plots import BLUE, GREY, VERMILLION, WIDTH, check, styled

PICTURES = 12
"""Of each kind, in two rows."""

_COLOURS = {"easy": BLUE, "ambiguous": GREY, "hard": VERMILLION}


@styled
def cartography(
    mean: np.ndarray,
    spread: np.ndarray,
    correct: np.ndarray,
    pictures: Mapping[str, tuple[np.ndarray, Sequence[str]]],
) -> Figure:
    """Draws a point for each training image, its label's mean probability over its spread, and pictures of each kind.

    Args:
      mean: of the label's probability over the epochs, [N].
      spread: its standard deviation, [N].
      correct: share of the epochs in which the label was the prediction, [N].
      pictures: by kind ("easy", "ambiguous", "hard"), uint8 images [M, H, W, C] and the names of their labels.

    Raises:
      ValueError: a shape is wrong.
    """
    check("mean", mean, "N")
    figure = Figure(figsize=(WIDTH, 6.2))
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    left, right = halves
    axes = left.subplots()
    # The mean in each cell, as the points of all images would hide each other.
    cells = axes.hexbin(spread, mean, C=correct, gridsize=45, cmap="viridis", vmin=0, vmax=1, linewidths=0.1)
    axes.set(
        title=f"{len(mean):,} training images",
        xlabel="spread of the label's probability over the epochs",
        ylabel="mean probability of the label",
        xlim=(0, None),
        ylim=(0, 1),
    )
    left.colorbar(cells, ax=axes, orientation="horizontal", label="share of the epochs predicted as the label")
    for panel, (kind, (images, names)) in zip(
        np.ravel(right.subplots(len(pictures), 1)), pictures.items(), strict=True
    ):
        draw_tiles(panel, list(images[:PICTURES]), PICTURES // 2, 1.0, 0.35, **PICTURE)
        for tile, name in zip(panel.images, fonts.labels(list(names[:PICTURES]), TILE_NAME - 1), strict=True):
            write_below(panel, tile, name, fontsize=9)
        panel.set_title(kind, color=_COLOURS.get(kind, "black"), loc="left", fontweight="bold")
    return figure
