"""What is particular to a task. The step, the loop, and all around them serve every task unchanged."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from cnn.errors import DataError
from cnn.training.metrics import Metrics


class Batch(NamedTuple):
    """A batch of images; those whose ``mask`` is False are padding and are ignored."""

    images: Array | np.ndarray
    """uint8 [B, H, W, C]."""
    labels: Array | np.ndarray
    """Integers [B]; for detection, boxes and classes, float32 [B, M, 5], or the integers of images to compose."""
    mask: Array | np.ndarray | None = None
    """bool [B]; None means all True."""


class Task(NamedTuple):
    """The functions of a task: pure, and of a module, so that a state that has them is compiled once."""

    name: str
    check: Callable[[Any, Any, Any], None]
    """Raises DataError unless images and labels have the shapes and dtypes that a spec wants; their values may be
    traced."""
    check_labels: Callable[[Any, Any, Any], None]
    """Raises DataError for labels, on the host, that are not of a spec's classes; with a mask or None."""
    train_inputs: Callable[[Array, Batch, Any], tuple[Array, Any, Array]]
    """(key, batch, spec) -> inputs [B, H, W, C] from 0 to 1, targets and mask [B], all augmented."""
    eval_inputs: Callable[[Batch, Any], tuple[Array, Any, Array]]
    """The same without augmentation."""
    losses: Callable[[Array, Any], Array]
    """(outputs, targets) -> the loss of each image, float32 [B]."""
    metrics: Callable[[Array, Array, Any, Array], Metrics]
    """(outputs, losses_B, targets, mask_B) -> the metrics of a batch."""


def check_images(spec: Any, images_NxHxWxC: Array | np.ndarray) -> None:
    """Raises DataError unless the images are uint8 and have the shape that a spec's network takes."""
    images, expected = images_NxHxWxC, ", ".join(map(str, spec.image_shape))
    if not hasattr(images, "dtype"):
        raise DataError(f"images are a {type(images).__name__}, but must be an array, uint8 [N, {expected}]")
    if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[1:] != spec.image_shape:
        raise DataError(
            f"images are {images.dtype} {list(images.shape)}, but must be uint8 [N, {expected}] from 0 to 255"
        )


def scale(images_BxHxWxC: Array | np.ndarray) -> Array:
    """Returns uint8 images as float32 from 0 to 1."""
    return jnp.asarray(images_BxHxWxC, jnp.float32) / 255


def mask_of(batch: Batch) -> Array:
    """Returns the mask of a batch, bool [B]."""
    return jnp.ones(len(batch.labels), bool) if batch.mask is None else jnp.asarray(batch.mask)
