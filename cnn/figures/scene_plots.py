"""Scenes, boxes and objectness -> matplotlib figures, in the style of ``cnn/figures/plots.py``.

The numbers of detections are in ``detection_plots``.
Boxes are ``x_min, y_min, x_max, y_max`` in pixels; x_max and y_max are the edges after the last pixel. Truth has
a row for each true box with its class last, -1 for padding. Detections are any object with the fields ``boxes``
[N, D, 4], ``scores`` [N, D], the highest first, 0 for padding, and ``classes`` [N, D].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnn.figures.fonts import labels as class_labels
from cnn.figures.image_plots import PICTURE, TILE_NAME, draw_color_bar, draw_tiles, tiled_figure, write_below
from cnn.figures.plots import GREEN, VERMILLION, WIDTH, check, styled
from cnn.text import columns

TRUE: dict[str, Any] = {"edgecolor": GREEN, "linestyle": (0, (4, 2)), "linewidth": 1.3, "zorder": 2}
PREDICTED: dict[str, Any] = {"edgecolor": VERMILLION, "linewidth": 1.6}
"""Dashed above solid, so that equal boxes are both seen, and no colour is needed to tell them apart."""

LOWEST = 0.3
"""Score of a detection below which its box is not drawn."""

IN_A_ROW = 8
"""Maximum number of mistakes of a kind."""

ACROSS = WIDTH / IN_A_ROW
"""Inches from one of them to the next."""

POINTS = 8
"""Size of the names at boxes."""


@styled
def scenes(
    images: np.ndarray,
    truth: np.ndarray | None,
    detections: Any,
    names: Sequence[str],
    title: str,
    threshold: float = LOWEST,
) -> Figure:
    """Draws images with the true boxes, and the predicted ones with their classes and scores.

    Args:
      images: uint8 [N, H, W, 1] or [N, H, W, 3].
      truth: true boxes and their classes, [N, M, 5]; M may be 0. None for the predicted boxes alone.
      detections: those of the images; None for the true boxes alone, which are then named.
      names: of the classes.
      title: title of the figure.
      threshold: minimum score of a box that is drawn.

    Raises:
      ValueError: a shape is wrong, or the numbers of images differ.
    """
    check("images", images, "NHWC")
    figure, axes = tiled_figure(list(images), title, 4, 0.3, **PICTURE)
    axes.set_anchor("N")
    figure.set_figheight(figure.get_figheight() - 0.2)
    names = class_labels(names, TILE_NAME)
    true_rows = np.zeros((len(images), 0, 5)) if truth is None else truth
    tiles = zip(axes.images, list(axes.patches), images, true_rows, strict=True)
    for number, (tile, frame, image, rows) in enumerate(tiles):
        rows = _true_rows(rows)
        true = _boxes_in_tile(rows[:, :4], image, tile)
        for box in true:
            _draw_box(axes, frame, box, **TRUE)
        captions = [] if truth is None else [f"{len(true) or 'no'} object{'' if len(true) == 1 else 's'}"]
        if detections is None:
            _name_boxes(axes, frame, true, [names[int(label)] for label in rows[:, 4]], GREEN)
        else:
            scores = detections.scores[number]
            kept = np.flatnonzero((scores > 0) & (scores >= threshold))
            predicted = _boxes_in_tile(detections.boxes[number][kept], image, tile)
            for box in predicted:
                _draw_box(axes, frame, box, **PREDICTED)
            texts = [f"{names[detections.classes[number][index]]} {scores[index]:.2f}" for index in kept]
            _name_boxes(axes, frame, predicted, texts, VERMILLION)
            captions.append(f"{len(kept) or 'none'} predicted")
        write_below(axes, tile, ", ".join(captions), color="0.4")
    boxes = {} if truth is None else {"true box": TRUE}
    if detections is not None:
        boxes[f"predicted box, with class and score (at least {threshold:.2g})"] = PREDICTED
    _draw_legend(figure, boxes)
    return figure


def _draw_legend(figure: Figure, boxes: Mapping[str, dict[str, Any]]) -> None:
    entries = [Rectangle((0, 0), 1, 1, fill=False, label=label, **look) for label, look in boxes.items()]
    figure.legend(handles=entries, loc="outside lower center", ncols=2)


def _true_rows(rows: np.ndarray) -> np.ndarray:
    return rows[rows[:, 4] >= 0]


def _boxes_in_tile(boxes: np.ndarray, image: np.ndarray, tile: Any) -> np.ndarray:
    """Boxes [N, 4] in pixels of an image, in inches of the axes in which its tile is."""
    left, right, _, top = tile.get_extent()
    scale = (right - left) / image.shape[1]
    return np.asarray(boxes, np.float64).reshape(-1, 4) * scale + (left, top, left, top)


def _draw_box(axes: Axes, frame: Any, box: np.ndarray, **look: Any) -> None:
    left, top, right, bottom = box
    patch = axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **look))
    # A box may end beyond its image, where the next one is.
    patch.set_clip_path(frame)


def _name_boxes(axes: Axes, frame: Any, boxes: np.ndarray, texts: Sequence[str], colour: str) -> None:
    """Writes a text at each box, within its frame, where it hides the fewest other texts."""
    left, top, right, bottom = *frame.get_xy(), frame.get_x() + frame.get_width(), frame.get_y() + frame.get_height()
    taken: list[tuple[float, float, float, float]] = []
    for (x0, y0, x1, y1), text in zip(boxes, texts, strict=True):
        # Inches; the mean letter is 0.62 of its size wide.
        width, height = (0.62 * columns(text) + 0.6) * POINTS / 72, 1.65 * POINTS / 72
        corners = [(x, y) for y in (y0 - height, y1, y0, y1 - height) for x in (x0, x1 - width)]
        # Within the frame; of a text that is wider, its beginning.
        corners = [(max(min(x, right - width), left), max(min(y, bottom - height), top)) for x, y in corners]
        places = [(x, y, x + width, y + height) for x, y in corners]
        place = min(places, key=lambda place: sum(_overlap(place, other) for other in taken))
        taken.append(place)
        box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": colour, "linewidth": 0.8}
        written = axes.text(
            place[0] + 0.2 * POINTS / 72, (place[1] + place[3]) / 2, text, size=POINTS, va="center", bbox=box, zorder=4
        )
        written.set(clip_on=True)
        written.set_clip_path(frame)


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """The area that two boxes share."""
    width, height = (min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis]) for axis in (0, 1))
    return max(width, 0) * max(height, 0)


@styled
def objectness(images: np.ndarray, maps: np.ndarray, title: str) -> Figure:
    """Draws images, and below or beside each how sure the network is that an object is centred there, over the image.

    Args:
      images: uint8 [N, H, W, 1] or [N, H, W, 3].
      maps: from 0 to 1, [N, P, Q], one value a cell of the grid.
      title: title of the figure.

    Raises:
      ValueError: a shape is wrong, or the numbers differ.
    """
    check("images", images, "NHWC")
    check("maps", maps, "NPQ")
    if len(maps) != len(images):
        raise ValueError(f"maps must be those of {len(images)} images, not of {len(maps)}")
    count, columns = len(images), min(len(images), 4)
    starts = range(0, count, columns)
    # Number of the image, and whether its map lies over it.
    places = [(start + column, over) for start in starts for over in (False, True) for column in range(columns)]
    if count < 3:
        # Side by side, as a slide is wider than high.
        places, columns = sorted(places), 2 * count
    tiles = [images[number % count] for number, _ in places]
    figure, axes = tiled_figure(tiles, title, columns, 0.1, **PICTURE)
    scale: dict[str, Any] = {"cmap": "Reds", "vmin": 0, "vmax": 1, "alpha": 0.65}
    for (number, over), tile, frame in zip(places, list(axes.images), list(axes.patches), strict=True):
        if number >= count:
            # The last row is not full.
            tile.set_visible(False)
            frame.set_visible(False)
        elif over:
            axes.imshow(maps[number], extent=tile.get_extent(), **scale)
    draw_color_bar(figure, axes, axes.images[-1], label="objectness of a cell", extend="neither")
    return figure


@styled
def mistakes(
    images: np.ndarray,
    truth: np.ndarray,
    detections: Any,
    missed: np.ndarray,
    unfounded: np.ndarray,
    names: Sequence[str],
    title: str,
) -> Figure:
    """Draws the surroundings of objects that were missed, and of boxes where no object is, up to 8 of each.

    Below a missed object is also what is seen there: of the boxes with an IoU of at least 0.5, that of highest score.

    Args:
      images: uint8 [N, H, W, 1] or [N, H, W, 3].
      truth: true boxes and their classes, [N, M, 5].
      detections: those of the images, with any score.
      missed: number of the image and row of the truth of each missed object, [A, 2], in the order of display.
      unfounded: number of the image and index of each detection where no object is, [E, 2].
      names: of the classes.
      title: title of the figure.

    Raises:
      ValueError: a shape is wrong.
    """
    check("images", images, "NHWC")
    names = class_labels(names, TILE_NAME)
    lost, found = [], []
    for number, row in missed[:IN_A_ROW]:
        box, label = truth[number, row, :4], int(truth[number, row, 4])
        lost.append((number, box, names[label], _seen_at(box.tolist(), detections, number, names)))
    for number, index in unfounded[:IN_A_ROW]:
        label, score = detections.classes[number, index], detections.scores[number, index]
        found.append((number, detections.boxes[number, index], names[label], f"score {score:.2f}"))
    rows = ("Missed", missed, lost, TRUE), ("Seen where no object is", unfounded, found, PREDICTED)
    heights = [ACROSS + 0.75 if entries else 0.4 for _, _, entries, _ in rows]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.7))
    figure.suptitle(title)
    for axes, (head, every, entries, look) in zip(figure.subplots(2, 1, height_ratios=heights), rows, strict=True):
        axes.set_title(f"{head}: {len(entries)} of {len(every):,}" if entries else f"{head}: none", loc="left")
        axes.set_axis_off()
        if entries:
            _draw_surroundings(axes, images, truth, entries, look)
    _draw_legend(figure, {"true box": TRUE, "predicted box": PREDICTED})
    return figure


def _seen_at(box: Sequence[float], detections: Any, number: int, names: Sequence[str]) -> str:
    """The class and score of the highest score among the boxes of an image with an IoU of at least 0.5."""
    fields = detections.boxes, detections.scores, detections.classes
    for other, score, label in zip(*(field[number].tolist() for field in fields), strict=True):
        shared = _overlap(box, other)
        areas = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (box, other))
        if score > 0 and shared >= 0.5 * (areas - shared):
            return f"as {names[label]} {score:.2f}"
    return "not seen"


def _draw_surroundings(
    axes: Axes, images: np.ndarray, truth: np.ndarray, entries: Sequence[tuple[Any, ...]], look: dict[str, Any]
) -> None:
    """Draws a row of crops with a box, the true ones near it, and two lines of text below each."""
    pairs = [_surroundings(images[number], box) for number, box, _, _ in entries]
    draw_tiles(axes, [crop for crop, _ in pairs], IN_A_ROW, ACROSS, 0.45, **PICTURE)
    axes.set_anchor("W")
    tiles = zip(axes.images, list(axes.patches), pairs, entries, strict=True)
    for tile, frame, (crop, place), (number, box, name, line) in tiles:
        for true in _true_rows(truth[number])[:, :4]:
            if not np.array_equal(true, box):
                _draw_box(axes, frame, _boxes_in_tile(true - place, crop, tile)[0], **{**TRUE, "linewidth": 0.8})
        _draw_box(axes, frame, _boxes_in_tile(box - place, crop, tile)[0], **{**look, "linewidth": 1.9})
        write_below(axes, tile, name, color=look["edgecolor"])
        write_below(axes, tile, line, 18, color="0.4", fontsize="small")


def _surroundings(image: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square around a box, white outside of the image, and its corner ``x, y, x, y`` in the image."""
    size = box[2:] - box[:2]
    side = max(round(2 * float(size.max())), 8)
    x, y = (
        int(np.clip(round(float(centre) - side / 2), 0, max(length - side, 0)))
        for centre, length in zip((box[:2] + box[2:]) / 2, image.shape[1::-1], strict=True)
    )
    crop = np.full((side, side, image.shape[2]), 0 if image.shape[2] == 1 else 255, np.uint8)
    part = image[y : y + side, x : x + side]
    crop[: part.shape[0], : part.shape[1]] = part
    return crop, np.array([x, y, x, y])
