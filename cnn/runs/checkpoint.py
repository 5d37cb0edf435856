"""Checkpoints: the best, the latest and the one before, by orbax, which no other module imports."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn.config import ExperimentConfig
from cnn.devices.processes import allreduce_max, is_primary, primary_first, to_host
from cnn.errors import DamagedError, RunDirError, UserError, first_cause
from cnn.runs import rundir
from cnn.training.state import TrainState, create_state

MANIFEST = "sha256.json"
"""Digests of a checkpoint's files. Written last: a checkpoint without it is unfinished."""


@contextmanager
def open_checkpoints(run_dir: Path) -> Iterator[Any]:
    """Gives orbax's Checkpointer of a run directory, which keeps every step; only ``save`` removes checkpoints."""
    from orbax.checkpoint import v1 as ocp

    directory = rundir.own_directory(run_dir, rundir.CHECKPOINTS)
    context = ocp.Context()
    # Otherwise an empty directory with a number for a name would be a checkpoint.
    context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
    logging.getLogger("absl").addFilter(_is_news)
    checkpointer = ocp.training.Checkpointer(str(directory.absolute()), context=context)
    try:
        yield checkpointer
    except BaseException:
        # Closing raises the error of a failed save again, in place of the one that says what to do.
        with suppress(Exception):
            checkpointer.close()
        raise
    else:
        checkpointer.close()


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log record is not orbax's, which logs the traceback of every error that it also raises."""
    return "orbax" not in record.pathname


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
    }


def _leaves(arrays: Any) -> dict[str, Any]:
    """Each leaf by its name, such as "params/conv1/kernel"."""
    paths = jax.tree_util.tree_leaves_with_path(arrays)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def _types(arrays: Any) -> dict[str, str]:
    return {name: f"{leaf.dtype} {list(leaf.shape)}" for name, leaf in _leaves(arrays).items()}


