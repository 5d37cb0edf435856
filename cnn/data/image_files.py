"""Converts image files to arrays in the format of the data set. Anything that is not an image is a DataError."""

import io
import os
import stat
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn.errors import DataError, printable

MAX_BYTES = 32 * 2**20
"""Maximum size of a file; a larger one is not read."""


MAX_PIXELS = 40_000_000
"""Maximum size of an image, below Pillow's own limit: a few kilobytes can expand to gigabytes."""


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
            raise ValueError("a directory without a PNG or JPEG file" if is_directory else "not a regular file")
        if status.st_size > MAX_BYTES:
            raise ValueError(f"{status.st_size:,} bytes, but at most {MAX_BYTES:,} are read")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(descriptor)


class DecodedImage(NamedTuple):
    """An image from a file."""

    pixels: np.ndarray
    """uint8 [H, W, C]."""
    inverted: bool
    """Whether dark and light were swapped."""


def read_image(path: str | os.PathLike, shape: Sequence[int] = (28, 28, 1), invert: bool | None = None) -> np.ndarray:
    """Returns the image in a PNG or JPEG file in the format of the data set: uint8 [H, W, C].

    The longer side is scaled to fit, and the image centred on its own background. A grey image is made light on dark:
    it is inverted if its border pixels are mostly light, as in a photo of a thing on a table. Transparent pixels
    become white. An image of the right size with a dark border keeps its pixels.

    Args:
      path: file name; "-" for standard input.
      shape: height, width and channels (1 or 3).
      invert: whether a grey image is inverted; None decides by its border.

    Raises:
      DataError: the file is not a regular file, too large, damaged, animated, or not an image.
    """
    with warnings.catch_warnings():
        # Pillow warns where an error is raised here.
        warnings.simplefilter("ignore")
        return decode_image(path, shape, invert).pixels


def decode_image(path: str | os.PathLike, shape: Sequence[int], invert: bool | None) -> DecodedImage:
    """Returns the image of ``read_image``, and whether it was inverted; Pillow's warnings are not caught."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width, channels = shape
    try:
        content = _read_bytes(path)
        # Pillow accepts a truncated PNG file as complete.
        if content.startswith(b"\x89PNG") and b"IEND" not in content:
            raise ValueError("the PNG file has no end")
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, but at most {MAX_PIXELS:,} are decoded")
        if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
            raise ValueError("animated; save one of its frames")
        image.load()
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
        return DecodedImage(np.asarray(image, np.uint8).reshape(height, width, channels), inverted)
    # Pillow raises exceptions of many types, MemoryError among them.
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = (reason.splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnidentifiedImageError):
            reason = "neither PNG nor JPEG, or damaged"
        raise DataError(f"{printable(path)}: {reason}; give a PNG or JPEG file") from error


def image_files(names: Sequence[Path]) -> list[Path]:
    """Returns the named files; a directory is replaced by its PNG and JPEG files, identified by their suffixes."""
    files = []
    for name in names:
        images = []
        # A directory that is unreadable or without images stays in the list: it gets an error line, like any non-image.
        with suppress(OSError):
            images = sorted(path for path in name.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
        files += images or [name]
    return files
