"""The directory of a run's checkpoints: opened by orbax, which no other module imports, listed, and cleared."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax

from cnn.devices.processes import is_primary
from cnn.errors import DamagedError, RunDirError, UserError, first_cause
from cnn.runs import rundir
from cnn.runs.digests import file_digests
from cnn.runs.identity import Identity
from cnn.text import read_json, read_regular

MANIFEST = "sha256.json"
"""Digests of a checkpoint's files. Written last: a checkpoint without it is unfinished."""

_METADATA = "_CHECKPOINT_METADATA"

_PARTS = MANIFEST, _METADATA, "commit_success.txt", "state"
"""Files and directories of a checkpoint."""

_TEMPORARY = ".orbax-checkpoint-tmp"
"""In the name of what orbax is writing."""


class Checkpoints(NamedTuple):
    """The open checkpoints of a run."""

    orbax: Any
    """Orbax's Checkpointer, which keeps every step; only ``save`` removes checkpoints."""
    run_dir: Path
    run: Identity
    """Which its checkpoints name."""

    @property
    def directory(self) -> Path:
        """Directory of the checkpoints."""
        return self.run_dir / rundir.CHECKPOINTS

    def path(self, step: int) -> Path:
        """Returns the directory of a step's checkpoint."""
        return self.directory / str(step)


@contextmanager
def open_checkpoints(run_dir: Path) -> Iterator[Checkpoints]:
    """Gives the checkpoints of a run directory.

    Raises:
      RunDirError: its config.json or its checkpoints cannot be read.
    """
    from orbax.checkpoint import v1 as ocp

    directory, run = rundir.own_directory(run_dir, rundir.CHECKPOINTS), rundir.read_identity(run_dir)
    context = ocp.Context()
    # Otherwise an empty directory with a number for a name would be a checkpoint.
    context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
    logging.getLogger("absl").addFilter(_is_news)
    with reading(directory):
        # Orbax would wait for the writer of a pipe.
        for path in directory.glob(f"*/{_METADATA}"):
            if not path.is_file():
                check_files(path.parent)
        try:
            checkpointer = ocp.training.Checkpointer(str(directory.absolute()), context=context)
        except Exception:
            # It reads something of every checkpoint. If one is damaged, this says which.
            for name in sorted(os.listdir(directory)):
                if os.path.isfile(directory / name / MANIFEST):
                    check_files(directory / name)
            raise
    try:
        yield Checkpoints(checkpointer, run_dir, run)
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


FILES = 32
"""Number of files that orbax may open at a time, which it must not find out by itself: it may abort the process."""


