"""The task of detection: scenes that are composed in the step, the losses of a grid of cells, and what is found."""

from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jax import Array

from cnn.detection.loss import assign, detection_losses, is_right
from cnn.detection.scenes import compose
from cnn.errors import DataError
from cnn.training.metrics import Metrics, sum_metrics
from cnn.training.task import Batch, Task, check_images, mask_of, scale


def check(spec: Any, images: Any, labels: Any) -> None:
    """Raises DataError unless there are scenes with their boxes, or small images with a label each to compose."""
    if not hasattr(images, "ndim"):
        check_images(spec, images)
    if labels.ndim == 1 and images.ndim == 4 and images.shape[3:] == spec.image_shape[2:]:
        check_images(spec._replace(image_shape=images.shape[1:]), images)
        is_fit = jnp.issubdtype(labels.dtype, jnp.integer) and labels.shape == images.shape[:1] and len(images)
    else:
        check_images(spec, images)
        shape = labels.shape
        is_fit = labels.dtype == jnp.float32 and shape[2:] == (5,) and shape[:1] == images.shape[:1] and 0 not in shape
    if not is_fit:
        raise DataError(
            f"labels are {labels.dtype} {list(labels.shape)}, but must be float32 [{len(images)}, M, 5], boxes and "
            "class, or integers, 1 per image to compose"
        )


def check_labels(spec: Any, labels_NxMx5: np.ndarray, mask_N: Any = None) -> None:
    """Raises DataError for a class that the network does not have, or a box that has no area."""
    classes = cast(Any, spec.model).config.classes
    if isinstance(mask_N, np.ndarray):
        labels_NxMx5 = labels_NxMx5[mask_N]
    classes_X = labels_NxMx5 if labels_NxMx5.ndim == 1 else labels_NxMx5[..., 4].ravel()
    lowest = 0 if labels_NxMx5.ndim == 1 else -1
    wrong_X = ~np.isin(classes_X, np.arange(lowest, classes))
    if wrong_X.any():
        raise DataError(f"class {classes_X[wrong_X.argmax()]:g} must be an integer from {lowest} to {classes - 1}")
    if labels_NxMx5.ndim == 3:
        boxes = labels_NxMx5[labels_NxMx5[..., 4] >= 0]
        wrong = ~(np.isfinite(boxes).all(-1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        if wrong.any():
            raise DataError(
                f"box {boxes[wrong.argmax(), :4].tolist()} must be x_min, y_min, x_max, y_max, of some area"
            )


def eval_inputs(batch: Batch, spec: Any) -> tuple[Array, Array, Array]:
    """Returns the inputs [B, H, W, C], the boxes and classes [B, M, 5], and the mask [B] of a batch of scenes.

    Boxes are fractions of the image's sides from here on.
    """
    check_images(spec, batch.images)
    height, width, _ = spec.image_shape
    return (
        scale(batch.images),
        jnp.asarray(batch.labels) / jnp.array([width, height, width, height, 1.0]),
        mask_of(batch),
    )


def train_inputs(key: Array, batch: Batch, spec: Any) -> tuple[Array, Array, Array]:
    """Returns the same of a batch of scenes, or of scenes of a batch's images: a scene for each image."""
    if batch.labels.ndim == 1:
        mask_B = mask_of(batch)
        # Those that are no padding first: of them is drawn.
        order_B, count = jnp.argsort(~mask_B, stable=True), mask_B.sum()
        images, labels = (jnp.asarray(array)[order_B] for array in (batch.images, batch.labels))
        scenes, labels = compose(key, images, labels, count, scenes=len(images), side=spec.image_shape[0])
        batch = Batch(scenes, labels, mask_B)
    return eval_inputs(batch, spec)


def losses(outputs_BxRxCxO: Array, labels_BxMx5: Array) -> Array:
    """Returns the losses [B] of scenes."""
    return detection_losses(outputs_BxRxCxO, assign(outputs_BxRxCxO, labels_BxMx5))


def metrics(outputs_BxRxCxO: Array, losses_B: Array, labels_BxMx5: Array, mask_B: Array) -> Metrics:
    """Returns the metrics of a batch; a scene is correct if nothing in it is missed, mistaken, or seen for nothing."""
    return sum_metrics(is_right(outputs_BxRxCxO, assign(outputs_BxRxCxO, labels_BxMx5)), losses_B, mask_B)


DETECTION = Task("detection", check, check_labels, train_inputs, eval_inputs, losses, metrics)
