"""Converts image files to arrays in the format of the data set. Anything that is not an image is a DataError."""

import ctypes
import io
import logging
import os
import stat
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn.errors import DataError, printable

MAX_BYTES = 32 * 2**20
"""Maximum size of a file; a larger one is not read."""


MAX_PIXELS = 40_000_000
"""Maximum size of an image, below Pillow's own limit: a few kilobytes can expand to gigabytes."""

SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WebP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
"""The formats that are read, and the suffixes by which they are found in a directory."""

*_NAMES, _LAST = SUFFIXES
FORMATS = f"{', '.join(_NAMES)} or {_LAST}"
"""The formats, in words."""

# What Pillow logs about a damaged file would be a second line on stderr, where nobody handles its log.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _read_bytes(path: str | os.PathLike) -> bytes:
    if os.fspath(path) == "-":
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes, the maximum")
        return content
    # Opening a FIFO without a writer would block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            is_directory = stat.S_ISDIR(status.st_mode)
            raise ValueError("a directory without an image file" if is_directory else "not a regular file")
        if status.st_size > MAX_BYTES:
            raise ValueError(f"{status.st_size:,} bytes, but at most {MAX_BYTES:,} are read")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(descriptor)


@cache
def _silence_libtiff() -> None:
    """Stops libtiff, by which Pillow decodes, from writing lines of its own to stderr besides returning an error."""
    from PIL import Image

    # Pillow has no function for it; where libtiff is linked in another way, the lines remain.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


class DecodedImage(NamedTuple):
    """An image from a file."""

    pixels: np.ndarray
    """uint8 [H, W, C]."""
    inverted: bool
    """Whether dark and light were swapped."""
    first_of_several: bool = False
    """Whether the file has further frames or pages."""


def read_image(path: str | os.PathLike, shape: Sequence[int] = (28, 28, 1), invert: bool | None = None) -> np.ndarray:
    """Returns the image in a file in the format of the data set: uint8 [H, W, C].

    The file is PNG, JPEG, WebP, BMP, GIF or TIFF; of several frames or pages, the first one is read.

    The longer side is scaled to fit, and the image centred on its own background. A grey image is made light on dark:
    it is inverted if its border pixels are mostly light, as in a photo of a thing on a table. Transparent pixels
    become white. An image of the right size with a dark border keeps its pixels.

    Args:
      path: file name; "-" for standard input.
      shape: height, width and channels (1 or 3).
      invert: whether a grey image is inverted; None decides by its border.

    Raises:
      DataError: the file is not a regular file, too large, damaged, of another format, or has pixels of 32 bits.
    """
    with warnings.catch_warnings():
        # Pillow warns where an error is raised here.
        warnings.simplefilter("ignore")
        return decode_image(path, shape, invert).pixels


def decode_image(path: str | os.PathLike, shape: Sequence[int], invert: bool | None) -> DecodedImage:
    """Returns the image of ``read_image``, and how it was read; Pillow's warnings are not caught."""
    from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

    height, width, channels = shape
    try:
        content = _read_bytes(path)
        # Pillow accepts a truncated PNG file as complete.
        if content.startswith(b"\x89PNG") and b"IEND" not in content:
            raise ValueError("the PNG file has no end")
        image = Image.open(io.BytesIO(content), formats=[name.upper() for name in SUFFIXES])
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, but at most {MAX_PIXELS:,} are decoded")
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _silence_libtiff()
            # A tile is decoded as a whole, however little of it is in the image.
            tile_width, tile_height = (int(image.tag_v2.get(tag, 0)) for tag in (322, 323))
            if tile_width * tile_height > MAX_PIXELS:
                raise ValueError(
                    f"tiles of {tile_width} x {tile_height} pixels, but at most {MAX_PIXELS:,} are decoded"
                )
        # A phone's JPEG file (MPO) may hold a depth map or another exposure after its picture.
        first_of_several = image.format != "MPO" and getattr(image, "is_animated", False)
        image.load()
        if image.mode in ("I", "F"):
            raise ValueError("pixels of 32 bits, of which black and white are unknown; save it with 8 or 16 bits")
        # A phone's picture may be stored rotated, with an EXIF tag for it.
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            # 16 bits per pixel, which Pillow would clip at 255.
            image = Image.fromarray((np.asarray(image, np.int64) // 257).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB").convert("L" if channels == 1 else "RGB")
        pixels = np.asarray(image)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        background = np.median(border.reshape(len(border), -1), axis=0)
        inverted = channels == 1 and bool(background > 127 if invert is None else invert)
        if inverted:
            image, background = ImageOps.invert(image), 255 - background
        colour = tuple(int(value) for value in np.atleast_1d(background))
        if image.size != (width, height):
            image = ImageOps.pad(image, (width, height), color=colour[0] if channels == 1 else colour)
        return DecodedImage(np.asarray(image, np.uint8).reshape(height, width, channels), inverted, first_of_several)
    # Pillow raises exceptions of many types, MemoryError among them.
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = (reason.splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnidentifiedImageError):
            reason = "of another format, or damaged"
        raise DataError(f"{printable(path)}: {reason}; give a {FORMATS} file") from error


def image_files(names: Sequence[Path]) -> list[Path]:
    """Returns the named files; a directory is replaced by its image files, identified by their suffixes."""
    suffixes = {suffix for group in SUFFIXES.values() for suffix in group}
    files = []
    for name in names:
        images = []
        # A directory that is unreadable or without images stays in the list: it gets an error line, like any non-image.
        with suppress(OSError):
            images = sorted(path for path in name.iterdir() if path.suffix.lower() in suffixes)
        files += images or [name]
    return files
