"""The task of classification: augmented images with smoothed targets, their cross-entropies, and what is predicted."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from cnn.errors import DataError
from cnn.training.augment import augment
from cnn.training.metrics import Metrics, batch_metrics
from cnn.training.optim import loss_targets
from cnn.training.task import Batch, Task, check_images, mask_of, scale


class Targets(NamedTuple):
    """What the network should say of images."""

    probabilities: Array
    """float32 [B, K]."""
    labels: Array
    """Integers [B]."""


def check(spec: Any, images: Any, labels: Any) -> None:
    """Raises DataError unless there are uint8 images of the spec's shape, with an integer label each."""
    check_images(spec, images)
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != images.shape[:1] or not len(images):
        raise DataError(
            f"labels are {labels.dtype} {list(labels.shape)}, but must be integers [{len(images)}], 1 per image, "
            "for at least one image"
        )


def check_labels(spec: Any, labels_N: np.ndarray, mask_N: Any = None) -> None:
    """Raises DataError for a label, of an image that counts, that is no class."""
    classes = cast(Any, spec.model).config.classes
    wrong_N = (labels_N < 0) | (labels_N >= classes)
    wrong_N = wrong_N & mask_N if isinstance(mask_N, np.ndarray) else wrong_N
    if wrong_N.any():
        index = wrong_N.argmax()
        raise DataError(f"label {index} is {labels_N[index]}, but must be from 0 to {classes - 1}")


def eval_inputs(batch: Batch, spec: Any) -> tuple[Array, Targets, Array]:
    """Returns the inputs [B, H, W, C], targets and mask [B] of a batch."""
    mask_B = mask_of(batch)
    inputs_BxHxWxC, labels_B = scale(batch.images), jnp.asarray(batch.labels)
    classes = cast(Any, spec.model).config.classes
    return inputs_BxHxWxC, Targets(jax.nn.one_hot(labels_B, classes, dtype=jnp.float32), labels_B), mask_B


def train_inputs(key: Array, batch: Batch, spec: Any) -> tuple[Array, Targets, Array]:
    """Returns augmented inputs, smoothed and weighted targets, and the mask of a batch."""
    inputs_BxHxWxC, targets, mask_B = eval_inputs(batch, spec)
    inputs_BxHxWxC, targets_BxK = augment(key, inputs_BxHxWxC, targets.probabilities, spec.augment, batch.mask)
    targets_BxK = loss_targets(targets_BxK, spec.optim.label_smoothing, spec.class_weights)
    return inputs_BxHxWxC, Targets(targets_BxK, targets.labels), mask_B


def losses(logits_BxK: Array, targets: Targets) -> Array:
    """Returns the cross-entropies in nats, [B]; NaN for a label out of range: indexing would clamp or wrap it."""
    losses_B = optax.softmax_cross_entropy(logits_BxK, targets.probabilities)
    return jnp.where((targets.labels >= 0) & (targets.labels < logits_BxK.shape[-1]), losses_B, jnp.nan)


def metrics(logits_BxK: Array, losses_B: Array, targets: Targets, mask_B: Array) -> Metrics:
    """Returns the metrics of a batch; an image is correct if its highest logit is that of its label."""
    return batch_metrics(logits_BxK, losses_B, targets.labels, mask_B)


CLASSIFICATION = Task("classification", check, check_labels, train_inputs, eval_inputs, losses, metrics)
