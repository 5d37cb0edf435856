"""Checkpoints: the best, the latest and the one before, by orbax, which no other module imports."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn import rundir
from cnn.config import ExperimentConfig
from cnn.errors import RunDirError, first_cause
from cnn.state import TrainState, create_state


@contextmanager
def open_checkpoints(run_dir: Path) -> Iterator[Any]:
    """Gives orbax's Checkpointer of a run directory.

    It keeps the last two checkpoints and the best. Best is the last that had improved when it was saved: the early
    stopper alone decides what an improvement is, a tie is none, and a loss that is not a number never reaches orbax.
    """
    from orbax.checkpoint import v1 as ocp

    # Its own classes do not match its own annotations.
    policies: Any = ocp.training.preservation_policies
    context = ocp.Context()
    # An empty directory with a number for a name must not pass for a checkpoint.
    context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
    logging.getLogger("absl").addFilter(_is_news)
    checkpointer = ocp.training.Checkpointer(
        str((run_dir / rundir.CHECKPOINTS).absolute()),
        preservation_policy=policies.AnyPreservationPolicy(
            [policies.LatestN(2), policies.BestN(get_metric_fn=_improved_at, n=1)]
        ),
        context=context,
    )
    try:
        yield checkpointer
    except BaseException:
        # Closing raises the error of a failed save once more, in the place of the one that says what to do.
        with suppress(Exception):
            checkpointer.close()
        raise
    else:
        checkpointer.close()


def _is_news(record: logging.LogRecord) -> bool:
    """Orbax logs the traceback of every error that it also raises, some of them when the process ends."""
    return "orbax" not in record.pathname


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
    step, arrays = int(state.step), _arrays(state)
    failed = f"cannot write the checkpoint of step {step} to {checkpoints.directory}"
    way_out = "mend that, and the same command goes on from the checkpoint before"
    try:
        # When a write fails, orbax' threads leave files and print tracebacks. So the disk is asked for room first.
        with tempfile.TemporaryFile(dir=checkpoints.directory) as probe:
            probe.write(bytes(2**20 + sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise RunDirError(f"{failed}: {error.strerror}; {way_out}") from error
    try:
        saved = checkpoints.save(
            step,
            arrays,
            metrics={"improved_at": step if improved else 0},
            custom_metadata={"progress": progress, "sha256": _digests(arrays)},
        )
    # What orbax raises is of many types, and none of them says more than its text.
    except Exception as error:
        # What was written of it is no checkpoint, as its mark of success is missing; nobody should come across it.
        shutil.rmtree(checkpoints.directory / str(step), ignore_errors=True)
        raise RunDirError(f"{failed}: {first_cause(error)}; {way_out}") from error
    if not saved:
        raise RunDirError(f"{failed}: it holds a later one; end the other process that writes there")


def _digests(arrays: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of each leaf by its path: orbax' own checksums do not cover what lies in the arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return {
        jax.tree_util.keystr(path): hashlib.sha256(np.ascontiguousarray(jax.device_get(leaf)).tobytes()).hexdigest()
        for path, leaf in leaves
    }


def _read_one_by_one(directory: Any) -> None:
    """Raises ValueError if an array cannot be read; of orbax' concurrent reads, all but the first print tracebacks."""
    import tensorstore

    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{directory}/"}}
    for key in tensorstore.KvStore.open(store).result().list().result():
        if key.endswith(b"/zarr.json"):
            array = {"driver": "zarr3", "kvstore": store, "path": key.decode().removesuffix("zarr.json")}
            tensorstore.open(array).result().read().result()


def _load(checkpoints: Any, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    # The current shardings, or what one kind of device saved could not be loaded on another.
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=leaf.sharding), _arrays(like)
    )
    try:
        _read_one_by_one(checkpoints.directory / str(step) / "state")
        arrays = checkpoints.load(step, template)
        saved = checkpoints.metadata(step).custom_metadata
        found = _digests(arrays)
        if damaged := [path for path, digest in saved["sha256"].items() if found.get(path) != digest]:
            raise ValueError(f"{damaged[0]} is not what was saved")
    # Orbax says by exceptions of many types that something is missing or truncated.
    except Exception as error:
        raise RunDirError(
            f"the checkpoint {checkpoints.directory / str(step)} is damaged ({first_cause(error)}); "
            "move it away, and the one before is taken, or train anew in another --run-dir"
        ) from error
    state = like.replace(
        step=arrays["step"],
        key=jax.random.wrap_key_data(arrays["key"]),
        params=arrays["params"],
        opt_state=arrays["opt_state"],
    )
    return state, saved["progress"]


def load_latest(checkpoints: Any, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
    """Returns the latest state and its progress, with the structure and device of ``like``; None if there is none.

    Raises:
      RunDirError: it is damaged.
    """
    latest = checkpoints.latest
    return _load(checkpoints, latest.step, like) if latest else None


def load_best_of(checkpoints: Any, like: TrainState) -> TrainState:
    """Returns the best state, with the structure and device of ``like``.

    Raises:
      RunDirError: it is damaged.
    """
    best = max(checkpoints.checkpoints, key=lambda checkpoint: _improved_at(checkpoint.metrics))
    return _load(checkpoints, best.step, like)[0]


def load_best(run_dir: str | Path) -> tuple[TrainState, ExperimentConfig]:
    """Returns the best state of a run directory, and its configuration.

    Raises:
      RunDirError: the directory holds no run, or the run has no checkpoint yet, or it is damaged.
    """
    run_dir = Path(run_dir)
    description = rundir.read_description(run_dir)
    config = description["config"]
    if not any((run_dir / rundir.CHECKPOINTS).glob("*")):
        raise RunDirError(f"{run_dir} has no checkpoint; name a run that has finished an epoch")
    with open_checkpoints(run_dir) as checkpoints:
        if checkpoints.latest is None:
            raise RunDirError(f"{run_dir} has no checkpoint; name a run that has finished an epoch")
        return load_best_of(checkpoints, create_state(config, description.get("train_images"))), config
