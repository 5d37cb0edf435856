"""Text that others have written: names and values printed on one line, regular files, and JSON, all with limits."""

import hashlib
import itertools
import json
import math
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any

LINE = 300
"""Maximum length of a message, in characters."""

VALUE = 100
"""Maximum length of a value in a message, in characters."""

MAX_BYTES = 2**28
"""Maximum size of a text file that is read."""

MAX_DEPTH = 64
"""Maximum nesting of objects and arrays in JSON."""


def printable(text: str | bytes | os.PathLike, limit: int | None = None) -> str:
    """Returns a text or file name on one line, unprintable characters and bytes escaped, shortened to a limit."""
    text = os.fspath(text)
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escape(c) for c in text)
    if limit is None or len(text) <= limit:
        return text
    # The end of a message is its hint, and the end of a path its name.
    end = limit // 3
    return f"{text[: limit - end - 5]} ... {text[-end:]}"


def _escape(character: str) -> str:
    """An unprintable character, or a byte of a file name that is not UTF-8, escaped as in a Python string."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def one_line(message: object) -> str:
    """Returns a message on one line of at most ``LINE`` characters, unprintable characters escaped."""
    return printable(str(message).strip(), LINE)


def columns(text: str) -> int:
    """Returns the width of a text, in columns of a terminal: a wide character, such as one of Hangul, takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def shortened(text: str, limit: int) -> str:
    """Returns a text of at most ``limit`` columns: of a longer one, its beginning and its end."""
    if columns(text) <= limit:
        return text
    end = limit // 3
    return f"{_cut(text, limit - end - 1)}…{_cut(text[::-1], end)[::-1]}"


def _cut(text: str, limit: int) -> str:
    """The beginning of a text, of at most ``limit`` columns."""
    return text[: sum(width <= limit for width in itertools.accumulate(map(columns, text)))]


def shown(value: object) -> str:
    """Returns a value as Python writes it, on one line of at most ``VALUE`` characters."""
    try:
        return printable(repr(value), VALUE)
    except Exception:
        # For example, an integer of more digits than Python converts.
        return f"a value of type {type(value).__name__} that cannot be printed"


def listed(values: Any) -> str:
    """Returns values separated by commas, shortened to ``VALUE`` characters."""
    return printable(", ".join(map(str, values)), VALUE)


@contextmanager
def open_regular(path: str | os.PathLike) -> Iterator[BufferedReader]:
    """Opens a regular file for reading; never waits, as opening or reading a pipe would.

    Raises:
      OSError: the file cannot be opened or read.
      ValueError: it is not a regular file; the message is the reason alone.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("a directory" if stat.S_ISDIR(mode) else "not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_regular(path: str | os.PathLike, max_bytes: int = MAX_BYTES) -> bytes:
    """Returns the content of a regular file.

    Raises:
      OSError, ValueError: as of ``open_regular``, or it is larger than ``max_bytes``.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise ValueError(f"{size:,} bytes, but at most {max_bytes:,} are read")
        return file.read(max_bytes)


def regular_digest(path: str | os.PathLike) -> str:
    """Returns the hex SHA-256 of a regular file's bytes, which are read in parts.

    Raises:
      OSError, ValueError: as of ``open_regular``.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(text: str | bytes, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Returns the value of a JSON text: UTF-8, finite numbers of 64 bits, at most ``MAX_DEPTH`` levels, no surrogates.

    Args:
      text: the text.
      object_hook: returns what stands for each object, before it is checked.

    Raises:
      ValueError: the text is not such JSON; the message is the reason alone, on one line.
    """
    try:
        value = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text, object_hook=object_hook)
    except RecursionError:
        raise ValueError(f"JSON of more than {MAX_DEPTH} levels") from None
    except ValueError:
        # Also an integer of more digits than Python converts, and bytes that are not UTF-8.
        raise ValueError("not JSON") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        if not level:
            return value
        below = []
        for item in level:
            if isinstance(item, dict):
                below += [*item, *item.values()]
            elif isinstance(item, list):
                below += item
            else:
                _check_scalar(item)
        level = below
    raise ValueError(f"JSON of more than {MAX_DEPTH} levels")


def _check_scalar(value: Any) -> None:
    """Raises ValueError for a value that JSON or this project's formats do not know."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError("JSON with half of a surrogate pair")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("JSON with a number that is not finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("JSON with an integer beyond 64 bits")


def read_json(path: str | os.PathLike) -> Any:
    """Returns the value in a JSON file.

    Raises:
      OSError, ValueError: as of ``read_regular`` and ``parse_json``; ``reason`` gives the words for a message.
    """
    return parse_json(read_regular(path))


def read_json_lines(path: str | os.PathLike) -> list[Any]:
    """Returns the values in a file of JSON lines.

    Raises:
      OSError, ValueError: as of ``read_json``.
    """
    return [parse_json(line) for line in read_regular(path).splitlines()]


def reason(error: BaseException) -> str:
    """Returns why, in a few words on one line: the system's words for an OSError, else the message's first line."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable((words.strip().splitlines() or [type(error).__name__])[0].rstrip(":"), VALUE * 2)
