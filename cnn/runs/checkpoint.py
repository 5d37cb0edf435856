"""Checkpoints: the best, the latest and the one before, saved and loaded."""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn.config import ExperimentConfig
from cnn.devices.processes import allreduce_max, is_primary, primary_first
from cnn.errors import DamagedError, RunDirError, first_cause
from cnn.rules import FILE, checked
from cnn.runs import rundir
from cnn.runs.derived import derived_digests
from cnn.runs.digests import differing_leaves, file_digests, leaf_digests, leaf_types
from cnn.runs.identity import RUN
from cnn.runs.store import (
    MANIFEST,
    Checkpoints,
    check_files,
    check_open_files,
    open_checkpoints,
    reading,
    remove,
    remove_unfinished,
    set_aside,
    steps,
)
from cnn.text import read_regular, reason
from cnn.training.state import TrainState, create_state


class OtherRunError(RunDirError):
    """A checkpoint is of another run than the directory's config.json."""


def _arrays(state: TrainState) -> dict[str, Any]:
    """The state as orbax takes it: only arrays."""
    return {
        "step": state.step,
        "key": jax.random.key_data(state.key),
        "params": state.params,
        "opt_state": state.opt_state,
        # Left out if empty: orbax would refuse to load older checkpoints, which do not have them.
        **({"batch_stats": state.batch_stats} if state.batch_stats else {}),
        # By its name in the first checkpoints.
        **({"average": state.ema} if state.ema else {}),
        **({"dynamics": state.dynamics} if state.dynamics else {}),
    }


def save(checkpoints: Checkpoints, state: TrainState, progress: dict[str, Any]) -> None:
    """Saves a state and the progress of its loop; returns when both are on the disk.

    Then removes all but the latest two and the best, whose step is ``progress["best_step"]``: only the early stopper
    decides which is best, and a non-finite loss is never saved.

    Raises:
      RunDirError: they could not be written.
    """
    step, arrays = int(state.step), _arrays(state)
    directory = checkpoints.path(step)
    failed = f"cannot write the checkpoint of step {step} to {checkpoints.directory}"
    before = None
    with suppress(RunDirError):
        before = next(iter(steps(checkpoints)), None)
    resumes = "starts from scratch, as there is no earlier one" if before is None else f"resumes from step {before}"
    hint = f"fix that, and the same command {resumes}"
    try:
        # When a write fails, orbax's threads leave files and print tracebacks. So first check that the disk has room.
        with primary_first(), tempfile.TemporaryFile(dir=checkpoints.directory) as probe:
            probe.write(bytes(2**20 + sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))))
            probe.flush()
            os.fsync(probe.fileno())
            check_open_files()
    except OSError as error:
        raise RunDirError(f"{failed}: {error.strerror}; {hint}") from error
    description = {
        "progress": progress,
        "types": leaf_types(arrays),
        "sha256": leaf_digests(arrays),
        RUN: checkpoints.run.digest,
        "files": derived_digests(checkpoints.run_dir, len(progress["history"])),
    }
    try:
        if not checkpoints.orbax.save(step, arrays, custom_metadata=description):
            raise ValueError("it holds a later one, of another process, which must be stopped")
        with primary_first():
            rundir.write_json(directory / MANIFEST, file_digests(directory, but=MANIFEST) if is_primary() else {})
    except jax.errors.JaxRuntimeError:
        raise
    # Orbax raises exceptions of many types, none of which says more than its text.
    except Exception as error:
        # Without a manifest, the written part is not a checkpoint; nobody should find it.
        if is_primary() and not (directory / MANIFEST).exists():
            shutil.rmtree(directory, ignore_errors=True)
        raise RunDirError(f"{failed}: {first_cause(error)}; {hint}") from error
    _keep(checkpoints, progress["best_step"])


def _keep(checkpoints: Checkpoints, best_step: int) -> None:
    """Removes all but the latest two checkpoints and the best."""
    remove(checkpoints, [old for old in steps(checkpoints)[2:] if old != best_step])


