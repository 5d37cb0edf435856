"""Explanations of an image and attention -> matplotlib figures, in the style of ``cnn/figures/plots.py``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cnn.figures.image_plots import PICTURE, draw_color_bar, draw_tiles
from cnn.figures.plots import BLUE, GREEN, GREY, VERMILLION, WIDTH, check, styled

ORANGE = "#E69F00"

_METHODS: dict[str, tuple[bool, str, str]] = {
    "Grad-CAM": (False, "evidence for the class", VERMILLION),
    "Integrated gradients": (True, "contribution to the logit", BLUE),
    "SmoothGrad": (False, "magnitude of the gradient", GREEN),
    "Occlusion": (True, "fall of the probability", ORANGE),
}
"""Of each method whether its values have a sign, what they are, and the colour of its curves."""

MOST_BLOCKS, MOST_HEADS = 12, 12
"""Maximum numbers of rows and columns of maps of attention."""


@styled
def explanations(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    curves: Mapping[str, tuple[np.ndarray, ...]],
    areas: Mapping[str, tuple[float, ...]],
    layer: str,
    title: str,
) -> Figure:
    """Draws an image, what explains its class by several methods, and the curves that say which one to believe.

    Args:
      image: uint8 [H, W, C].
      maps: by method, how much each pixel matters, [H, W].
      curves: by method, and for a random order, the class's probability by the share of deleted and inserted pixels.
      areas: the areas under both.
      layer: of Grad-CAM.
      title: title of the figure.

    Raises:
      ValueError: a shape is wrong.
    """
    check("image", image, "HWC")
    figure = Figure(figsize=(WIDTH, 6.9))
    # Space below the title.
    layout: Any = figure.get_layout_engine()
    layout.set(h_pad=0.1)
    rows: Any = figure.subfigures(2, 1, height_ratios=(1, 1.2))
    pictures, charts = rows
    pictures.suptitle(title)
    first, *others = pictures.subplots(1, len(maps) + 1)
    first.set_title("The image")
    for axes in (first, *others):
        axes.imshow(image, extent=_extent(image), **PICTURE)
        axes.set_axis_off()
    for axes, (name, values) in zip(others, maps.items(), strict=True):
        check(name, values, "HW")
        signed, label, _ = _METHODS[name]
        most = np.abs(values).max() or 1
        scale = {"cmap": "RdBu_r", "vmin": -most} if signed else {"cmap": "inferno", "alpha": 0.65, "vmin": 0}
        _add_bar(pictures, axes, axes.imshow(values, extent=_extent(image), vmax=most, **scale), label)
        axes.set_title(f"{name} of {layer}" if name == "Grad-CAM" else name)
    # Unseen, so that the image is as large as the maps and beside them.
    bar = _add_bar(pictures, first, first.images[0], " ")
    bar.solids.set_alpha(0)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors="none")
    panels = charts.subplots(1, 2, sharey=True)
    texts = ("Deletion: low is good", "pixels made black"), ("Insertion: high is good", "pixels inserted into black")
    for number, (axes, (head, label)) in enumerate(zip(panels, texts, strict=True)):
        for name, pair in curves.items():
            look = {"color": _METHODS[name][2]} if name in _METHODS else {"color": GREY, "linestyle": "--"}
            shares = np.linspace(0, 1, len(pair[number]))
            axes.plot(shares, pair[number], label=f"{name}: {areas[name][number]:.2f}", **look)
        axes.set(title=head, xlabel=f"share of the {label}, most important first", ylim=(-0.02, 1.02), xlim=(0, 1))
        # Beside the curves, which may be anywhere.
        axes.legend(title="area", loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    panels[0].set_ylabel("probability of the class")
    return figure


def _add_bar(figure: Any, axes: Any, mappable: Any, label: str) -> Any:
    place: Any = {"ax": axes, "orientation": "horizontal", "shrink": 0.85, "pad": 0.03}
    bar = figure.colorbar(mappable, label=label, format="%.2g", **place)
    bar.ax.locator_params(nbins=3)
    return bar


def _extent(image: np.ndarray) -> tuple[float, float, float, float]:
    return (0, image.shape[1], image.shape[0], 0)


@styled
def attention(image: np.ndarray, received: Mapping[str, np.ndarray], patch: int, title: str) -> Figure:
    """Draws the attention that each patch of an image receives, by block and head, on one scale.

    Args:
      image: uint8 [H, W, C].
      received: by block, [heads, P, Q], for P x Q patches.
      patch: side of a patch, in pixels.
      title: title of the figure.

    Raises:
      ValueError: a shape is wrong.
    """
    check("image", image, "HWC")
    blocks = list(received)
    shown = [
        blocks[index] for index in np.linspace(0, len(blocks) - 1, min(len(blocks), MOST_BLOCKS)).round().astype(int)
    ]
    heads = min(len(received[shown[0]]), MOST_HEADS)
    for name, maps in received.items():
        check(name, maps, "APQ")
    maps = [received[block][head] for block in shown for head in range(heads)]
    # Single patches that receive far more than all others would leave no colours for those.
    scale = ScalarMappable(Normalize(0, float(np.quantile(maps, 0.98))), "YlOrRd")
    across = min((WIDTH - 2) / heads, 1.2)
    figure = Figure(figsize=(heads * across + 2, len(shown) * across * image.shape[0] / image.shape[1] + 1.6))
    figure.suptitle(title)
    left, axes = figure.subplots(1, 2, width_ratios=(1.2, heads * across))
    left.imshow(image, **PICTURE)
    left.set_title("The image")
    left.set_axis_off()
    left.set_anchor("N")
    tiles: list[Any] = [_overlay(image, scale.to_rgba(values)[..., :3], patch) for values in maps]
    draw_tiles(axes, tiles, heads, across, 0.1)
    axes.set_anchor("N")
    for number, tile in enumerate(axes.images):
        x0, x1, y1, y0 = tile.get_extent()
        if number < heads:
            axes.text((x0 + x1) / 2, y0 - 0.05, f"head {number + 1}", ha="center", va="bottom")
        if number % heads == 0:
            axes.text(x0 - 0.05, (y0 + y1) / 2, shown[number // heads], ha="right", va="center", rotation=90)
    draw_color_bar(figure, axes, scale, label=f"attention to a patch; 1 / {maps[0].size} if equal", extend="max")
    return figure


def _overlay(image: np.ndarray, colours_PxQx3: np.ndarray, patch: int) -> np.ndarray:
    """The image, pale grey, times the colours of its patches, float [H, W, 3]; what is in no patch has none."""
    grey = 1 - image / 255 if image.shape[-1] == 1 else image.mean(-1, keepdims=True) / 255
    picture = np.broadcast_to(0.45 + 0.55 * grey, (*image.shape[:2], 3)).copy()
    colours = colours_PxQx3.repeat(patch, 0).repeat(patch, 1)
    picture[: len(colours), : colours.shape[1]] *= colours
    return picture
