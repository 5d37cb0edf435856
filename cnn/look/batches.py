"""Computations on many images of any size, in bounded memory."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def by_batches(function: Callable[..., Any], pixels: int, *arrays_NxX: np.ndarray) -> Any:
    """Returns what a function of images, and of what belongs to them, gives for all of them, as NumPy arrays.

    Args:
      function: its outputs, in any pytree, have a row for each image.
      pixels: maximum number of pixels of the images of a call, which has at least one.
      arrays_NxX: the images [N, H, W, C], and other arguments with a row for each.
    """
    count, height, width = arrays_NxX[0].shape[:3]
    size = max(1, pixels // (height * width))
    parts = [function(*(array[start : start + size] for array in arrays_NxX)) for start in range(0, count, size)]
    return jax.tree.map(lambda *outputs: np.concatenate(outputs), *parts)