def _read_description(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """What was saved with a checkpoint's arrays: progress, their types, and what else ``save`` writes."""
    directory = checkpoints.path(step)
    with reading(directory):
        check_files(directory)
        check_open_files()
        # Orbax has the list of when it was opened; another process may have saved since.
        checkpoints.orbax.reload()
        description = checkpoints.orbax.metadata(step).custom_metadata
        complete = {"history", "stopper", "best_step"} <= description["progress"].keys()
        if not complete or description["types"].keys() != description["sha256"].keys():
            raise ValueError("another program has written it")
    if not checkpoints.run.is_named_by(description):
        raise OtherRunError(
            f"{directory} is of another run than {checkpoints.run_dir / rundir.CONFIG}, or that file was changed; "
            "restore a copy of the run's own, or name another directory"
        )
    return description


def load(checkpoints: Checkpoints, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state of a step and the progress saved with it, with the structure and devices of ``like``.

    Raises:
      RunDirError: it is of another run, model, optimizer or dtype, or cannot be read.
      DamagedError: it is damaged.
    """
    state, description = load_described(checkpoints, step, like)
    return state, description["progress"]


def load_described(checkpoints: Checkpoints, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state of a step as ``load`` does, with all that ``save`` wrote about it."""
    directory = checkpoints.path(step)
    description = _read_description(checkpoints, step)
    # Orbax would cast some of these, and mask others.
    if differing := differing_leaves(description["types"], leaf_types(_arrays(like))):
        # What a message shows of a long list is its beginning.
        differing.sort(key=lambda line: not line.startswith("params/"))
        raise RunDirError(
            f"{directory} is of another model, optimizer or dtype ({'; '.join(differing)}); "
            "use the code and the options that it was made with, or train again in another --run-dir"
        )
    # With the current shardings; otherwise a checkpoint of one kind of device could not be loaded on another.
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=leaf.sharding), _arrays(like)
    )
    with reading(directory):
        arrays = checkpoints.orbax.load(step, template)
        actual = leaf_digests(arrays)
        if damaged := [name for name, digest in actual.items() if description["sha256"].get(name) != digest]:
            raise DamagedError(f"the checkpoint {directory} is damaged ({damaged[0]} is not what was saved)")
        if int(arrays["step"]) != step:
            raise DamagedError(f"the checkpoint {directory} is damaged (it is of step {int(arrays['step'])})")
    state = like.replace(
        step=arrays["step"],
        key=jax.random.wrap_key_data(arrays["key"]),
        params=arrays["params"],
        opt_state=arrays["opt_state"],
        batch_stats=arrays.get("batch_stats", {}),
        ema=arrays.get("average", {}),
        dynamics=arrays.get("dynamics", {}),
    )
    return state, description


def load_latest(
    checkpoints: Checkpoints, like: TrainState, warn: Callable[[str], None] = lambda message: None
) -> tuple[TrainState, dict[str, Any]] | None:
    """Returns the latest state and its progress, with the structure and devices of ``like``; None if there is none.

    A damaged one is moved to ``damaged/`` in the run directory, and the one before is used. What a killed process left
    unfinished is removed. The caller must hold the lock of the run directory.

    Args:
      checkpoints: what ``open_checkpoints`` gives.
      like: a state of the same experiment.
      warn: called with a line for each that is damaged.

    Raises:
      RunDirError: they are of another model, or cannot be read.
      DamagedError: all are damaged.
    """
    run_dir = checkpoints.run_dir
    written, saved = _epochs_written(run_dir), steps(checkpoints)
    if not saved and not (run_dir / rundir.HISTORY).exists():
        remove_unfinished(checkpoints)
        return None
    for step in saved:
        latest = problem = None
        try:
            latest = load(checkpoints, step, like)
        except DamagedError as error:
            problem = error
        # All processes use the same one.
        if not allreduce_max(problem is not None):
            assert latest
            if step == saved[0] and len(latest[1]["history"]) < written:
                warn(f"the latest checkpoint of {run_dir} is missing; resuming from step {step}")
            remove_unfinished(checkpoints)
            # An earlier process may have been killed between its last save and this.
            _keep(checkpoints, latest[1]["best_step"])
            return latest
        if step != saved[-1]:
            aside = rundir.own_directory(run_dir, rundir.DAMAGED)
            warn(f"{problem}; it is moved to {aside}, and the one before it is used")
            with primary_first():
                if is_primary():
                    set_aside(checkpoints.path(step), aside)
            checkpoints.orbax.reload()
    raise DamagedError(
        f"all checkpoints of {run_dir} are damaged, and nothing is trained over them; "
        f"python -m cnn verify {run_dir} lists the damage; restore a copy, or name another --run-dir"
    )


