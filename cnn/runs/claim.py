"""The lock of a run directory: one process at a time trains there."""

import fcntl
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cnn.config import ExperimentConfig
from cnn.devices.processes import is_primary, primary_first
from cnn.errors import RunDirError
from cnn.runs import outputs, rundir


@contextmanager
def lock(run_dir: Path, config: ExperimentConfig) -> Iterator[Callable[[], None]]:
    """Locks the directory for this run: a new one, or one that holds an unfinished run of this configuration.

    Gives a function that raises RunDirError if the lock is lost: if the directory was removed, and another run has
    started in its place, that run must not get what this one writes. The primary process locks for all processes.

    Raises:
      RunDirError: it holds something else, or a run of another configuration, is in use, or cannot be written to.
    """
    made = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
    lock = None

    def check():
        with primary_first():
            _check_held(lock, run_dir)

    try:
        with primary_first():
            if is_primary():
                lock = _locked(run_dir, config)
        yield check
    finally:
        if lock is not None:
            # A run that was refused before it wrote anything leaves nothing.
            with suppress(OSError):
                if made and _is_held(lock, run_dir) and os.listdir(run_dir) == [rundir.LOCK]:
                    (run_dir / rundir.LOCK).unlink()
                    for path in made:
                        path.rmdir()
            os.close(lock)


def _is_held(lock: int, run_dir: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(lock), os.stat(run_dir / rundir.LOCK))
    return False


def _check_held(lock: int | None, run_dir: Path) -> None:
    # If the directory is gone, the next write reports it.
    if lock is not None and run_dir.exists() and not _is_held(lock, run_dir):
        raise RunDirError(
            f"{run_dir} no longer belongs to this run: it or its {rundir.LOCK} was removed; run the same command again "
            "to resume what is there, or name another --run-dir"
        )


def _locked(run_dir: Path, config: ExperimentConfig) -> int:
    """Returns the descriptor of a lock that ends with the process, however that ends."""
    hint = "name another directory with --run-dir"
    outputs.check_new_run(run_dir)
    try:
        rundir.check_entries(run_dir, config)
        run_dir.mkdir(parents=True, exist_ok=True)
        # The file stays: removing it would be a race.
        lock = os.open(run_dir / rundir.LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise RunDirError(f"cannot use {run_dir}: {error.strerror}; {hint}") from error
    try:
        _hold(lock, run_dir, hint)
        # Once more: another process may have started a run meanwhile.
        rundir.check_entries(run_dir, config)
    except OSError as error:
        os.close(lock)
        raise RunDirError(f"cannot use {run_dir}: {error.strerror}; {hint}") from error
    except BaseException:
        os.close(lock)
        raise
    return lock


def _hold(lock: int, run_dir: Path, hint: str) -> None:
    # Reading a pipe would wait for its writer.
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        raise RunDirError(f"{run_dir / rundir.LOCK} is not a regular file; {hint}")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 200).decode(errors="replace") or "another process"
        raise RunDirError(f"{run_dir} is in use by {holder}; wait for it, or {hint}") from error
    if (content := os.read(lock, 200)) and not content.startswith(rundir.LOCKED):
        raise RunDirError(f"{run_dir / rundir.LOCK} is not what a run writes; {hint}")
    os.ftruncate(lock, 0)
    os.pwrite(lock, rundir.LOCKED + f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
