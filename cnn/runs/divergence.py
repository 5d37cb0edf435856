"""Non-finite losses: one message for all of them, and the step and images of the first."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cnn.training.metrics import Metrics
from cnn.training.state import TrainState
from cnn.training.steps import epoch_order

KEPT = "the checkpoints before it are kept"


def diverged(where: str, kept: str = KEPT, hint: str = "") -> FloatingPointError:
    """Returns the error of a non-finite loss: where it occurred, what is kept of the run, and what else may help."""
    return FloatingPointError(
        f"non-finite loss {where}; {kept}; try a lower --optim.learning_rate in another --run-dir{hint}"
    )


def is_finite(metrics: Metrics) -> bool:
    """Returns whether no loss that the metrics sum up is NaN or infinite; waits for the device."""
    return math.isfinite(jax.device_get(metrics.loss_sum))


def first_divergence(
    train: Callable[..., Any], state: TrainState, metrics: Metrics, split: Any, batch_size: int, last: int
) -> str:
    """Returns where the loss first was non-finite, in words: step, epoch and training images.

    The steps up to ``last`` are repeated one by one, to the same bits, so that the loop itself need not look.

    Args:
      train: ``train_steps``, compiled.
      state: of a step before; donated.
      metrics: of the epoch's steps up to that one.
      split: training images.
      batch_size: images a step.
      last: the step at which the loss was found to be non-finite.
    """
    images = len(split.labels)
    for step in range(int(state.step), last):
        state, metrics = train(state, metrics, split, np.int32(1))
        if not is_finite(metrics):
            last = step + 1
            break
    epoch, batch = divmod(last - 1, math.ceil(images / batch_size))
    order = epoch_order(state.key, epoch, images, batch_size)
    indices = np.asarray(order[batch])[: images - batch * batch_size]
    return f"at step {last}, in epoch {epoch + 1}, on the training images {', '.join(map(str, indices))}"
