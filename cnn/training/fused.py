"""A whole run as one call of XLA's: epochs, validation, early stopping and the best state in one loop on the device.

On an accelerator nothing comes back to the host between the epochs, and many seeds train at once by ``jax.vmap``.
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
    """What the loop hands on from epoch to epoch, and in the end returns."""

    state: TrainState
    """The latest."""
    best: TrainState
    """The one with the lowest validation loss, the first of equals."""
    stopper: EarlyStopper
    epochs: Array
    """Epochs trained, int32."""
    finite: Array
    """Whether the last losses were numbers, bool."""
    train: Metrics
    """Each field [epochs at most]; zero where no epoch was trained."""
    val: Metrics
    """As ``train``."""


@partial(jax.jit, static_argnames=("epochs", "patience", "batch_size"))
def train_fused(
    state: TrainState, train: Split, val: Split, *, epochs: int, patience: int, batch_size: int
) -> FusedResult:
    """Returns what training until the validation loss stops improving gives.

    The same as calling train_epoch and evaluate epoch by epoch. It ends, too, when a loss is no longer a number.

    Args:
      state: before the first step.
      train: training images.
      val: validation images.
      epochs: at most this many.
      patience: epochs without improvement after which to stop.
      batch_size: images a step.
    """
    rows = jax.tree.map(lambda total: jnp.zeros(epochs, total.dtype), zero_metrics())
    stopper = EarlyStopper(jnp.float32(jnp.inf), jnp.int32(0), jnp.int32(0))
    # The seed's key stays outside of the loop, which may hand on no key that it has used.
    key, state = state.key, state.replace(key=None)
    begin = FusedResult(state, state, stopper, jnp.int32(0), jnp.bool_(True), rows, rows)

    def goes_on(run: FusedResult) -> Array:
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

    end = lax.while_loop(goes_on, one_epoch, begin)
    return end.replace(state=end.state.replace(key=key), best=end.best.replace(key=key))


def _record(rows: Metrics, epoch: Array, metrics: Metrics) -> Metrics:
    return jax.tree.map(lambda column, value: column.at[epoch].set(value), rows, metrics)


def epoch_metrics(run: FusedResult) -> list[tuple[Metrics, Metrics]]:
    """Returns the training and validation metrics of each epoch of a run, as NumPy numbers."""
    count, train, val = jax.device_get((run.epochs, run.train, run.val))
    return [(jax.tree.map(lambda c, e=e: c[e], train), jax.tree.map(lambda c, e=e: c[e], val)) for e in range(count)]
