"""The nearest training images of any picture: distances of a layer's outputs, exact, in bounded memory."""

import numpy as np

from cnn.look.features import pooled_outputs
from cnn.training.state import TrainState
from cnn.training.summary import LayerRow, last_hidden_layer

NEIGHBOURS = 5
"""Number of the nearest training images."""

SEARCHED_PIXELS = 2**26
"""Maximum number of pixels of the training images that are searched: 85,000 images of 28 x 28."""

_DISTANCES = 2**23
"""Maximum number of distances in memory at a time."""


def nearest(train_MxF: np.ndarray, queries_NxF: np.ndarray, count: int = NEIGHBOURS) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest of M points for each query: indices, int [N, k], and Euclidean distances, float64 [N, k].

    They are in the order of their distances, and of their indices where those are equal; k is ``count``, or M if that
    is less. Time grows with M N, memory does not.

    Args:
      train_MxF: at least one point.
      queries_NxF: any number of points.
      count: number of neighbours, at least 1.
    """
    train_MxF, queries_NxF = np.asarray(train_MxF, np.float64), np.asarray(queries_NxF, np.float64)
    count, rows = min(count, len(train_MxF)), max(1, _DISTANCES // len(train_MxF))
    squares_M = (train_MxF**2).sum(1)
    indices_NxK = np.zeros((len(queries_NxF), count), int)
    distances_NxK = np.zeros((len(queries_NxF), count))
    for start in range(0, len(queries_NxF), rows):
        queries_BxF, part = queries_NxF[start : start + rows], slice(start, start + rows)
        # Squared distances but for a constant of each query: enough to select, not exact for points that coincide.
        order_BxM = squares_M - 2 * queries_BxF @ train_MxF.T
        found_BxK = np.sort(np.argpartition(order_BxM, count - 1, axis=1)[:, :count], axis=1)
        exact_BxK = np.linalg.norm(train_MxF[found_BxK] - queries_BxF[:, None], axis=2)
        sorted_BxK = np.argsort(exact_BxK, axis=1, kind="stable")
        indices_NxK[part] = np.take_along_axis(found_BxK, sorted_BxK, 1)
        distances_NxK[part] = np.take_along_axis(exact_BxK, sorted_BxK, 1)
    return indices_NxK, distances_NxK


def unit(features_NxF: np.ndarray) -> np.ndarray:
    """Returns features of length 1, float32 [N, F], so that distances compare directions; zeros remain zeros."""
    lengths_N = np.linalg.norm(features_NxF, axis=1, keepdims=True)
    return (features_NxF / np.maximum(lengths_N, np.finfo(np.float32).tiny)).astype(np.float32)


def last_pooled_layer(rows: list[LayerRow]) -> str:
    """Returns the name of the last layer with pixels or tokens, or of the last hidden layer if none has them."""
    with_places = [row.name for row in rows[:-1] if len(row.output_shape) > 2]
    return (with_places or [last_hidden_layer(rows)])[-1]


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Returns the indices of all of ``count`` images, or of ``most`` evenly spaced ones, ascending, int32."""
    number = max(1, min(count, most))
    return (np.arange(number) * count // number).astype(np.int32)


def nearest_images(
    state: TrainState, images_MxHxWxC: np.ndarray, image_HxWxC: np.ndarray, layer: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the training images nearest to an image in a layer's channel means, and the distances.

    The channel means have length 1 (``unit``). Of images with more than ``SEARCHED_PIXELS``, evenly spaced ones are
    searched.

    Args:
      state: a trained state.
      images_MxHxWxC: the training images.
      image_HxWxC: any image.
      layer: name of a layer.
    """
    searched = evenly_spaced(len(images_MxHxWxC), SEARCHED_PIXELS // (image_HxWxC.shape[0] * image_HxWxC.shape[1]))
    features = [
        unit(pooled_outputs(state, images_NxHxWxC, (layer,))[1][layer])
        for images_NxHxWxC in (images_MxHxWxC[searched], image_HxWxC[None])
    ]
    indices_1xK, distances_1xK = nearest(*features)
    return searched[indices_1xK[0]], distances_1xK[0]
