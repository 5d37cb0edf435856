"""Scenes show each box at its place in its image, with texts that stay in it."""

import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from cnn.figures import plots, scene_plots
from tests.figures.examples import CLASSES, GENERATOR, all_axes, shown, texts

GRAY, RGB = (GENERATOR.integers(50, 200, (3, 60, 80, channels), np.uint8) for channels in (1, 3))
# Rows of padding may lie anywhere.
TRUTH = np.full((3, 3, 5), -1, np.float32)
TRUTH[0, [0, 2]] = [10, 20, 30, 40, 1], [0, 0, 80, 60, 0]
TRUTH[2, 1] = 70, 50, 80, 60, 2
NO_TRUTH = np.zeros((5, 0, 5), np.float32)


class Detections(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


DETECTIONS = Detections(
    # The first box ends beyond its image; those of score 0 are padding.
    np.array([[[60, 30, 95, 50], [12, 22, 28, 41]], [[0, 0, 0, 0]] * 2, [[5, 5, 9, 9]] * 2], np.float32),
    np.array([[0.9, 0.5], [0, 0], [0.25, 0]], np.float32),
    np.array([[2, 1], [0, 0], [1, 0]], np.int32),
)
# A box on the first missed object, but only beside the second, where padding is.
WEAK = Detections(
    np.array(
        [[[0, 0, 9, 9], [11, 20, 30, 40]], [[40, 20, 50, 30]] * 2, [[60, 40, 75, 55], [70, 50, 80, 60]]], np.float32
    ),
    np.array([[0.6, 0.12], [0.2, 0.8], [0.1, 0]], np.float32),
    np.array([[0, 2], [0, 2], [2, 2]], np.int32),
)
MISSED, UNFOUNDED, NONE = np.array([[0, 0], [2, 1]]), np.array([[1, 1]]), np.zeros((0, 2), int)
FIGURES = {
    "scenes": lambda: scene_plots.scenes(GRAY, TRUTH, DETECTIONS, CLASSES, "Scenes"),
    "objectness": lambda: scene_plots.objectness(RGB, np.ones((3, 3, 4)) / 2, "Objectness"),
    "mistakes": lambda: scene_plots.mistakes(GRAY, TRUTH, WEAK, MISSED, UNFOUNDED, CLASSES, "Mistakes"),
}


def boxes_in(axes: Any, tile: Any, height: int, width: int, look: dict[str, Any]) -> np.ndarray:
    """The boxes of a style that begin in a tile, in pixels of its image."""
    left, right, bottom, top = tile.get_extent()
    found = []
    for patch in axes.patches:
        if patch.get_edgecolor() == to_rgba(look["edgecolor"]):
            x, y = patch.get_xy()
            if left <= x < right and top <= y < bottom:
                corners = np.array([[x, y], [x + patch.get_width(), y + patch.get_height()]])
                found.append((corners - (left, top)) / (right - left, bottom - top) * (width, height))
    return np.array(found).reshape(-1, 4)


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_same_arrays_give_identical_bytes_without_pyplot(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert plots.png(draw()) == plots.png(draw())


@pytest.mark.parametrize("images", [GRAY, RGB], ids=["gray", "rgb"])
def test_scenes_show_true_and_predicted_boxes_at_their_pixels(images):
    figure = scene_plots.scenes(images, TRUTH, DETECTIONS, CLASSES, "Test scenes")
    (axes,) = all_axes(figure)
    assert axes.get_title() == "Test scenes"
    np.testing.assert_array_equal(shown(axes), images.squeeze())
    expected = [TRUTH[0, [0, 2], :4], DETECTIONS.boxes[0]], [[], []], [TRUTH[2, [1], :4], []]
    for tile, (boxes, predicted) in zip(axes.images, expected, strict=True):
        boxes, predicted = (np.reshape(one, (-1, 4)) for one in (boxes, predicted))
        np.testing.assert_allclose(boxes_in(axes, tile, 60, 80, scene_plots.TRUE), boxes, atol=1e-4)
        np.testing.assert_allclose(boxes_in(axes, tile, 60, 80, scene_plots.PREDICTED), predicted, atol=1e-4)
    captions = ["2 objects, 2 predicted", "no objects, none predicted", "1 object, none predicted"]
    assert sorted(texts(axes)) == sorted([*captions, "Ankle boot 0.90", "Trouser 0.50"])
    (legend,) = figure.legends
    entries = ["true box", "predicted box, with class and score (at least 0.3)"]
    assert [text.get_text() for text in legend.get_texts()] == entries


def test_a_threshold_of_zero_shows_every_box_but_padding():
    (axes,) = all_axes(scene_plots.scenes(GRAY, TRUTH, DETECTIONS, CLASSES, "Scenes", threshold=0))
    assert [text for text in texts(axes) if "0." in text] == ["Ankle boot 0.90", "Trouser 0.50", "Trouser 0.25"]


def test_without_detections_the_true_boxes_are_named():
    figure = scene_plots.scenes(GRAY, TRUTH, None, CLASSES, "Scenes")
    (axes,) = all_axes(figure)
    assert texts(axes) == ["Trouser", "T-shirt/top", "2 objects", "no objects", "Ankle boot", "1 object"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["true box"]


def test_without_truth_nothing_is_said_about_it():
    figure = scene_plots.scenes(GRAY, None, DETECTIONS, CLASSES, "Scenes")
    (axes,) = all_axes(figure)
    captions = ["2 predicted", "none predicted", "none predicted"]
    assert sorted(texts(axes)) == sorted([*captions, "Ankle boot 0.90", "Trouser 0.50"])
    (entry,) = figure.legends[0].get_texts()
    assert entry.get_text().startswith("predicted box")


@pytest.mark.parametrize(("height", "width"), [(60, 80), (300, 60), (96, 96), (24, 200)])
def test_names_stay_within_their_image_and_beside_each_other(height, width):
    rng = np.random.default_rng(0)
    corners = rng.uniform(-10, (width, height), (5, 4, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (5, 4, 2))], axis=-1).astype(np.float32)
    detections = Detections(boxes, np.linspace(0.9, 0.4, 20, dtype=np.float32).reshape(5, 4), np.zeros((5, 4), int))
    images = np.zeros((5, height, width, 1), np.uint8)
    figure = scene_plots.scenes(images, NO_TRUTH, detections, ["W" * 50], "Scenes")
    figure.draw_without_rendering()
    (axes,) = all_axes(figure)
    names = [text for text in axes.texts if "0." in text.get_text()]
    assert len(names) == 20
    for number, name in enumerate(names):
        assert name.get_text().startswith("WWWW") and "…" in name.get_text()
        frame = axes.patches[number // 4].get_window_extent()
        # What lies outside is cut off, which the clip box says.
        np.testing.assert_allclose(name.get_clip_box().extents, frame.extents)
        if width >= 80 and height >= 60:
            place = name.get_window_extent()
            assert place.x0 >= frame.x0 - 1 and place.y0 >= frame.y0 - 1 and place.y1 <= frame.y1 + 1


@pytest.mark.parametrize("box", [(20, 20, 60, 40), (0, 0, 80, 60)], ids=["in the middle", "all of the image"])
def test_names_of_equal_boxes_do_not_hide_each_other(box):
    boxes = np.tile(np.array(box, np.float32), (1, 4, 1))
    detections = Detections(boxes, np.array([[0.9, 0.8, 0.7, 0.6]], np.float32), np.zeros((1, 4), int))
    figure = scene_plots.scenes(GRAY[:1], NO_TRUTH[:1], detections, CLASSES, "Scenes")
    figure.draw_without_rendering()
    (axes,) = all_axes(figure)
    frame = axes.patches[0].get_window_extent()
    places = [text.get_window_extent() for text in axes.texts if "0." in text.get_text()]
    assert len(places) == 4
    assert not any(one.overlaps(other) for number, one in enumerate(places) for other in places[:number])
    for place in places:
        assert frame.x0 <= place.x0 and place.x1 <= frame.x1 and frame.y0 <= place.y0 and place.y1 <= frame.y1


def test_a_box_is_cut_off_at_the_edge_of_its_image():
    (axes,) = all_axes(scene_plots.scenes(GRAY, TRUTH, DETECTIONS, CLASSES, "Scenes"))
    frames, boxes = axes.patches[:3], axes.patches[3:]
    # Two true and two predicted boxes of the first image, one of the last.
    for box, frame in zip(boxes, [*[frames[0]] * 4, frames[2]], strict=True):
        np.testing.assert_allclose(box.get_clip_box().extents, frame.get_window_extent().extents)


def _is_next_to(place, other, beside: bool) -> bool:
    """Whether a tile is directly to the left of another, or above it."""
    (left, right, bottom, top), (other_left, _, _, other_top) = place, other
    if beside:
        return top == other_top and 0 < other_left - right < 0.2
    return left == other_left and 0 < other_top - bottom < 0.2


@pytest.mark.parametrize("images", [GRAY, RGB], ids=["gray", "rgb"])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_objectness_lies_over_the_second_of_two_equal_images(images, count):
    images = np.concatenate([images, images[::-1]])[:count]
    maps = np.linspace(0, 1, count * 6).reshape(count, 2, 3)
    axes, bar = all_axes(scene_plots.objectness(images, maps, "Objectness"))
    assert axes.get_title() == "Objectness" and bar.get_xlabel() == "objectness of a cell"
    tiles, overlays = axes.images[:-count], axes.images[-count:]
    visible = [tile for tile in tiles if tile.get_visible()]
    assert len(visible) == 2 * count == sum(patch.get_visible() for patch in axes.patches)
    for overlay, image, values in zip(overlays, images, maps, strict=True):
        np.testing.assert_array_equal(overlay.get_array(), values)
        assert overlay.get_clim() == (0, 1)
        left, right, bottom, top = overlay.get_extent()
        (under,) = (tile for tile in visible if tuple(tile.get_extent()) == (left, right, bottom, top))
        # The image alone is to the left of one or two, above more.
        (alone,) = (tile for tile in visible if _is_next_to(tile.get_extent(), overlay.get_extent(), count < 3))
        for tile in (under, alone):
            np.testing.assert_array_equal(tile.get_array(), image.squeeze())


@pytest.mark.parametrize("images", [GRAY, RGB], ids=["gray", "rgb"])
def test_mistakes_show_the_surroundings_of_their_boxes(images):
    figure = scene_plots.mistakes(images, TRUTH, WEAK, MISSED, UNFOUNDED, CLASSES, "Mistakes")
    above, below = all_axes(figure)
    assert figure.get_suptitle() == "Mistakes"
    titles = [axes.get_title(loc="left") for axes in (above, below)]
    assert titles == ["Missed: 2 of 2", "Seen where no object is: 1 of 1"]
    assert texts(above) == ["Trouser", "as Ankle boot 0.12", "Ankle boot", "not seen"]
    assert texts(below) == ["Ankle boot", "score 0.80"]
    crops = [images[0, 10:50, 0:40], images[2, 40:60, 60:80], images[1, 15:35, 35:55]]
    for crop, expected in zip([*shown(above), *shown(below)], crops, strict=True):
        np.testing.assert_array_equal(crop, expected.squeeze())
    missed, corner, seen = *above.images, *below.images
    np.testing.assert_allclose(boxes_in(above, missed, 40, 40, scene_plots.TRUE), [[10, 10, 30, 30]], atol=1e-4)
    np.testing.assert_allclose(boxes_in(above, corner, 20, 20, scene_plots.TRUE), [[10, 10, 20, 20]], atol=1e-4)
    np.testing.assert_allclose(boxes_in(below, seen, 20, 20, scene_plots.PREDICTED), [[5, 5, 15, 15]], atol=1e-4)


def test_a_box_larger_than_half_of_its_image_has_white_beside_it():
    truth = np.array([[[0, 10, 80, 50, 0]]], np.float32)
    for images, white in ((GRAY, 0), (RGB, 255)):
        figure = scene_plots.mistakes(images[:1], truth, WEAK, np.array([[0, 0]]), NONE, CLASSES, "Mistakes")
        (axes, _) = all_axes(figure)
        (crop,) = shown(axes)
        assert crop.shape[:2] == (160, 160)
        np.testing.assert_array_equal(crop[:60, :80], images[0].squeeze())
        assert (crop[60:] == white).all() and (crop[:, 80:] == white).all()


def test_of_many_mistakes_the_first_are_shown_and_of_none_only_the_title():
    many = np.repeat(UNFOUNDED, 30, axis=0)
    above, below = all_axes(scene_plots.mistakes(GRAY, TRUTH, WEAK, NONE, many, ["x" * 40] * 3, "Mistakes"))
    assert above.get_title(loc="left") == "Missed: none" and not above.images
    assert below.get_title(loc="left") == "Seen where no object is: 8 of 30" and len(below.images) == 8
    assert texts(below)[0] == "xxxxxxx…xxxx"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: scene_plots.scenes(GRAY[:0], TRUTH[:0], None, CLASSES, "title"), r"images must be \[N,H,W,C\]"),
        (lambda: scene_plots.scenes(GRAY, TRUTH[:2], None, CLASSES, "title"), "shorter"),
        (lambda: scene_plots.objectness(GRAY, np.zeros((3, 4)), "title"), r"maps must be \[N,P,Q\]"),
        (
            lambda: scene_plots.objectness(GRAY, np.zeros((2, 4, 4)), "title"),
            "those of 3 images, not of 2",
        ),
        (
            lambda: scene_plots.mistakes(GRAY[0], TRUTH, WEAK, NONE, NONE, CLASSES, "title"),
            r"images must be \[N,H,W,C\]",
        ),
    ],
    ids=["no images", "fewer truths", "maps", "fewer maps", "one image"],
)
def test_wrong_shapes_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
