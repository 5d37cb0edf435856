"""Metrics as sums and counts in a pytree: merged over any number of batches and divided once, they are exact."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Values = Array | np.ndarray
Number = Any  # An Array or a NumPy scalar, which have no common type.


class Metrics(flax.struct.PyTreeNode):
    """Sums over ``count`` images."""

    loss_sum: Number
    """Sum of the cross-entropies in nats, float32."""
    correct: Number
    """Number of images whose highest logit is that of their label, int32."""
    count: Number
    """Number of images, int32."""

    @property
    def loss(self) -> Any:
        """Mean cross-entropy in nats."""
        return self.loss_sum / self.count

    @property
    def accuracy(self) -> Any:
        """Share of images that are predicted as their class; NaN if the loss is NaN, as it is meaningless then."""
        return self.correct / self.count + 0 * self.loss_sum


def metrics_dict(split: str, metrics: Metrics) -> dict[str, float]:
    """Returns loss and accuracy, named after a split: ``{"val_loss": ..., "val_accuracy": ...}``."""
    return {f"{split}_loss": float(metrics.loss), f"{split}_accuracy": float(metrics.accuracy)}


def zero_metrics() -> Metrics:
    """Returns the metrics of no images, the initial value of a sum."""
    return make_metrics(0.0, 0, 0)


def make_metrics(loss_sum: float, correct: int, count: int) -> Metrics:
    """Returns metrics of Python numbers, as NumPy scalars on the host, which any number of devices can read."""
    return Metrics(np.float32(loss_sum), np.int32(correct), np.int32(count))


def merge(a: Metrics, b: Metrics) -> Metrics:
    """Returns the metrics of both sets of images together."""
    return jax.tree.map(jnp.add, a, b)


def batch_metrics(logits_BxK: Values, losses_B: Values, labels_B: Values, mask_B: Values) -> Metrics:
    """Returns the metrics of a batch; images where the mask is False are ignored."""
    return sum_metrics(jnp.argmax(logits_BxK, axis=-1) == labels_B, losses_B, mask_B)


def sum_metrics(correct_B: Values, losses_B: Values, mask_B: Values) -> Metrics:
    """Returns the sums over a batch; images where the mask is False are ignored."""
    return Metrics(
        jnp.sum(jnp.where(mask_B, losses_B, 0)),
        jnp.sum(correct_B & mask_B, dtype=jnp.int32),
        jnp.sum(mask_B, dtype=jnp.int32),
    )
