"""The nearest training images of any picture: distances of a layer's outputs, exact, in bounded memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.cache import is_there
from cnn.data.splits import Split
from cnn.errors import UserError
from cnn.look.features import pooled_outputs
from cnn.resolution import model_class_names
from cnn.runs.result import load_images
from cnn.training.state import TrainState
from cnn.training.summary import LayerRow, last_hidden_layer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    train_MxF, query_1xF = (
        unit(pooled_outputs(state, images_NxHxWxC, (layer,))[1][layer])
        for images_NxHxWxC in (images_MxHxWxC[searched], image_HxWxC[None])
    )
    indices_1xK, distances_1xK = nearest(train_MxF, query_1xF)
    return searched[indices_1xK[0]], distances_1xK[0]


def neighbours_figure(
    run_dir: Path,
    config: ExperimentConfig,
    state: TrainState,
    image_HxWxC: np.ndarray,
    layer: str,
    description: str,
    warn: Callable[[str], None] = lambda line: None,
) -> dict[str, Callable[[], "Figure"]]:
    """Returns, by file name, what draws the training images nearest to an image; {} if they are not on this machine.

    {} with a warning if they are there, but damaged, or others.

    Args:
      run_dir: directory of the run.
      config: its experiment.
      state: its best state.
      image_HxWxC: any image.
      layer: name of the layer whose outputs are compared.
      description: of the image, for the title.
      warn: called with a line.
    """
    if not is_there(config.data):
        return {}
    try:
        train = load_images(run_dir).train
    except UserError as error:
        warn(f"no figure of the nearest training images: {error}")
        return {}
    names = model_class_names(config)
    return {f"look_{layer}_neighbours": lambda: draw_nearest(state, train, image_HxWxC, layer, names, description)}


def draw_nearest(
    state: TrainState, train: Split, image_HxWxC: np.ndarray, layer: str, names: Sequence[str], description: str
) -> "Figure":
    """Draws an image and the training images nearest to it in a layer's outputs, with their classes.

    Args:
      state: a trained state.
      train: training images, all or some.
      image_HxWxC: any image.
      layer: name of the layer.
      names: of the classes.
      description: of the image, for the title.
    """
    from cnn.figures import image_plots

    found_K, distances_K = nearest_images(state, train.images, image_HxWxC, layer)
    labels_K = [names[int(train.labels[i])] for i in found_K]
    below = [(name, f"distance {away:.3f}") for name, away in zip(labels_K, distances_K, strict=True)]
    title = f"The {len(found_K)} training images nearest to {description} in the outputs of {layer}"
    return image_plots.neighbours(
        np.concatenate([image_HxWxC[None], train.images[found_K]]), [("the image",), *below], title
    )
