"""Inputs of figures, and what a figure shows, for the tests of both modules."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

GENERATOR = np.random.default_rng(0)
CLASSES = ("T-shirt/top", "Trouser", "Ankle boot")
LABELS = np.array([2, 0])
IMAGES = GENERATOR.integers(50, 200, (2, 28, 28, 1), np.uint8)
RGB_IMAGES = GENERATOR.integers(50, 200, (2, 32, 32, 3), np.uint8)
KERNEL = GENERATOR.normal(0, 0.3, (3, 3, 2, 18)).astype(np.float32)
MAPS = np.maximum(GENERATOR.normal(0, 1, (14, 14, 10)), 0).astype(np.float32)
PROBABILITIES = np.array([[0.0, 0.0, 1.0], [0.25, 0.5, 0.25]], np.float32)
CURVES = np.linspace(1, 0, 5), np.linspace(0, 1, 5)
EXPLAINED = (
    {"Grad-CAM": IMAGES[0, :, :, 0] / 255, "Occlusion": IMAGES[1, :, :, 0] / 255 - 0.5},
    {name: CURVES for name in ("Grad-CAM", "Occlusion", "Random order")},
    {"Grad-CAM": (0.1, 0.7), "Occlusion": (0.2, 0.8), "Random order": (0.5, 0.5)},
)
"""Maps, curves and areas by method."""


def all_axes(figure: Figure) -> list[Any]:
    """The axes of a figure, untyped, as only matplotlib knows the types of their contents."""
    return figure.axes


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def shown(axes) -> list[np.ndarray]:
    return [np.asarray(tile.get_array()) for tile in axes.images]
