"""The one way in which files are written: whole, or not at all."""

import errno
import fcntl
import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path, prefix: str = "") -> Iterator[Path]:
    """Gives the path of a temporary file that in the end becomes ``path``: a reader finds the old content or the new.

    Removes temporary files of the same path whose processes were killed: these no longer hold their locks.

    Args:
      path: of the file.
      prefix: of the temporary file's name, before the number of the process; by default the name, hidden.

    Raises:
      OSError: the file cannot be written, or ``path`` is a directory, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "not a regular file")
    # A name may have 255 bytes.
    prefix = prefix or os.fsdecode(os.fsencode(f".{path.name}")[:240])
    for other in path.parent.glob(f"{glob.escape(prefix)}.*"):
        if other.name[len(prefix) + 1 :].isdecimal() and other.is_file():
            with suppress(OSError), open(other, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                other.unlink()
    temporary = path.with_name(f"{prefix}.{os.getpid()}")
    with open(temporary, "wb") as file:
        try:
            # A file system without locks keeps what killed processes leave.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield temporary
            os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
