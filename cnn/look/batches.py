"""Computations on many images of any size, in bounded memory."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cnn.training.border import predict
from cnn.training.state import TrainState

PREDICTED_PIXELS = 2**28
"""Maximum number of pixels of the images of a call of predict: 340,000 images of 28 x 28."""


def probabilities(state: TrainState, images_NxHxWxC: np.ndarray) -> np.ndarray:
    """Returns the class probabilities [N, K] of any number of images, such as those of a file that is mapped."""
    return by_batches(lambda images: predict(state, images), PREDICTED_PIXELS, images_NxHxWxC)


def by_batches(function: Callable[..., Any], pixels: int, *arrays_NxX: np.ndarray) -> Any:
    """Returns what a function of images, and of what belongs to them, gives for all of them, as NumPy arrays.

    Args:
      function: its outputs, in any pytree, have a row for each image.
      pixels: maximum number of pixels of the images of a call, which has at least one.
      arrays_NxX: the images [N, H, W, C], and other arguments with a row for each.
    """
    count, height, width = arrays_NxX[0].shape[:3]
    size = max(1, pixels // (height * width))
    # Whole batches of predict, so that the bits do not depend on the parts.
    size -= size % 128 if size > 128 else 0
    parts = [function(*(array[start : start + size] for array in arrays_NxX)) for start in range(0, count, size)]
    return jax.tree.map(lambda *outputs: np.concatenate(outputs), *parts)
