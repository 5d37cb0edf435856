"""Converts image files to arrays in the format of the data set. Anything that is not an image is a DataError."""

import ctypes
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from cnn.config import DataConfig
from cnn.errors import DataError
from cnn.rules import FILE, YES_NO, Rule, checked, integer, one_of, optional
from cnn.text import printable, read_regular, reason

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

ALL_SUFFIXES = frozenset(suffix for group in SUFFIXES.values() for suffix in group)

*_NAMES, _LAST = SUFFIXES
FORMATS = f"{', '.join(_NAMES)} or {_LAST}"
"""The formats, in words."""

HINT = f"; give a {FORMATS} file"
"""The end of an image's error."""

# What Pillow logs about a damaged file would be a second line on stderr, where nobody handles its log.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def read_bytes(path: str | os.PathLike) -> bytes:
    """Returns the bytes of a regular file of at most ``MAX_BYTES``, or of standard input ("-")."""
    if os.fspath(path) != "-":
        return read_regular(path, MAX_BYTES)
    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes, the maximum")
    return content


@cache
def _silence_libtiff() -> None:
    """Stops libtiff, by which Pillow decodes, from writing lines of its own to stderr besides returning an error."""
    from PIL import Image

    # Pillow has no function for it; where libtiff is linked in another way, the lines remain.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


Resize = Literal["crop", "pad", "stretch"]
"""How an image of another shape is made to fit: its centre, the whole with a margin, or the whole distorted."""


class DecodedImage(NamedTuple):
    """An image from a file."""

    pixels: np.ndarray
    """uint8 [H, W, C]."""
    inverted: bool
    """Whether dark and light were swapped."""
    first_of_several: bool = False
    """Whether the file has further frames or pages."""


_SHAPE = Rule(
    lambda shape: isinstance(shape, tuple | list) and len(shape) == 3 and all(map(integer(1, 4096).holds, shape)),
    "height, width and channels of an image",
)


@checked(path=FILE, shape=_SHAPE, invert=optional(YES_NO), resize=one_of(get_args(Resize)))
def read_image(
    path: str | os.PathLike,
    shape: Sequence[int] = (28, 28, 1),
    invert: bool | None = None,
    resize: Resize = "pad",
) -> np.ndarray:
    """Returns the image in a file in the format of the data set: uint8 [H, W, C].

    The file is PNG, JPEG, WebP, BMP, GIF or TIFF; of several frames or pages, the first one is read.

    The longer side is scaled to fit, and the image centred on its own background. A grey image is made light on dark:
    it is inverted if its border pixels are mostly light, as in a photo of a thing on a table. Transparent pixels
    become white. An image of the right size with a dark border keeps its pixels.

    Args:
      path: file name; "-" for standard input.
      shape: height, width and channels (1 or 3).
      invert: whether a grey image is inverted; None decides by its border.
      resize: how an image of another shape is made to fit: "pad" as said above, "crop" its centre, "stretch" all of it.

    Raises:
      DataError: the file is not a regular file, too large, damaged, of another format, or has pixels of 32 bits.
    """
    with warnings.catch_warnings():
        # Pillow warns where an error is raised here.
        warnings.simplefilter("ignore")
        return decode_image(path, shape, invert, resize).pixels


def reading(config: DataConfig, invert: bool | None = None) -> dict[str, Any]:
    """Returns the arguments of ``read_image`` with which a file is read as the images of a data set were.

    Published images are light on dark, which an image's border decides; one's own, and scenes, are taken as they are.
    """
    if config.name == "images":
        return {"shape": config.image_shape, "invert": bool(invert), "resize": config.resize}
    return {"shape": config.image_shape, "invert": bool(invert) if config.scenes else invert}


def decode_image(
    path: str | os.PathLike, shape: Sequence[int], invert: bool | None = None, resize: Resize = "pad"
) -> DecodedImage:
    """Returns the image of ``read_image``, and how it was read; Pillow's warnings are not caught."""
    with one_line_errors(path):
        image, first_of_several = open_image(read_bytes(path))
        return DecodedImage(*fit_image(image, shape, invert, resize), first_of_several)


@contextmanager
def one_line_errors(name: str | os.PathLike) -> Iterator[None]:
    """Turns any exception of an image's decoding into a DataError of one line with the image's name."""
    from PIL import UnidentifiedImageError

    try:
        yield
    # Pillow raises exceptions of many types, MemoryError among them.
    except Exception as error:
        problem = "of another format, or damaged" if isinstance(error, UnidentifiedImageError) else reason(error)
        raise DataError(f"{printable(name)}: {problem}{HINT}") from error


def open_image(content: bytes) -> tuple[Any, bool]:
    """Returns the image in a file's bytes and whether further frames or pages follow it.

    It is a PIL image in mode L or RGB, decoded, upright and on white where it was transparent. Raises exceptions of
    many types.
    """
    from PIL import Image, ImageOps, TiffImagePlugin

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
            raise ValueError(f"tiles of {tile_width} x {tile_height} pixels, but at most {MAX_PIXELS:,} are decoded")
    # A phone's JPEG file (MPO) may hold a depth map or another exposure after its picture.
    first_of_several = image.format != "MPO" and getattr(image, "is_animated", False)
    image.load()
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, of which black and white are unknown; save it with 8 or 16 bits")
    grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
    # A phone's picture may be stored rotated, with an EXIF tag for it.
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16 bits per pixel, which Pillow would clip at 255.
        image = Image.fromarray((np.asarray(image, np.int64) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB").convert("L" if grey else "RGB"), first_of_several


def fit_image(
    image: Any, shape: Sequence[int], invert: bool | None = False, resize: Resize = "pad"
) -> tuple[np.ndarray, bool]:
    """Returns a PIL image in mode L or RGB in the format of a data set, uint8 [H, W, C], and whether it was inverted.

    Every image that is trained on or classified gets its size and its channels here. An image of the right size keeps
    its pixels; of another, Pillow's bicubic filter, which smooths before it shrinks, takes the whole image with a
    margin of the border's colour (``pad``), its centre (``crop``), or the whole image distorted (``stretch``).
    """
    from PIL import Image, ImageOps

    height, width, channels = shape
    image = image.convert("L" if channels == 1 else "RGB")
    inverted = channels == 1 and bool(_border(image)[0] > 127 if invert is None else invert)
    if inverted:
        image = ImageOps.invert(image)
    if image.size != (width, height):
        if resize == "pad":
            colour = tuple(int(value) for value in _border(image))
            image = ImageOps.pad(image, (width, height), color=colour[0] if channels == 1 else colour)
        elif resize == "crop":
            image = ImageOps.fit(image, (width, height))
        else:
            image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).reshape(height, width, channels), inverted


def _border(image: Any) -> np.ndarray:
    """The median of an image's border pixels, by channel."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.median(border.reshape(len(border), -1), axis=0)


def image_files(names: Sequence[Path]) -> list[Path]:
    """Returns the named files; a directory is replaced by its image files, identified by their suffixes."""
    files = []
    for name in names:
        images = []
        # A directory that is unreadable or without images stays in the list: it gets an error line, like any non-image.
        with suppress(OSError):
            images = sorted(path for path in name.iterdir() if path.suffix.lower() in ALL_SUFFIXES)
        files += images or [name]
    return files
