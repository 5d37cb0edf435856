"""Exceptions: wrong user input (exit status 2), a damaged checkpoint (1), a signal (130, 143)."""

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from cnn.text import listed, one_line, reason


class UserError(Exception):
    """Wrong user input. The message is one line: the value, what is allowed, a hint."""

    def __init__(self, message: object = ""):
        """Stores the message on one line, names and values in it escaped, at most 300 characters."""
        super().__init__(one_line(message))


class ConfigError(UserError):
    """A field of the configuration has a value that is not allowed."""


class FamilyError(ConfigError):
    """The network of a configuration is of a family that has not been imported."""


class DataError(UserError):
    """Images or labels are missing, damaged, or of the wrong shape, dtype or range."""


class RunDirError(UserError):
    """A run directory cannot be used: it holds other files, is read-only or full, or has no checkpoint."""


class DamagedError(Exception):
    """A checkpoint is damaged. The message is one line, with a hint."""

    def __init__(self, message: object = ""):
        """Stores the message as ``UserError`` does."""
        super().__init__(one_line(message))


class Stopped(KeyboardInterrupt):
    """A signal was received; the interrupted run has been saved."""

    def __init__(self, number: int, message: str = ""):
        """Stores the signal's number, which determines the exit status."""
        super().__init__(message)
        self.number = signal.Signals(number)


def first_cause(error: BaseException) -> str:
    """Returns the root cause in a few words: the reason of the first exception of the chain that led to this one."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    return reason(error)


def jax_error(error: Exception) -> Exception:
    """Returns the error of importing JAX in one line, if the environment has settings of JAX, as it may refuse one.

    If nobody catches it, the process ends with that line and exit status 2.
    """
    settings = [name for name in os.environ if name.startswith("JAX_")]
    if not settings:
        return error
    sys.excepthook = report_and_exit
    return UserError(f"JAX does not start ({reason(error)}); change or unset {listed(settings)}")


def report_and_exit(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """A ``sys.excepthook``: prints a user's error on one line and ends with exit status 2."""
    if not isinstance(error, UserError):
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


def import_extra(package: str, extra: str = "exchange") -> Any:
    """Returns a package that only export and import need, and that an extra installs.

    Raises:
      UserError: the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"the package {package} is not installed; run {install_command(extra)}") from error


def install_command(extra: str) -> str:
    """Returns the command that adds an extra: to a clone with its pinned versions, or to the installed package."""
    clone = Path(__file__).parents[1]
    if not (clone / "constraints.txt").exists():
        return f"pip install 'fashion-cnn[{extra}]'"
    place = Path() if Path.cwd() == clone else clone
    return f"pip install -c {place / 'constraints.txt'} -e '{place}[{extra}]'"
