"""Sums and counts as a pytree: merge over any number of batches, then divide once, and the result is exact."""

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
    """Number of images whose highest logit is their label's, int32."""
    count: Number
    """Number of images, int32."""

    @property
    def loss(self) -> Any:
        """Mean cross-entropy in nats."""
        return self.loss_sum / self.count

    @property
    def accuracy(self) -> Any:
        """Share of images that are classified rightly; NaN if the loss is, as it tells nothing then."""
        return self.correct / self.count + 0 * self.loss_sum


def metrics_dict(split: str, metrics: Metrics) -> dict[str, float]:
    """Returns loss and accuracy as ``{"val_loss": ..., "val_accuracy": ...}``, by the name of a split."""
    return {f"{split}_loss": float(metrics.loss), f"{split}_accuracy": float(metrics.accuracy)}


def zero_metrics() -> Metrics:
    """Returns the metrics of no images, to which others are merged."""
    return make_metrics(0.0, 0, 0)


def make_metrics(loss_sum: float, correct: int, count: int) -> Metrics:
    """Returns metrics of plain numbers, on the host, from where any number of devices take them."""
    return Metrics(np.float32(loss_sum), np.int32(correct), np.int32(count))


def merge(a: Metrics, b: Metrics) -> Metrics:
    """Returns the metrics of both sets of images together."""
    return jax.tree.map(jnp.add, a, b)


def batch_metrics(logits_BxK: Values, losses: Values, labels: Values, mask: Values) -> Metrics:
    """Returns the metrics of the images of a batch where mask [B] is True; losses and labels are [B]."""
    correct = jnp.argmax(logits_BxK, axis=-1) == labels
    return Metrics(
        jnp.sum(jnp.where(mask, losses, 0)),
        jnp.sum(correct & mask, dtype=jnp.int32),
        jnp.sum(mask, dtype=jnp.int32),
    )
