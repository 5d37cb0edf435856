"""A whole run as one XLA program: epochs, validation, early stopping and the best state in one loop on the device.

On an accelerator nothing returns to the host between epochs, and ``jax.vmap`` trains many seeds at once.
"""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax

from cnn.data.splits import Split
from cnn.training.early_stopping import EarlyStopper, should_stop, update_stopper
from cnn.training.metrics import Metrics, zero_metrics
from cnn.training.state import TrainState
from cnn.training.steps import evaluate, train_epoch


class FusedResult(flax.struct.PyTreeNode):
    """What the loop carries from epoch to epoch, and finally returns."""

    state: TrainState
    """After the last epoch."""
    best: TrainState
    """After the epoch with the lowest validation loss; of equal losses, the first."""
    stopper: EarlyStopper
    epochs: Array
    """Number of epochs trained, int32."""
    finite: Array
    """Whether the last losses were finite, bool."""
    train: Metrics
    """By epoch, each field [maximum number of epochs]; zero for epochs that were not trained."""
    val: Metrics
    """As ``train``."""


@partial(jax.jit, static_argnames=("epochs", "patience", "batch_size"))
def train_fused(
    state: TrainState, train: Split, val: Split, *, epochs: int, patience: int, batch_size: int
) -> FusedResult:
    """Returns the result of training until the validation loss stops improving, or a loss is non-finite.

    Equals train_epoch and evaluate, called epoch by epoch.

    Args:
      state: before the first step.
      train: training images.
      val: validation images.
      epochs: maximum number of epochs.
      patience: epochs without improvement after which to stop.
      batch_size: images per step.
    """
    rows = jax.tree.map(lambda total: jnp.zeros(epochs, total.dtype), zero_metrics())
    stopper = EarlyStopper(jnp.float32(jnp.inf), jnp.int32(0), jnp.int32(0))
    # The seed's key stays outside the loop, which must not carry a key that it has used.
    key, state = state.key, state.replace(key=None)
    initial = FusedResult(state, state, stopper, jnp.int32(0), jnp.bool_(True), rows, rows)

    def should_continue(run: FusedResult) -> Array:
        return (run.epochs < epochs) & run.finite & ~should_stop(run.stopper, patience)

    def one_epoch(run: FusedResult) -> FusedResult:
        state, train_metrics = train_epoch(run.state.replace(key=key), train, batch_size=batch_size)
        state = state.replace(key=None)
        val_metrics = evaluate(state, val)
        stopper = update_stopper(run.stopper, run.epochs + 1, val_metrics.loss)
        return FusedResult(
            state=state,
            best=lax.cond(stopper.epochs_since == 0, lambda: state, lambda: run.best),
            stopper=stopper,
            epochs=run.epochs + 1,
            finite=jnp.isfinite(train_metrics.loss + val_metrics.loss),
            train=_record(run.train, run.epochs, train_metrics),
            val=_record(run.val, run.epochs, val_metrics),
        )

    last = lax.while_loop(should_continue, one_epoch, initial)
    return last.replace(state=last.state.replace(key=key), best=last.best.replace(key=key))


def _record(rows: Metrics, epoch: Array, metrics: Metrics) -> Metrics:
    return jax.tree.map(lambda column, value: column.at[epoch].set(value), rows, metrics)


def epoch_metrics(run: FusedResult) -> list[tuple[Metrics, Metrics]]:
    """Returns the training and validation metrics of each epoch of a run, as NumPy scalars."""
    count, train, val = jax.device_get((run.epochs, run.train, run.val))
    return [(jax.tree.map(lambda c, e=e: c[e], train), jax.tree.map(lambda c, e=e: c[e], val)) for e in range(count)]
