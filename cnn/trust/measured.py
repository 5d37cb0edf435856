"""What ``evaluate --robust`` and ``evaluate --unknown`` have measured, read from a run and checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn.errors import RunDirError
from cnn.text import read_json, reason

Numbers = tuple[list[Any], list[Any]]
"""All counts and all shares in a file."""


def read_measured(path: Path, option: str, numbers: Callable[[dict[str, Any]], Numbers]) -> dict[str, Any] | None:
    """Returns the content of a file in a run's directory; None if there is none.

    Args:
      path: of the file.
      option: of ``python -m cnn evaluate``, which writes it.
      numbers: returns its counts, which must be integers of at least 0, and its shares, floats from 0 to 1; raises
        ValueError, TypeError, KeyError or AttributeError for another structure.

    Raises:
      RunDirError: it is damaged, or of another version.
    """
    if not path.exists():
        return None
    try:
        values = read_json(path)
        counts, shares = numbers(values)
        is_whole = all(type(count) is int and count >= 0 for count in counts)
        if not is_whole or not all(type(share) is float and -1e-9 <= share <= 1 + 1e-9 for share in shares):
            raise ValueError("a number is out of range")
        return values
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        hint = f"remove it, or python -m cnn evaluate {path.parent} {option} writes it again"
        raise RunDirError(f"cannot read {path}: {reason(error)}; {hint}") from error
