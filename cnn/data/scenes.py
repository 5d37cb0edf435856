"""Validation and test images composed into scenes that stay the same; and the check of boxes."""

import jax
import numpy as np

from cnn.config import DataConfig
from cnn.data.arrays import Split, Splits
from cnn.detection.scenes import compose
from cnn.errors import DataError
from cnn.text import shown

SCENES = 2_000
"""Scenes of the validation images, and of the test images; fewer if there are fewer images."""

CHUNK = 250 * 96**2
"""Pixels of the scenes that are composed at a time."""


def with_scenes(config: DataConfig, splits: Splits) -> Splits:
    """Returns the splits with scenes in place of validation and test images, if the configuration says so.

    The training images stay as they are: they are composed in each step.
    """
    if not config.scenes:
        return splits
    # A seed each, so that no two scenes have the same places.
    val, test = (
        compose_many(
            jax.random.fold_in(jax.random.key(config.split_seed), number),
            split,
            config.scenes,
            min(SCENES, len(split.labels)),
        )
        for number, split in enumerate(splits[1:])
    )
    return splits._replace(val=val, test=test)


def compose_many(key: jax.Array, split: Split, side: int, count: int) -> Split:
    """Returns scenes of all images of a split, and the boxes in them, composed some at a time.

    Args:
      key: of all scenes.
      split: small images, and a label each.
      side: height and width of a scene in pixels.
      count: number of scenes.
    """
    images, labels = (jax.numpy.asarray(array) for array in split)
    chunk = min(count, max(1, CHUNK // side**2))
    parts = [
        compose(jax.random.fold_in(key, start), images, labels, len(labels), scenes=chunk, side=side)
        for start in range(0, count, chunk)
    ]
    scenes, boxes = (np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True))
    return Split(scenes, boxes)


def check_boxes(split: Split, classes: int, name: str) -> None:
    """Checks that the labels of a split are boxes and classes of its images.

    Args:
      split: images and labels.
      classes: a class must be from 0 to ``classes - 1``, or -1 for padding.
      name: name of the split in the message.

    Raises:
      DataError: they have the wrong shape, dtype or range, or a box has no area or is outside of its image.
    """
    labels, (count, height, width, _) = np.asarray(split.labels), split.images.shape
    if labels.dtype != np.float32 or labels.ndim != 3 or labels.shape[::2] != (count, 5) or not labels.size:
        raise DataError(
            f"{name} labels are {labels.dtype} {list(labels.shape)}, but a detector needs boxes, float32 "
            f"[{count}, M, 5]; --data.scenes 96 composes images into scenes with boxes"
        )
    invalid = ~np.isin(labels[..., 4], np.arange(-1, classes))
    if invalid.any():
        raise DataError(f"{name} class {labels[..., 4][invalid][0]:g} must be an integer from -1 to {classes - 1}")
    image_X = np.nonzero(labels[..., 4] >= 0)[0]
    boxes = labels[labels[..., 4] >= 0][:, :4]
    inside = (
        (boxes[:, :2] >= 0).all(1) & (boxes[:, 2:] <= (width, height)).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    )
    if not inside.all():
        at = np.argmin(inside)
        raise DataError(
            f"{name} image {image_X[at]} has the box {shown(boxes[at].tolist())}, but x_min, y_min, x_max, y_max must "
            f"be some area within {width} x {height} pixels"
        )