def _epochs_written(run_dir: Path) -> int:
    """Number of rows of metrics.jsonl. Each is written after its checkpoint, so read it before listing those."""
    history = run_dir / rundir.HISTORY
    try:
        return sum(bool(line.strip()) for line in read_regular(history).splitlines()) if history.exists() else 0
    except (OSError, ValueError) as error:
        raise RunDirError(f"cannot read {history}: {reason(error)}; fix that and try again") from error


def load_best_of(checkpoints: Checkpoints, like: TrainState) -> TrainState:
    """Returns the best state, with the structure and devices of ``like``.

    Raises:
      RunDirError: no epoch is finished, or it is of another run or model, or cannot be read.
      DamagedError: it is damaged or missing.
    """
    return _read_best(checkpoints, lambda step: load(checkpoints, step, like)[0])[0]


def check_best(checkpoints: Checkpoints) -> None:
    """Compares the files of the best checkpoint to their digests, without loading it; raises as ``load_best_of``."""
    _read_best(checkpoints, lambda step: _read_description(checkpoints, step))


def check_longer(run_dir: Path, epochs: int) -> None:
    """Checks a run that is to have this many epochs, if these are more, before its files change.

    Raises:
      RunDirError: its checkpoints cannot be read, or are another run's, or a file cannot be written.
      DamagedError: it is finished, and the best checkpoint is damaged or missing.
    """
    if not (run_dir / rundir.CONFIG).exists() or rundir.read_description(run_dir)["config"].train.epochs >= epochs:
        return
    if (run_dir / rundir.RESULT).exists():
        for path in (run_dir / name for name in (rundir.SUMMARY, rundir.HISTORY, rundir.KERNELS)):
            if path.exists() and not path.is_file():
                raise RunDirError(f"{path} is not a regular file; restore a copy, or name another --run-dir")
        with open_checkpoints(run_dir) as checkpoints:
            check_best(checkpoints)
    elif (run_dir / rundir.CHECKPOINTS).exists():
        with open_checkpoints(run_dir) as checkpoints:
            for step in steps(checkpoints):
                # Of damaged ones, the one before is used.
                with suppress(DamagedError):
                    _read_description(checkpoints, step)


def _read_best(checkpoints: Checkpoints, read: Callable[[int], Any]) -> tuple[Any, dict[str, Any]]:
    """Returns what a function reads of the best step, and the progress of the latest one, which names it.

    If that is damaged, the best one is not known, and no other checkpoint is used instead.
    """
    run_dir = checkpoints.run_dir
    written, saved = _epochs_written(run_dir), steps(checkpoints)
    progress = _read_description(checkpoints, saved[0])["progress"] if saved else {"best_step": 0, "history": []}
    best = progress["best_step"]
    # Imported weights are the best before any step.
    if best == 0 and best not in saved:
        raise RunDirError(f"{run_dir} has no finished epoch; repeat the command of its run to resume it")
    if len(progress["history"]) < written:
        raise DamagedError(
            f"the latest checkpoint of {run_dir} is missing, so the best one is not known; restore a copy"
        )
    try:
        if best not in saved:
            raise DamagedError(f"the checkpoint {checkpoints.path(best)} is missing")
        return read(best), progress
    except DamagedError as error:
        raise DamagedError(f"{error}, and was the best; restore a copy, or train again in another --run-dir") from error


@checked(run_dir=FILE)
def load_best(run_dir: str | Path) -> tuple[TrainState, ExperimentConfig]:
    """Returns the best state of a run directory, on JAX's first device, and its configuration.

    Raises:
      RunDirError: the directory holds no run, or the run has no finished epoch.
      DamagedError: the checkpoint is damaged.
    """
    return load_best_with_progress(run_dir)[:2]


def load_best_with_progress(run_dir: str | Path) -> tuple[TrainState, ExperimentConfig, dict[str, Any]]:
    """Returns state and configuration as ``load_best`` does, and the progress of the latest checkpoint."""
    run_dir = Path(run_dir)
    description = rundir.read_description(run_dir)
    config = description["config"]
    if not any((run_dir / rundir.CHECKPOINTS).glob("*")):
        raise RunDirError(f"{run_dir} has no checkpoint; name a run that has finished an epoch")
    rundir.check_import(run_dir)
    with open_checkpoints(run_dir) as checkpoints:
        like = create_state(config, description["train_images"])
        state, progress = _read_best(checkpoints, lambda step: load(checkpoints, step, like)[0])
    return state, config, progress
