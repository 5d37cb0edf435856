"""What a detector finds in scenes -> figures of its run, and of one image."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from cnn.config import ExperimentConfig
from cnn.data.splits import Splits
from cnn.detection.boxes import Detections
from cnn.figures import scene_plots
from cnn.look.batches import by_batches
from cnn.resolution import model_class_names
from cnn.runs.result import Result
from cnn.training.border import detect
from cnn.training.state import TrainState
from cnn.training.steps import image_outputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCENES, MAPS = 8, 4
"""Numbers of scenes in a figure: with boxes, and with a map of objectness below each."""

DETECTED_PIXELS = 2**25
"""Maximum number of pixels of the images of a call of detect: 3,600 scenes of 96 x 96."""

Drawings = dict[str, Callable[[], "Figure"]]


def found(state: TrainState, images_NxHxWxC: np.ndarray) -> Detections:
    """Returns what a detector finds in any number of images, as NumPy arrays."""
    return by_batches(lambda images: jax.device_get(detect(state, images)), DETECTED_PIXELS, images_NxHxWxC)


@jax.jit
def objectness(state: TrainState, images_BxHxWxC: Array | np.ndarray) -> Array:
    """Returns how sure a detector is that an object is centred in each cell of its grid, from 0 to 1, [B, R, C]."""
    return jax.nn.sigmoid(image_outputs(state, images_BxHxWxC, len(images_BxHxWxC))[..., 4])


def chosen_scenes(labels_NxMx5: np.ndarray, count: int = SCENES) -> np.ndarray:
    """Returns the indices of the first scenes, the last of them the first one without objects, if any has none."""
    first = np.arange(min(count, len(labels_NxMx5)))
    empty = np.flatnonzero((np.asarray(labels_NxMx5)[..., 4] < 0).all(1))
    if len(empty) and empty[0] >= len(first):
        first[-1] = empty[0]
    return first


def run_figures(config: ExperimentConfig, result: Result, splits: Splits, _: Any) -> Drawings:
    """Returns, by file name, the functions that draw the figures of a detector's run."""
    names, state, test = model_class_names(config), result.state, splits.test
    # Training images that are composed in the step have no boxes.
    which, sample = ("Training", splits.train) if splits.train.labels.ndim == 3 else ("Validation", splits.val)
    at = chosen_scenes(test.labels)
    scenes, truth, detections = test.images[at], test.labels[at], found(state, test.images[at])

    def maps():
        title = "Where the network is sure that an object is centred, in test scenes"
        return scene_plots.objectness(scenes[:MAPS], np.asarray(objectness(state, scenes[:MAPS])), title)

    return {
        "sample": lambda: scene_plots.scenes(
            sample.images[:SCENES], sample.labels[:SCENES], None, names, f"{which} scenes and the objects in them"
        ),
        "scenes": lambda: scene_plots.scenes(scenes, truth, detections, names, "Test scenes: true and predicted boxes"),
        "objectness": maps,
    }


def image_figures(state: TrainState, config: ExperimentConfig, image_HxWxC: np.ndarray, title: str) -> Drawings:
    """Returns what draws the boxes that a detector finds in one image, and its objectness.

    Args:
      state: of the detector.
      config: its experiment.
      image_HxWxC: uint8.
      title: what the image is called.
    """
    names, images = model_class_names(config), image_HxWxC[None]
    return {
        "look_scene": lambda: scene_plots.scenes(
            images, None, found(state, images), names, f"{title}: predicted boxes"
        ),
        "look_objectness": lambda: scene_plots.objectness(
            images, np.asarray(objectness(state, images)), f"{title}: where an object is centred"
        ),
    }