def differing_leaves(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Returns ``"conv1/bias [32] -> missing"`` for each leaf in which two descriptions differ."""
    return [
        f"{name} {before.get(name, 'missing')} -> {after.get(name, 'missing')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digests(arrays: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of each leaf: orbax's own checksums do not cover the contents of the arrays."""
    return {name: _digest(np.ascontiguousarray(to_host(leaf)).tobytes()) for name, leaf in _leaves(arrays).items()}


def _file_digests(directory: Path) -> dict[str, str]:
    """The SHA-256 of each file: finds damage before orbax, which has tracebacks for it, opens anything."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(directory)): _digest(path.read_bytes()) for path in files}


def _directory(checkpoints: Any, step: int) -> Path:
    return Path(checkpoints.directory) / str(step)


def steps(checkpoints: Any) -> list[int]:
    """Returns the steps of the finished checkpoints, the latest first.

    Those with a manifest, whether or not orbax recognizes them: it ignores some that have lost a file.
    """
    finished = (path.parent.name for path in Path(checkpoints.directory).glob(f"*/{MANIFEST}"))
    return sorted((int(name) for name in finished if name.isdecimal()), reverse=True)


def save(checkpoints: Any, state: TrainState, progress: dict[str, Any]) -> None:
    """Saves a state and the progress of its loop; returns when both are on the disk.

    Then removes all but the latest two and the best, whose step is ``progress["best_step"]``: only the early stopper
    decides which is best, and a non-finite loss is never saved.

    Raises:
      RunDirError: they could not be written.
    """
    step, arrays = int(state.step), _arrays(state)
    directory = _directory(checkpoints, step)
    failed = f"cannot write the checkpoint of step {step} to {checkpoints.directory}"
    before = next(iter(steps(checkpoints)), None)
    resumes = "starts from scratch, as there is no earlier one" if before is None else f"resumes from step {before}"
    hint = f"fix that, and the same command {resumes}"
    try:
        # When a write fails, orbax's threads leave files and print tracebacks. So first check that the disk has room.
        with primary_first(), tempfile.TemporaryFile(dir=checkpoints.directory) as probe:
            probe.write(bytes(2**20 + sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise RunDirError(f"{failed}: {error.strerror}; {hint}") from error
    description = {"progress": progress, "types": _types(arrays), "sha256": _digests(arrays)}
    try:
        if not checkpoints.save(step, arrays, custom_metadata=description):
            raise ValueError("it holds a later one, of another process, which must be stopped")
        with primary_first():
            rundir.write_json(directory / MANIFEST, _file_digests(directory) if is_primary() else {})
    except jax.errors.JaxRuntimeError:
        raise
    # Orbax raises exceptions of many types, none of which says more than its text.
    except Exception as error:
        # Without a manifest, the written part is not a checkpoint; nobody should find it.
        if is_primary() and not (directory / MANIFEST).exists():
            shutil.rmtree(directory, ignore_errors=True)
        raise RunDirError(f"{failed}: {first_cause(error)}; {hint}") from error
    _keep(checkpoints, progress["best_step"])


def _keep(checkpoints: Any, best_step: int) -> None:
    """Removes all but the latest two checkpoints and the best."""
    _remove(checkpoints, [old for old in steps(checkpoints)[2:] if old != best_step])


def _remove(checkpoints: Any, old: list[int]) -> None:
    """Removes checkpoints, their manifests first: if interrupted, its remains are not a checkpoint."""
    if is_primary():
        for step in old:
            with suppress(OSError):
                (_directory(checkpoints, step) / MANIFEST).unlink()
                shutil.rmtree(_directory(checkpoints, step))
    if old:
        checkpoints.reload()


def _remove_unfinished(checkpoints: Any) -> None:
    """Removes what a killed process was writing or removing."""
    if is_primary():
        for path in Path(checkpoints.directory).iterdir():
            if not (path / MANIFEST).exists():
                shutil.rmtree(path, ignore_errors=True)
    checkpoints.reload()


@contextmanager
def _reading(directory: Path) -> Iterator[None]:
    """Raises DamagedError for what is damaged, and RunDirError for what cannot be read but may be intact."""
    try:
        yield
    except (UserError, DamagedError, jax.errors.JaxRuntimeError, MemoryError):
        raise
    except OSError as error:
        problem = error.strerror or first_cause(error)
        # It is not what was saved.
        if isinstance(error, (IsADirectoryError, NotADirectoryError)):
            raise DamagedError(f"the checkpoint {directory} is damaged ({problem})") from error
        raise RunDirError(f"cannot read the checkpoint {directory}: {problem}; fix that and try again") from error
    # Orbax reports damage by exceptions of many types.
    except Exception as error:
        raise DamagedError(f"the checkpoint {directory} is damaged ({first_cause(error)})") from error


def _read_description(checkpoints: Any, step: int) -> dict[str, Any]:
    """What was saved with a checkpoint's arrays: progress, their types and their digests."""
    directory = _directory(checkpoints, step)
    with _reading(directory):
        saved, actual = json.loads((directory / MANIFEST).read_text()), _file_digests(directory)
        if damaged := [name for name in sorted(saved.keys() | actual.keys()) if saved.get(name) != actual.get(name)]:
            raise ValueError(f"{damaged[0]} is {'not what was saved' if damaged[0] in actual else 'missing'}")
        # Orbax has the list of when it was opened; another process may have saved since.
        checkpoints.reload()
        return checkpoints.metadata(step).custom_metadata


def load(checkpoints: Any, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state of a step and the progress saved with it, with the structure and devices of ``like``.

    Raises:
      RunDirError: it is of another model, optimizer or dtype, or cannot be read.
      DamagedError: it is damaged.
    """
    directory = _directory(checkpoints, step)
    description = _read_description(checkpoints, step)
    before, now = description["types"], _types(_arrays(like))
    # Orbax would cast some of these, and mask others.
    if differing := differing_leaves(before, now):
        raise RunDirError(
            f"{directory} is of another model, optimizer or dtype ({'; '.join(differing)}); "
            "use the code and the options that it was made with, or train again in another --run-dir"
        )
    # With the current shardings; otherwise a checkpoint of one kind of device could not be loaded on another.
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=leaf.sharding), _arrays(like)
    )
    with _reading(directory):
        arrays = checkpoints.load(step, template)
        actual = _digests(arrays)
        if damaged := [name for name, digest in description["sha256"].items() if actual[name] != digest]:
            raise ValueError(f"{damaged[0]} is not what was saved")
        if int(arrays["step"]) != step:
            raise ValueError(f"it is of step {int(arrays['step'])}")
    state = like.replace(
        step=arrays["step"],
        key=jax.random.wrap_key_data(arrays["key"]),
        params=arrays["params"],
        opt_state=arrays["opt_state"],
        batch_stats=arrays.get("batch_stats", {}),
        ema=arrays.get("average", {}),
    )
    return state, description["progress"]


def load_latest(
    checkpoints: Any, like: TrainState, warn: Callable[[str], None] = lambda message: None
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
    run_dir = Path(checkpoints.directory).parent
    written, saved = _epochs_written(run_dir), steps(checkpoints)
    if not saved and not (run_dir / rundir.HISTORY).exists():
        _remove_unfinished(checkpoints)
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
            _remove_unfinished(checkpoints)
            # An earlier process may have been killed between its last save and this.
            _keep(checkpoints, latest[1]["best_step"])
            return latest
        if step != saved[-1]:
            aside = rundir.own_directory(run_dir, rundir.DAMAGED)
            warn(f"{problem}; it is moved to {aside}, and the one before it is used")
            with primary_first():
                if is_primary():
                    _move(_directory(checkpoints, step), aside)
            checkpoints.reload()
    raise DamagedError(
        f"all checkpoints of {run_dir} are damaged, and nothing is trained over them; "
        f"python -m cnn verify {run_dir} lists the damage; restore a copy, or name another --run-dir"
    )


def _move(directory: Path, aside: Path) -> None:
    try:
        aside.mkdir(exist_ok=True)
        shutil.rmtree(aside / directory.name, ignore_errors=True)
        directory.rename(aside / directory.name)
    except OSError as error:
        raise RunDirError(
            f"cannot move {directory}, which is damaged, to {aside}: {error.strerror}; fix that, or move it yourself"
        ) from error


def _epochs_written(run_dir: Path) -> int:
    """Number of rows of metrics.jsonl. Each is written after its checkpoint, so read it before listing those."""
    history = run_dir / rundir.HISTORY
    try:
        return sum(bool(line.strip()) for line in history.read_bytes().splitlines()) if history.exists() else 0
    except OSError as error:
        raise RunDirError(f"cannot read {history}: {error.strerror}; fix that and try again") from error


def load_best_of(checkpoints: Any, like: TrainState) -> TrainState:
    """Returns the best state, with the structure and devices of ``like``.

    Raises:
      RunDirError: no epoch is finished, or it is of another model, or cannot be read.
      DamagedError: it is damaged or missing.
    """
    return _read_best(checkpoints, lambda step: load(checkpoints, step, like)[0])


def check_best(checkpoints: Any) -> None:
    """Compares the files of the best checkpoint to their digests, without loading it; raises as ``load_best_of``."""
    _read_best(checkpoints, lambda step: _read_description(checkpoints, step))


def _read_best(checkpoints: Any, read: Callable[[int], Any]) -> Any:
    """Returns what a function reads of the best step, which the latest checkpoint names.

    If that is damaged, the best one is not known, and no other checkpoint is used instead.
    """
    run_dir = Path(checkpoints.directory).parent
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
            raise DamagedError(f"the checkpoint {_directory(checkpoints, best)} is missing")
        return read(best)
    except DamagedError as error:
        raise DamagedError(f"{error}, and was the best; restore a copy, or train again in another --run-dir") from error


def load_best(run_dir: str | Path) -> tuple[TrainState, ExperimentConfig]:
    """Returns the best state of a run directory, on JAX's first device, and its configuration.

    Raises:
      RunDirError: the directory holds no run, or the run has no finished epoch.
      DamagedError: the checkpoint is damaged.
    """
    run_dir = Path(run_dir)
    description = rundir.read_description(run_dir)
    config = description["config"]
    if not any((run_dir / rundir.CHECKPOINTS).glob("*")):
        raise RunDirError(f"{run_dir} has no checkpoint; name a run that has finished an epoch")
    with open_checkpoints(run_dir) as checkpoints:
        return load_best_of(checkpoints, create_state(config, description["train_images"])), config
