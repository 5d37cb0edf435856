"""Exceptions: wrong user input (exit status 2), a damaged checkpoint (1), a signal (130, 143)."""

import importlib
import os
import signal
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Wrong user input. The message is one line: the value, what is allowed, a hint."""


class ConfigError(UserError):
    """A field of the configuration has a value that is not allowed."""


class DataError(UserError):
    """Images or labels are missing, damaged, or of the wrong shape, dtype or range."""


class RunDirError(UserError):
    """A run directory cannot be used: it holds other files, is read-only or full, or has no checkpoint."""


class DamagedError(Exception):
    """A checkpoint is damaged. The message is one line, with a hint."""


class Stopped(KeyboardInterrupt):
    """A signal was received; the interrupted run has been saved."""

    def __init__(self, number: int, message: str = ""):
        """Stores the signal's number, which determines the exit status."""
        super().__init__(message)
        self.number = signal.Signals(number)


def first_cause(error: BaseException) -> str:
    """Returns the first line of the root cause: the first exception of the chain that led to this one."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")


def import_extra(package: str) -> Any:
    """Returns a package that only export and import need.

    Raises:
      UserError: the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"the package {package} is not installed; run {install_command('exchange')}") from error


def install_command(extra: str) -> str:
    """Returns the command that adds an extra: to a clone with its pinned versions, or to the installed package."""
    clone = Path(__file__).parents[1]
    if not (clone / "constraints.txt").exists():
        return f"pip install 'fashion-cnn[{extra}]'"
    place = Path() if Path.cwd() == clone else clone
    return f"pip install -c {place / 'constraints.txt'} -e '{place}[{extra}]'"


def printable(path: str | os.PathLike) -> str:
    """Returns a file name on one line, with unprintable bytes escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
