"""A layer read from a file of Keras or PyTorch, and what its readers share: size limits, one line for any damage."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn.errors import UserError, first_cause

MAX_BYTES = 2**28
"""Maximum size of a file, of an archive's files in total, and of the arrays in total."""


class SourceLayer(NamedTuple):
    """A layer with weights, in the order of the file."""

    name: str
    kind: str
    """``Conv``, ``Dense``, ``Recurrent`` or ``other``."""
    leaves: dict[str, np.ndarray]
    """float32 ``kernel``, [H, W, C, F] or [inputs, outputs], and ``bias``, if it has one; of a recurrent layer as in
    ``cnn.models.recurrent.Recurrent``."""


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Raises UserError if a file is missing or too large, or if its content causes any exception."""
    if not path.is_file():
        raise UserError(f"{path} is not a file; name a file of Keras or PyTorch, or a .safetensors file")
    check_size(path.stat().st_size, path)
    try:
        yield
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is damaged, or not from Keras, or PyTorch 1.6 and later ({error}); save it again"
        ) from error
    # Damage in a zip, JSON, HDF5 or pickle raises exceptions of many types.
    except Exception as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {first_cause(error)}); save it again") from error


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yields a zip archive that is not too large to be read."""
    with zipfile.ZipFile(path) as archive:
        check_size(sum(member.file_size for member in archive.infolist()), path)
        yield archive


def check_size(size: int, path: Path) -> None:
    """Raises UserError if a file, or its arrays, exceed ``MAX_BYTES``."""
    if size > MAX_BYTES:
        raise UserError(f"{path} holds {size:,} bytes, but at most {MAX_BYTES:,} are read")
