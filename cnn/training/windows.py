"""Training and evaluation on a window of the images at a time, for data sets that are larger than the device."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from cnn.data.splits import Split
from cnn.training.metrics import Metrics, merge
from cnn.training.state import TrainState
from cnn.training.steps import metrics_from, run_steps
from cnn.training.task import Batch


@partial(jax.jit, donate_argnums=(0, 1), static_argnames="count")
def train_window(
    state: TrainState, metrics: Metrics, window: Split, start: Array, first: Array, last: Array, *, count: int
) -> tuple[TrainState, Metrics]:
    """Returns the state after some steps of an epoch, and its metrics so far; equals ``train_steps`` to the bit.

    Args:
      state: donated.
      metrics: of the earlier steps of the epoch; donated.
      window: images [S, B, H, W, C] and labels [S, B] of S steps, in the order of the epoch.
      start: step of the epoch that the window starts with.
      first: first step of the epoch to take.
      last: the step after the last one to take.
      count: number of training images.
    """
    batch_size = window.labels.shape[1]

    def batch_at(step):
        mask_B = None if count % batch_size == 0 else step * batch_size + jnp.arange(batch_size) < count
        return Batch(window.images[step - start], window.labels[step - start], mask_B)

    return run_steps(state, metrics, batch_at, first, last)


@partial(jax.jit, static_argnames="batch_size")
def evaluate_window(state: TrainState, metrics: Metrics, window: Split, start: Array, *, batch_size: int) -> Metrics:
    """Returns the metrics of the images before a window and of those in it; equals ``evaluate`` to the bit.

    Args:
      state: a state.
      metrics: of the images before the window.
      window: images; those before ``start`` have been counted, and fill the last batch.
      start: first image of the window to count.
      batch_size: images a batch.
    """
    count = len(window.labels)

    def body(index, metrics):
        return merge(metrics, metrics_from(state, window, start + index * batch_size, count, batch_size))

    return lax.fori_loop(0, (count - start + batch_size - 1) // batch_size, body, metrics)


def window_steps(image_bytes: int, batch_size: int, epoch_steps: int, memory: int) -> int:
    """Returns the number of steps of a window, of which three are in memory at a time: at most some hundred."""
    return max(1, min(MAX_STEPS, epoch_steps, math.floor(memory / (3 * batch_size * image_bytes))))


MAX_STEPS = 256
"""Largest number of steps of a window."""
