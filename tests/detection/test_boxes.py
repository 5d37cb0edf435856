"""Overlap against an independent formula; suppression against a greedy loop."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.detection import boxes
from cnn.detection.average_precision import iou


def random_boxes(draw, *shape) -> Any:
    corners = draw.uniform(0, 60, (*shape, 2))
    return np.concatenate([corners, corners + draw.uniform(4, 40, (*shape, 2))], -1).astype(np.float32)


@given(st.integers(0, 2**32 - 1))
def test_overlap_is_intersection_over_union_and_its_generalization_is_lower(seed):
    draw = np.random.default_rng(seed)
    a, b = random_boxes(draw, 16), random_boxes(draw, 16)
    overlap, generalized = map(np.asarray, boxes.overlap(a, b))
    np.testing.assert_allclose(overlap, iou(a, b), atol=1e-5)
    assert (generalized <= overlap + 1e-6).all() and (generalized > -1).all()


def test_generalized_overlap_of_boxes_apart_falls_with_their_distance():
    unit, near, far = jnp.array([[0, 0, 1, 1], [2, 0, 3, 1], [4, 0, 5, 1]], np.float32)
    # Two unit squares in a hull of 3, and of 5.
    np.testing.assert_allclose(boxes.overlap(unit, near), (0, -1 / 3), atol=1e-6)
    np.testing.assert_allclose(boxes.overlap(unit, far), (0, -3 / 5), atol=1e-6)
    np.testing.assert_allclose(boxes.overlap(unit, unit), (1, 1))


def greedy(all_boxes, scores):
    """The same by a loop: the highest of what is left, without what overlaps it."""
    left = sorted(np.ndindex(scores.shape), key=lambda at: (-scores[at], at))[: boxes.CANDIDATES]
    kept = []
    while left:
        cell, label = left.pop(0)
        kept.append((scores[cell, label], label, *all_boxes[cell]))
        left = [(c, k) for c, k in left if k != label or iou(all_boxes[cell], all_boxes[c]) <= boxes.OVERLAP]
    return kept[: boxes.DETECTIONS]


@pytest.mark.parametrize("seed", range(3))
def test_suppression_keeps_what_a_greedy_loop_keeps(seed):
    draw = np.random.default_rng(seed)
    all_boxes, scores = random_boxes(draw, 2, 40), draw.random((2, 40, 3)).astype(np.float32)
    found = boxes.suppress(all_boxes, scores)
    for image in range(2):
        kept = greedy(all_boxes[image], scores[image])
        rows = zip(found.scores[image], found.classes[image], *np.asarray(found.boxes[image]).T, strict=True)
        np.testing.assert_array_equal([row for row in rows if row[0] > 0], kept)


@pytest.mark.parametrize(("cells", "classes", "rows"), [(5, 3, 15), (16, 2, 32), (64, 10, 32)])
def test_an_image_has_32_detections_or_as_many_as_cells_times_classes(cells, classes, rows):
    found = boxes.suppress(jnp.zeros((2, cells, 4)), jnp.zeros((2, cells, classes)))
    assert [part.shape for part in found] == [(2, rows, 4), (2, rows), (2, rows)]


def test_what_is_not_filled_has_score_0_and_overlapping_boxes_of_two_classes_stay():
    same = np.tile(np.array([0, 0, 10, 10], np.float32), (1, 3, 1))
    scores = np.array([[[0.9, 0], [0.8, 0], [0, 0.7]]], np.float32)
    found = boxes.suppress(same, scores)
    np.testing.assert_allclose(found.scores[0, :3], [0.9, 0.7, 0])
    assert found.classes[0, :2].tolist() == [0, 1]
