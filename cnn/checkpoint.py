"""Checkpoints: the best, the latest and the one before, by orbax, which no other module imports."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn import rundir
from cnn.config import ExperimentConfig
from cnn.errors import RunDirError
from cnn.state import TrainState, create_state


def open_checkpoints(run_dir: Path) -> Any:
    """Returns orbax's Checkpointer of a run directory, a context manager.

    It keeps the last two checkpoints and the best. Best is the last that had improved when it was saved: the early
    stopper alone decides what an improvement is, a tie is none, and a loss that is not a number never reaches orbax.
    """
    from orbax.checkpoint import v1 as ocp

    # Its own classes do not match its own annotations.
    policies: Any = ocp.training.preservation_policies
    context = ocp.Context()
    # An empty directory with a number for a name must not pass for a checkpoint.
    context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
    return ocp.training.Checkpointer(
        str((run_dir / rundir.CHECKPOINTS).absolute()),
        preservation_policy=policies.AnyPreservationPolicy(
            [policies.LatestN(2), policies.BestN(get_metric_fn=_improved_at, n=1)]
        ),
        context=context,
    )


def _improved_at(metrics: dict[str, Any]) -> float:
    return metrics["improved_at"]


def _arrays(state: TrainState) -> dict[str, Any]:
    """The state as orbax takes it: arrays alone."""
    return {
        "step": state.step,
        "key": jax.random.key_data(state.key),
        "params": state.params,
        "opt_state": state.opt_state,
    }


def save(checkpoints: Any, state: TrainState, progress: dict[str, Any], improved: bool) -> None:
    """Saves a state and the JSON-like progress of the loop round it; returns when both are on the disk.

    Raises:
      RunDirError: they could not be written.
    """
    step = int(state.step)
    try:
        saved = checkpoints.save(
            step, _arrays(state), metrics={"improved_at": step if improved else 0}, custom_metadata=progress
        )
    # What orbax raises on a full or vanished disk is of many types, and none of them says more than its text.
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise RunDirError(
            f"cannot write the checkpoint of step {step} to {checkpoints.directory}: {reason}; "
            "make room, and the same command goes on from the checkpoint before"
        ) from error
    if not saved:
        raise RunDirError(
            f"{checkpoints.directory} holds a later checkpoint than step {step}; is another process writing there?"
        )


def _load(checkpoints: Any, step: int, like: TrainState) -> TrainState:
    # The current shardings, or what one kind of device saved could not be loaded on another.
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=leaf.sharding), _arrays(like)
    )
    arrays = checkpoints.load(step, template)
    return like.replace(
        step=arrays["step"],
        key=jax.random.wrap_key_data(arrays["key"]),
        params=arrays["params"],
        opt_state=arrays["opt_state"],
    )


def load_latest(checkpoints: Any, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
    """Returns the latest state and its progress, with the structure and device of ``like``; None if there is none."""
    latest = checkpoints.latest
    if latest is None:
        return None
    return _load(checkpoints, latest.step, like), checkpoints.metadata(latest.step).custom_metadata


def load_best_of(checkpoints: Any, like: TrainState) -> TrainState:
    """Returns the best state, with the structure and device of ``like``."""
    best = max(checkpoints.checkpoints, key=lambda checkpoint: _improved_at(checkpoint.metrics))
    return _load(checkpoints, best.step, like)


def load_best(run_dir: str | Path) -> tuple[TrainState, ExperimentConfig]:
    """Returns the best state of a run directory, and its configuration.

    Raises:
      RunDirError: the directory holds no run, or the run has no checkpoint yet.
    """
    run_dir = Path(run_dir)
    config = rundir.read_config(run_dir)
    if not (run_dir / rundir.CHECKPOINTS).is_dir():
        raise RunDirError(f"{run_dir} has no checkpoint; name a run that has finished an epoch")
    with open_checkpoints(run_dir) as checkpoints:
        if checkpoints.latest is None:
            raise RunDirError(f"{run_dir} has no checkpoint; name a run that has finished an epoch")
        return load_best_of(checkpoints, create_state(config)), config
