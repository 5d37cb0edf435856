"""The arrays of a data set."""

import mmap
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Images with their labels."""

    images: np.ndarray
    """uint8 [N,H,W,C], 0 to 255."""
    labels: np.ndarray
    """int32 [N]; of scenes, x_min, y_min, x_max, y_max in pixels and class, float32 [N, M, 5]; class -1 is padding."""


class Splits(NamedTuple):
    """A data set, split three ways."""

    train: Split
    val: Split
    test: Split


def release(array: np.ndarray) -> None:
    """Lets the system take back the memory of a file that is mapped "r", which it reads again where it is needed.

    Without it, all pages that were ever read would count as this process's.
    """
    while isinstance(array.base, np.ndarray):
        array = array.base
    # What was written to another mapping would be lost.
    if isinstance(array.base, mmap.mmap) and getattr(array, "mode", "") == "r" and hasattr(mmap, "MADV_DONTNEED"):
        array.base.madvise(mmap.MADV_DONTNEED)
