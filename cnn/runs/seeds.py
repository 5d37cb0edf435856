"""Several seeds of one experiment: in parallel on an accelerator, one after another on a CPU."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cnn.config import ExperimentConfig
from cnn.data.splits import Splits, load
from cnn.devices.sharding import find_devices, unaliased
from cnn.errors import ConfigError
from cnn.intervals import Estimate, estimate
from cnn.rules import SEED, checked, instance, require
from cnn.runs.divergence import diverged
from cnn.text import listed, shown
from cnn.training.fused import train_fused
from cnn.training.metrics import metrics_dict
from cnn.training.state import TrainState, abstract_state, initial_state, make_spec
from cnn.training.steps import evaluate

MAX_RUNS = 1000
"""Maximum number of seeds, and of combinations of a sweep."""


class SeedsResult(NamedTuple):
    """What ``fit_seeds`` returns."""

    state: TrainState
    """The best state of each seed; every leaf has a leading seed axis."""
    rows: list[dict[str, Any]]
    """A seed's seed, best_epoch, stopped_epoch, val_loss, val_accuracy, test_loss and test_accuracy."""
    estimates: dict[str, Estimate]
    """By name, of the four losses and accuracies."""


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises ConfigError unless there are 1 to ``MAX_RUNS`` seeds, different integers from 0 to 2**32 - 1."""
    several = isinstance(seeds, Sequence) and not isinstance(seeds, str | bytes) and 1 <= len(seeds) <= MAX_RUNS
    if not several or not all(map(SEED.holds, seeds)) or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"seeds are {shown(seeds)}, but must be different integers from 0 to 2**32 - 1, 1 to {MAX_RUNS:,} of them"
        )


@checked(config=instance(ExperimentConfig))
def fit_seeds(config: ExperimentConfig, seeds: Sequence[int], splits: Splits | None = None) -> SeedsResult:
    """Trains an experiment with each of the seeds, in one XLA call, and returns the best state of each.

    Each seed stops by itself and gives the result of ``fit`` with that seed. Nothing is written to disk.

    Args:
      config: the experiment; its own seed is not used.
      seeds: different integers from 0 to 2**32 - 1.
      splits: images to use instead of those that the configuration names.

    Raises:
      UserError: configuration, seeds or images cannot be used.
      MemoryError: the network does not fit into memory.
      FloatingPointError: the loss of some seed is not finite.
    """
    check_seeds(seeds)
    if config.transfer.source is not None:
        raise ConfigError(
            f"--transfer.source is {config.transfer.source!r}, but seeds in one call start from random parameters"
        )
    distill, dynamics = config.distill.teacher, config.train.dynamics
    require(not distill, "distill.teacher", distill, "left out with seeds in one call")
    require(not dynamics, "train.dynamics", dynamics, "false with seeds in one call")
    monitor = config.train.monitor
    require(monitor == "val_loss", "train.monitor", monitor, "val_loss with seeds in one call")
    device = find_devices(config.train.device)[0]
    config, checked = load(config, splits)
    checked = jax.tree.map(unaliased, checked)
    abstract_state(config, len(checked.train.labels))
    spec = make_spec(config, len(checked.train.labels))

    @jax.jit
    def train_all(seeds: Array, splits: Splits) -> Any:
        def train_one(seed):
            run = train_fused(
                initial_state(seed, spec),
                splits.train,
                splits.val,
                epochs=config.train.epochs,
                patience=config.train.patience,
                batch_size=config.optim.batch_size,
            )
            best = jnp.maximum(run.stopper.best_epoch - 1, 0)
            val = jax.tree.map(lambda column: column[best], run.val)
            return run.best, run.finite, run.stopper.best_epoch, run.epochs, val, evaluate(run.best, splits.test)

        # Convolutions batched over kernels gain nothing on a CPU.
        return lax.map(train_one, seeds) if device.platform == "cpu" else jax.vmap(train_one)(seeds)

    state, *numbers = train_all(*jax.device_put((np.asarray(seeds, np.uint32), checked), device))
    finite, best_epochs, epochs, val, test = jax.device_get(numbers)
    finite = finite & np.isfinite(test.loss)
    if not finite.all():
        lost = [seed for seed, is_finite in zip(seeds, finite, strict=True) if not is_finite]
        raise diverged(f"with seeds {listed(lost)}", "nothing of them is kept")
    rows = [
        {
            "seed": seed,
            "best_epoch": int(best_epochs[i]),
            "stopped_epoch": int(epochs[i]),
            **metrics_dict("val", jax.tree.map(lambda column, i=i: column[i], val)),
            **metrics_dict("test", jax.tree.map(lambda column, i=i: column[i], test)),
        }
        for i, seed in enumerate(seeds)
    ]
    names = ("val_loss", "val_accuracy", "test_loss", "test_accuracy")
    return SeedsResult(state, rows, {name: estimate([row[name] for row in rows]) for name in names})
