"""Boxes and detections, random or written by hand."""

from typing import NamedTuple

import numpy as np


class Detections(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def scene(true, detected):
    """One image: true boxes as (x_min, y_min, x_max, y_max, class), detections as (box, score, class)."""
    boxes, scores, classes = zip(*detected, strict=True) if detected else ((), (), ())
    detections = Detections(
        np.array(boxes, np.float32).reshape(1, -1, 4), np.array([scores], np.float32), np.array([classes], np.int32)
    )
    return detections, np.array(true, np.float32).reshape(1, -1, 5)


def random_scenes(seed, images=8, depth=12, width=5, classes=3, size=160, cell=None):
    """Scenes of random boxes, with padding; most detections lie near a true box, and scores tie if the seed is odd.

    ``cell`` is the width of a grid on which all edges lie, with up to ``size`` cells; then boxes and IoU tie as well.
    """
    draw = np.random.default_rng(seed)
    least, most = (1, 5) if cell else (8, 140)

    def boxes(count):
        sides, corners = draw.uniform(least, most, (images, count, 2)), draw.uniform(0, size, (images, count, 2))
        return np.concatenate([corners, corners + sides], axis=-1)

    truth = np.concatenate([boxes(width), draw.integers(-1, classes, (images, width, 1))], axis=-1)
    near = truth[np.arange(images)[:, None], draw.integers(0, width, (images, depth))]
    noise = draw.normal(0, 0.1 * most, (images, depth, 4)) * draw.choice([0, 0.1, 0.5, 1], (images, depth, 1))
    found = np.where(draw.random((images, depth, 1)) < 0.7, near[..., :4] + noise, boxes(depth))
    labels = np.where(draw.random((images, depth)) < 0.8, near[..., 4], draw.integers(0, classes, (images, depth)))
    scores = draw.integers(0, 9, (images, depth)) / 8 if seed % 2 else draw.random((images, depth))
    if cell:
        truth[..., :4], found = cell * np.round(truth[..., :4]), cell * np.round(found)
    return Detections(found.astype("f4"), scores.astype("f4"), np.maximum(labels, 0).astype("i4")), truth.astype("f4")
