"""Images and feature maps -> matplotlib figures, in the style of ``cnn/figures/plots.py``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnn.figures import fonts
from cnn.figures.plots import BLUE, GREEN, GREY, VERMILLION, WIDTH, check, styled

# As in the chapter, dark on white; fixed limits, so that a pale image stays pale.
PICTURE: dict[str, Any] = {"cmap": "gray_r", "vmin": 0, "vmax": 255}

TILE_NAME = 12
"""Columns of the name of a class below an image among others."""

SHOWN = 10
"""Maximum number of probabilities beside an image."""


def _tile_size(across: float, image: np.ndarray) -> tuple[float, float]:
    """Returns the width and height of an image in a tile, in inches: at most twice as high as the tile is wide."""
    height, width = image.shape[:2]
    space = across - 0.1
    return (2 * space * width / height, 2 * space) if height > 2 * width else (space, space * height / width)


def draw_tiles(
    axes: Axes, images: Sequence[np.ndarray], columns: int, across: float, below: float, **shown: Any
) -> None:
    """Draws images [H, W] or [H, W, C] row by row into axes in inches, with space for text below each."""
    # One Axes for all images: one for each takes more than twice as long.
    width, height = _tile_size(across, images[0])
    down, indent = height + below, (across - 0.1 - width) / 2
    for i, image in enumerate(images):
        left, top = i % columns * across + indent, i // columns * down
        axes.imshow(image, extent=(left, left + width, top + height, top), **shown)
        axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="0.6", linewidth=0.5))
    axes.set(xlim=(-0.01, columns * across - 0.09), ylim=(-(-len(images) // columns) * down, -0.01))
    axes.set_axis_off()


def tiled_figure(
    images: Sequence[np.ndarray], title: str, columns: int, below: float, widest: float = 3, **shown: Any
) -> tuple[Figure, Axes]:
    """Draws images as above, each at most ``widest`` inches wide, as a figure of their size."""
    columns = min(columns, len(images))
    across = min(WIDTH / columns, widest)
    down = _tile_size(across, images[0])[1] + below
    # The title needs space, too.
    figure = Figure(figsize=(max(columns * across, 6), -(-len(images) // columns) * down + 1))
    axes = figure.subplots()
    draw_tiles(axes, images, columns, across, below, **shown)
    axes.set_title(title)
    return figure, axes


def write_below(axes: Axes, tile: Any, text: str, points: float = 4, **options: Any) -> None:
    """Writes a line of text, ``points`` below a tile."""
    left, right, bottom, _ = tile.get_extent()
    place: Any = {"xytext": (0, -points), "textcoords": "offset points", "ha": "center", "va": "top", **options}
    axes.annotate(text, xy=((left + right) / 2, bottom), **place)


def draw_color_bar(figure: Figure, axes: Any, mappable: Any, **options: Any) -> None:
    """Draws the colour scale of the images below them, up to 4 inches long; by default labelled as weights."""
    shrink = min(4 / figure.get_figwidth(), 1)
    options = {"label": "weight", "extend": "both", "pad": 0.02, **options}
    figure.colorbar(mappable, ax=axes, orientation="horizontal", shrink=shrink, aspect=100 * shrink, **options)


@styled
def sample(
    images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], korean_names: Sequence[str] | None = None
) -> Figure:
    """Draws images with their class names below, also in Korean if an installed font has the characters.

    Args:
      images: uint8 [N, H, W, 1] or [N, H, W, 3].
      labels: integers [N].
      class_names: name of each class.
      korean_names: name of each class in Korean.

    Raises:
      ValueError: there are no images, their shape is wrong, or their number differs from that of the labels.
    """
    check("images", images, "NHWC")
    korean = "".join(korean_names or ())
    font = next((Path(path) for path in fonts.font_paths() if fonts.draws(path, korean)), None) if korean else None
    figure, axes = tiled_figure(list(images), "Images and their classes", 10, 0.5 if font else 0.3, **PICTURE)
    class_names = fonts.labels(class_names, TILE_NAME)
    for tile, label in zip(axes.images, labels, strict=True):
        write_below(axes, tile, class_names[int(label)])
        if font and korean_names:
            write_below(axes, tile, korean_names[int(label)], 19, font=font, color=BLUE)
    return figure


@styled
def top_losses(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], title: str
) -> Figure:
    """Draws images with their class, predicted class and its probability, and loss below, as fastai does.

    Args:
      images: uint8 [N, H, W, 1] or [N, H, W, 3], in the order of display.
      labels: true classes, integers [N].
      probabilities: [N, K].
      class_names: names of the K classes.
      title: title of the figure.

    Raises:
      ValueError: a shape is wrong.
    """
    check("images", images, "NHWC")
    check("probabilities", probabilities, "NK")
    figure, axes = tiled_figure(list(images), title, 8, 0.75, **PICTURE)
    class_names = fonts.labels(class_names, TILE_NAME - 1)
    for tile, label, values in zip(axes.images, labels, probabilities, strict=True):
        predicted = int(values.argmax())
        loss = np.log(1 / max(values[label], np.finfo(np.float32).tiny))
        lines = (
            (class_names[int(label)], GREEN),
            (f"{class_names[predicted]} {values[predicted]:.1%}", GREEN if predicted == label else VERMILLION),
            (f"loss {loss:.2f}", "0.4"),
        )
        for number, (text, colour) in enumerate(lines):
            write_below(axes, tile, text, 4 + 14 * number, color=colour)
    return figure


@styled
def neighbours(images: np.ndarray, lines: Sequence[Sequence[str]], title: str) -> Figure:
    """Draws an image and those that are nearest to it, with lines of text below each.

    Args:
      images: uint8 [N, H, W, 1] or [N, H, W, 3]: the image, then its neighbours.
      lines: of text, for each image.
      title: title of the figure.

    Raises:
      ValueError: there are no images, their shape is wrong, or their number differs from that of the texts.
    """
    check("images", images, "NHWC")
    below = max(map(len, lines))
    figure, axes = tiled_figure(list(images), title, len(images), 0.15 + 0.2 * below, **PICTURE)
    for tile, texts, colour in zip(axes.images, lines, [BLUE, *["black"] * (len(images) - 1)], strict=True):
        for number, text in enumerate(fonts.labels(texts, TILE_NAME + 4)):
            write_below(axes, tile, text, 4 + 14 * number, color="0.4" if number else colour)
    return figure


@styled
def image(image: np.ndarray, title: str) -> Figure:
    """Draws one large image, uint8 [H, W, 1] or [H, W, 3].

    Raises:
      ValueError: the shape is wrong.
    """
    check("image", image, "HWC")
    figure = Figure(figsize=(5.5, 5.5))
    axes = figure.subplots()
    axes.imshow(image, **PICTURE)
    axes.set_title(title)
    axes.grid(False)
    axes.spines[:].set_visible(True)
    return figure


@styled
def feature_maps(maps: np.ndarray, title: str, columns: int | None = None) -> Figure:
    """Draws the feature maps [H, W, C] of a layer for one image, all on one scale that includes zero.

    Raises:
      ValueError: the shape is wrong.
    """
    check("maps", maps, "HWC")
    count = maps.shape[-1]
    # A slide is wider than high.
    columns = columns or (8 if count <= 32 else 16 if count <= 128 else 32)
    # The scale includes zero and is never empty, or matplotlib would extend it to both sides.
    shown = {"cmap": "viridis", "vmin": min(maps.min(), 0), "vmax": max(maps.max(), 0) if maps.any() else 1}
    figure, axes = tiled_figure(list(np.moveaxis(maps, -1, 0)), title, columns, 0.1, **shown)
    draw_color_bar(figure, axes, axes.images[0], label="activation, on one scale for all maps", extend="neither")
    return figure


@styled
def probabilities(
    images: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Draws images, each next to its class probabilities, with the true and the predicted class marked.

    Of more than ``SHOWN`` classes, the most probable ones are shown, and the true one.

    Args:
      images: uint8 [N, H, W, 1] or [N, H, W, 3].
      probabilities: [N, K].
      labels: true classes, integers [N].
      class_names: names of the K classes.

    Raises:
      ValueError: a shape is wrong.
    """
    check("images", images, "NHWC")
    check("probabilities", probabilities, "NK")
    if len(class_names) != probabilities.shape[1]:
        raise ValueError(f"class_names must be labels of {probabilities.shape[1]} classes, not {len(class_names)}")
    class_names = fonts.labels(class_names, 20)
    pairs = min(2, len(images))
    rows = -(-len(images) // pairs)
    figure = Figure(figsize=(WIDTH / 2 * pairs, 2.7 * rows))
    grid = figure.add_gridspec(rows, 2 * pairs, width_ratios=[2, 3] * pairs)
    for i, (picture, values, label) in enumerate(zip(images, probabilities, labels, strict=True)):
        true, predicted = int(label), int(values.argmax())
        left, right = (figure.add_subplot(grid[divmod(2 * i + side, 2 * pairs)]) for side in (0, 1))
        left.imshow(picture, **PICTURE)
        left.set(title=f"true: {class_names[true]}", xticks=[], yticks=[], anchor="N")
        left.spines[:].set(visible=True, color="0.6")
        shown = _most_probable(values, true)
        marks = {predicted: f"predicted: {values[predicted]:.1%}"}
        marks[true] = f"{'correct' if true == predicted else 'true'}: {values[true]:.1%}"
        colours = {predicted: VERMILLION, true: GREEN}
        bars = right.barh(range(len(shown)), values[shown], color=[colours.get(label, GREY) for label in shown])
        right.bar_label(bars, [marks.get(label, "") for label in shown], padding=3, fontsize="small")
        right.set_yticks(range(len(shown)), [class_names[label] for label in shown], fontsize="small")
        right.set_title(f"predicted: {class_names[predicted]}", loc="left")
        # Space for the marks to the right of 1, where the axis itself ends.
        right.set(xticks=(0, 0.5, 1), xlim=(0, 1.6), ylim=(len(shown) - 0.5, -0.5))
        right.set_xlabel("probability", x=0.5 / 1.6)
        right.spines["bottom"].set_bounds(0, 1)
        right.grid(visible=False, axis="y")
    return figure


def _most_probable(values: np.ndarray, true: int) -> list[int]:
    """The labels to show, in their order: all, or of more than ``SHOWN`` the most probable ones first, and the true."""
    if len(values) <= SHOWN:
        return list(range(len(values)))
    highest = np.argsort(-values, kind="stable")[:SHOWN].tolist()
    return highest if true in highest else [*highest[:-1], true]
