"""Early stopping as in Keras; the same rule for Python numbers and, inside jit, for arrays."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array


class EarlyStopper(NamedTuple):
    """The best epoch so far; of equal losses, the first."""

    best_loss: Any = math.inf
    """Lowest validation loss."""
    best_epoch: Any = 0
    """0 before the first epoch."""
    epochs_since: Any = 0
    """Number of epochs since the best one."""


def update_stopper(stopper: EarlyStopper, epoch: Any, val_loss: Any) -> EarlyStopper:
    """Returns the stopper after an epoch with this validation loss."""
    improved = val_loss < stopper.best_loss
    choose = jnp.where if isinstance(improved, Array) else lambda condition, yes, no: yes if condition else no
    return EarlyStopper(
        choose(improved, val_loss, stopper.best_loss),
        choose(improved, epoch, stopper.best_epoch),
        choose(improved, 0, stopper.epochs_since + 1),
    )


def should_stop(stopper: EarlyStopper, patience: int) -> Any:
    """Returns whether the loss has not improved for ``patience`` epochs; as in Keras, 0 stops as soon as 1 does."""
    return stopper.epochs_since >= max(patience, 1)
