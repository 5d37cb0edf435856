"""The tests' compilation cache, kept from one run of the suite to the next: most of a first run's time is compiling."""

import atexit
import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import jax

from cnn.data.cache import cache_directory
from cnn.errors import DataError

MAX_BYTES = 300_000_000
"""A larger directory is emptied: programs of code that has changed stay in it."""


SETTLED_SECONDS = 20
"""An entry that is this old is complete."""


def claim_directory(worker: str) -> str:
    """Returns a directory that no other process has until this one ends, as JAX does not write its entries atomically.

    It is ``~/.cache/fashion-cnn/tests/JAX VERSION/PYTHON VERSION/WORKER``. It is a temporary one if there is no home,
    if that cannot be written, or if another process has it. Directories of other versions of JAX are removed.
    """
    try:
        versions = cache_directory("tests") / jax.__version__
        directory = versions / f"{sys.version_info.major}.{sys.version_info.minor}" / worker
        directory.mkdir(parents=True, exist_ok=True)
        # Held by the open file until the process ends.
        fcntl.flock(os.open(directory / "lock", os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX | fcntl.LOCK_NB)
        programs = directory / "programs"
        if programs.exists() and sum(path.stat().st_size for path in programs.iterdir()) > MAX_BYTES:
            shutil.rmtree(programs)
        programs.mkdir(exist_ok=True)
        link_programs(programs)
    except (OSError, DataError):
        return temporary_directory()
    for other in versions.parent.iterdir():
        if other != versions:
            shutil.rmtree(other, ignore_errors=True)
    return str(programs)


def link_programs(programs: Path) -> None:
    """Adds to a worker's directory what the others have compiled, in earlier runs and in this one so far."""
    for entry in programs.parents[1].glob("*/programs/*"):
        # Another suite, with another JAX, may remove them meanwhile: then they are compiled again.
        with contextlib.suppress(OSError):
            # A newer one may be half written.
            if not (programs / entry.name).exists() and entry.stat().st_mtime < time.time() - SETTLED_SECONDS:
                os.link(entry, programs / entry.name)


def temporary_directory() -> str:
    """Returns a directory without other workers beside it, which is removed when this process ends."""
    directory = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    programs = Path(directory, "main", "programs")
    programs.mkdir(parents=True)
    return str(programs)
