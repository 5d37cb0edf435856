"""Which explanation to believe: how the probability of a class follows the pixels that an explanation ranks first."""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from cnn.look.attribution import explanations, probabilities_with
from cnn.look.batches import by_batches
from cnn.training.state import TrainState

STEPS = 20
"""Number of equal parts in which pixels are deleted or inserted."""

RANDOM = "Random order"
"""What an explanation has to be better than."""

BATCH_PIXELS = 128 * 28 * 28
"""Maximum number of pixels of the images that are explained at a time."""


class Curves(NamedTuple):
    """A class's probability by the share of the pixels, 0, 1 / ``STEPS``, ..., 1, most important first."""

    deletion: np.ndarray
    """While pixels become black, float32 [B, STEPS + 1]: falls early if they matter to the network."""
    insertion: np.ndarray
    """While a black image gets its pixels back, float32 [B, STEPS + 1]: rises early if they matter to the network."""

    @property
    def areas(self) -> "Curves":
        """The areas under both curves, [B]: low for deletion and high for insertion if an explanation is faithful."""
        return Curves(*((curve[:, 1:] + curve[:, :-1]).mean(1) / 2 for curve in self))


def deletion_and_insertion(
    state: TrainState, images_BxHxWxC: np.ndarray, labels_B: np.ndarray, maps_BxHxW: np.ndarray
) -> Curves:
    """Returns the curves of an explanation of each image.

    Source: V. Petsiuk et al., RISE, arXiv:1806.07421, section 4.2; with black in place of the mean and of a blurred
    image.

    Args:
      state: a trained state.
      images_BxHxWxC: uint8.
      labels_B: the class that is explained in each image, integers.
      maps_BxHxW: how much each pixel matters; equal ones are taken in reading order.
    """
    order_BxN = np.argsort(-maps_BxHxW.reshape(len(maps_BxHxW), -1), axis=1, kind="stable")
    ranks_BxHxW = np.argsort(order_BxN, axis=1).reshape(maps_BxHxW.shape)
    counts = np.linspace(0, order_BxN.shape[1], STEPS + 1).round()
    inserted = ranks_BxHxW < counts[:, None, None, None]
    probabilities_NxB = probabilities_with(state, images_BxHxWxC, labels_B, np.concatenate([~inserted, inserted]))
    return Curves(*np.split(probabilities_NxB.T, 2, axis=1))


def random_order(height: int, width: int) -> np.ndarray:
    """Returns a map [H, W] whose pixels are in random order, the same each time."""
    return np.random.default_rng(0).permutation(height * width).reshape(height, width).astype(np.float32)


class Explained(NamedTuple):
    """What an explanation says of images, and whether the network bears it out."""

    maps: np.ndarray
    """How much each pixel matters for the class, float32 [N, H, W]."""
    curves: Curves


def explain(
    state: TrainState, images_NxHxWxC: np.ndarray, labels_N: np.ndarray, layer: str | None
) -> OrderedDict[str, Explained]:
    """Returns the explanations of a class in each of any number of images, by method; last is the random order.

    Args:
      state: a trained state.
      images_NxHxWxC: uint8.
      labels_N: the class to explain in each image, integers.
      layer: for Grad-CAM; left out if None.

    Raises:
      ConfigError: there is no such layer, or its output has no pixels.
    """

    def outputs(images_BxHxWxC, labels_B):
        count, height, width = images_BxHxWxC.shape[:3]
        maps = explanations(state, images_BxHxWxC, labels_B, layer)
        maps[RANDOM] = np.tile(random_order(height, width), (count, 1, 1))
        # JAX would sort the names of a dict.
        return OrderedDict(
            (name, Explained(maps_BxHxW, deletion_and_insertion(state, images_BxHxWxC, labels_B, maps_BxHxW)))
            for name, maps_BxHxW in maps.items()
        )

    return by_batches(outputs, BATCH_PIXELS, images_NxHxWxC, labels_N)
