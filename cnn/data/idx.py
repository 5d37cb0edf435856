"""Reads and verifies the idx files of the MNIST family; the digests are those of Fashion-MNIST."""

import gzip
import hashlib
import math
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn.datasets import DATASETS, DatasetName
from cnn.errors import DataError


class Arrays(NamedTuple):
    """A data set: images uint8 [N, H, W, C], labels uint8 [N], all in C order."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


class IdxFile(NamedTuple):
    """A published file of the MNIST family; the digest and the time are those of Fashion-MNIST."""

    name: str
    sha256: str
    """Hex digest of the decompressed bytes."""
    mtime: int
    """Time of compression in the published gzip header, in seconds since 1970."""


IDX_FILES = {
    "train_images": IdxFile(
        "train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 1504176606
    ),
    "train_labels": IdxFile(
        "train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 1504176606
    ),
    "test_images": IdxFile(
        "t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 1504176627
    ),
    "test_labels": IdxFile(
        "t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 1504176627
    ),
}
"""Files by field of Arrays."""


def array_shapes(name: DatasetName) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each field of Arrays."""
    known = DATASETS[name]
    return {
        "train_images": (known.train_images, *known.image_shape),
        "train_labels": (known.train_images,),
        "test_images": (known.test_images, *known.image_shape),
        "test_labels": (known.test_images,),
    }


def idx_header(shape: tuple[int, ...]) -> bytes:
    """Returns the header of a uint8 array in the idx format, in which gray images have no channel axis.

    Two zero bytes, 8 for uint8, the number of dimensions, and each of them as a big-endian uint32 (LeCun, Cortes and
    Burges, "The MNIST database of handwritten digits").
    """
    if len(shape) == 4 and shape[-1] == 1:
        shape = shape[:-1]
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)


def array_digest(array: np.ndarray) -> str:
    """Returns the hex SHA-256 of the idx file that holds a uint8 array in C order."""
    digest = hashlib.sha256(idx_header(array.shape))
    digest.update(array.data)
    return digest.hexdigest()


def _describe(size: int, start: bytes) -> str:
    rank = start[3] if start[:4] in (b"\0\0\x08\x01", b"\0\0\x08\x03") else 0
    if not rank or len(start) < 4 + 4 * rank:
        return f"{size:,} bytes that start with {start[:4].hex() or 'nothing'}"
    return f"{size:,} bytes with the idx header of shape {struct.unpack_from(f'>{rank}I', start, 4)}"


def read_idx(path: Path, shape: tuple[int, ...], sha256: str | None = None) -> np.ndarray:
    """Returns the array in an idx file.

    Args:
      path: the file, decompressed when its name ends in .gz.
      shape: the expected shape, which is returned; the files omit the channel axis of gray images.
      sha256: the expected hex digest of the decompressed bytes, if known.

    Returns:
      A uint8 array, read-only.

    Raises:
      DataError: the file cannot be read, or has other content.
    """
    header = idx_header(shape)
    size = len(header) + math.prod(shape)
    try:
        # Reading a FIFO would block.
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            content = stream.read(size + 1)  # One more byte reveals a longer file, and bounds what a bomb unpacks.
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); expected idx data of shape {shape}") from None
    if len(content) != size or not content.startswith(header):
        at_least = "at least " if len(content) > size else ""
        actual, expected = _describe(len(content), content), _describe(size, header)
        raise DataError(f"{path}: got {at_least}{actual}, expected {expected}")
    digest = hashlib.sha256(content).hexdigest()
    if sha256 and digest != sha256:
        raise DataError(f"{path}: got SHA-256 {digest}, expected {sha256} (of the decompressed bytes)")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def read_idx_directory(directory: str | os.PathLike) -> Arrays:
    """Returns Fashion-MNIST from a directory with its four idx files, plain or .gz, each verified by its SHA-256.

    Raises:
      DataError: a file is missing, damaged, or not the one that its name denotes.
    """
    shapes = array_shapes("fashion_mnist")
    arrays = {}
    for field, file in IDX_FILES.items():
        plain = Path(directory) / file.name
        path = next((p for p in (plain, Path(f"{plain}.gz")) if os.path.exists(p)), None)
        if path is None:
            names = ", ".join(f.name for f in IDX_FILES.values())
            raise DataError(f"{plain} is missing, plain or .gz; expected a directory with {names}")
        arrays[field] = read_idx(path, shapes[field], file.sha256)
    return Arrays(**arrays)
