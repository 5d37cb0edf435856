"""The arrays of a data set."""

from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Images with their labels."""

    images: np.ndarray
    """uint8 [N,H,W,C], 0 to 255."""
    labels: np.ndarray
    """int32 [N]."""


class Splits(NamedTuple):
    """A data set, split three ways."""

    train: Split
    val: Split
    test: Split
