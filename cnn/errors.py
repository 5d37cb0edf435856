"""What can be wrong: the user's input (exit status 2), a checkpoint (1), a signal (130, 143)."""

import importlib
import os
import signal
from typing import Any


class UserError(Exception):
    """Something the user gave is wrong. Its message is one line: the value, what is allowed, the way out."""


class ConfigError(UserError):
    """A field of the configuration has a value that is not allowed."""


class DataError(UserError):
    """Images or labels are missing, damaged, or not of the wanted shape, dtype or range."""


class RunDirError(UserError):
    """A run directory cannot be used: it holds something else, is read-only, full, or has no checkpoint."""


class DamagedError(Exception):
    """A checkpoint is not whole any more. Its message is one line, with the way out."""


class Stopped(KeyboardInterrupt):
    """A signal came; what it interrupted has been saved."""

    def __init__(self, number: int, message: str = ""):
        """Keeps the signal's number, of which the exit status follows."""
        super().__init__(message)
        self.number = signal.Signals(number)


def first_cause(error: BaseException) -> str:
    """Returns the first line of the exception from which, one after another, this one was raised."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")


def import_extra(package: str) -> Any:
    """Returns a package that only exporting and importing networks need.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"this needs the package {package}; pip install -c constraints.txt -e '.[exchange]' brings it"
        ) from error


def printable(path: str | os.PathLike) -> str:
    """Returns a file's name on one line, whatever bytes it is made of."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