def check_open_files() -> None:
    """Raises OSError if the process may not open as many files as orbax does."""
    opened = []
    try:
        for _ in range(FILES):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in opened:
            os.close(descriptor)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises RunDirError for whatever fails in its block: nothing is known to be damaged.

    Orbax raises exceptions of many types, for too many open files or too little memory as for anything else.
    """
    try:
        yield
    except (UserError, DamagedError):
        raise
    except Exception as error:
        # In a cluster, another process may have failed, which the caller reports.
        if isinstance(error, jax.errors.JaxRuntimeError) and jax.process_count() > 1:
            raise
        problem = "not enough memory" if isinstance(error, MemoryError) else first_cause(error)
        raise RunDirError(f"cannot read {path}: {problem}; fix that and try again") from error


def check_files(directory: Path) -> None:
    """Raises DamagedError if a file is not what was saved, before orbax, which has tracebacks for it, opens any."""
    try:
        saved, actual = read_json(directory / MANIFEST), file_digests(directory, but=MANIFEST)
        if not isinstance(saved, dict):
            raise ValueError(f"{MANIFEST} is not what was saved")
        if damaged := [name for name in sorted(saved.keys() | actual.keys()) if saved.get(name) != actual.get(name)]:
            raise ValueError(f"{damaged[0]} is {'not what was saved' if damaged[0] in actual else 'missing'}")
    except (ValueError, NotADirectoryError) as error:
        raise DamagedError(f"the checkpoint {directory} is damaged ({first_cause(error)})") from error


def steps(checkpoints: Checkpoints) -> list[int]:
    """Returns the steps of the finished checkpoints, the latest first.

    Those with a manifest, whether or not orbax recognizes them: it ignores some that have lost a file.

    Raises:
      RunDirError: they cannot be listed.
    """
    with reading(checkpoints.directory):
        numbers = [name for name in os.listdir(checkpoints.directory) if name.isascii() and name.isdecimal()]
        # Another name of the same number, such as 032, is not ours.
        finished = [int(name) for name in numbers if str(int(name)) == name and _has_manifest(checkpoints, name)]
    return sorted(finished, reverse=True)


def _has_manifest(checkpoints: Checkpoints, name: str) -> bool:
    """As Path.exists, which takes a file that may not be looked at for missing; here that is an error."""
    try:
        os.stat(checkpoints.directory / name / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove(checkpoints: Checkpoints, old: list[int]) -> None:
    """Removes checkpoints of this run, their manifests first: if interrupted, its remains are not a checkpoint."""
    if is_primary():
        for step in [step for step in old if _is_own(checkpoints.path(step)) and not _is_of_other(checkpoints, step)]:
            with suppress(OSError):
                (checkpoints.path(step) / MANIFEST).unlink()
                shutil.rmtree(checkpoints.path(step))
    if old:
        checkpoints.orbax.reload()


def _is_of_other(checkpoints: Checkpoints, step: int) -> bool:
    """Whether a checkpoint says that it is of another run; a damaged one says nothing."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        return not checkpoints.run.is_named_by(_description(checkpoints, step))
    return False


def _description(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """What was saved with a checkpoint's arrays; orbax takes a hundred times as long to read it, in all processes."""
    # Not by read_json, which refuses infinity: the best loss before the first epoch has ended.
    return {**json.loads(read_regular(checkpoints.path(step) / _METADATA))["custom_metadata"]}


def latest_description(run_dir: Path) -> dict[str, Any]:
    """Returns what was saved with the arrays of a run's latest intact checkpoint; {} if there is none.

    Raises:
      RunDirError: a checkpoint cannot be read.
    """
    if not (run_dir / rundir.CHECKPOINTS).is_dir():
        return {}
    checkpoints = Checkpoints(None, run_dir, rundir.read_identity(run_dir))
    for step in steps(checkpoints):
        with suppress(DamagedError), reading(checkpoints.path(step)):
            check_files(checkpoints.path(step))
            description = _description(checkpoints, step)
            if checkpoints.run.is_named_by(description):
                return description
    return {}


def _is_own(path: Path) -> bool:
    """Whether something in checkpoints/ is a checkpoint, or a part of one, and holds nothing else."""
    if not path.is_dir() or path.is_symlink():
        return False
    try:
        is_whole = all(entry.name.startswith((*_PARTS, f".{MANIFEST}.")) for entry in path.iterdir())
    except OSError:
        return False
    return _TEMPORARY in path.name or (path.name.isdecimal() and is_whole)


def remove_unfinished(checkpoints: Checkpoints) -> None:
    """Removes what a killed process was writing or removing."""
    if is_primary():
        for path in checkpoints.directory.iterdir():
            if not (path / MANIFEST).exists() and _is_own(path):
                shutil.rmtree(path, ignore_errors=True)
    checkpoints.orbax.reload()


def set_aside(directory: Path, aside: Path) -> None:
    """Moves a damaged checkpoint into a directory; raises RunDirError if it cannot be moved."""
    try:
        aside.mkdir(exist_ok=True)
        target, number = aside / directory.name, 1
        while os.path.lexists(target):
            number += 1
            target = aside / f"{directory.name}-{number}"
        directory.rename(target)
    except OSError as error:
        raise RunDirError(
            f"cannot move {directory}, which is damaged, to {aside}: {error.strerror}; fix that, or move it yourself"
        ) from error
