"""What files of boxes have in common: images, each with the boxes that the files give it; no image is opened here."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn.data.layouts import Item, Layout, Source
from cnn.data.stratify import check_names
from cnn.errors import DataError
from cnn.text import read_regular, reason, shown

MAX_OBJECTS = 10_000
"""Maximum number of boxes in an image: all images get rows for as many as the one with most."""


class Boxed(NamedTuple):
    """Images with boxes, before they are decoded."""

    source: Source
    """The label of an item is its index."""
    names: tuple[str, ...]
    """Of the classes."""
    boxes: list[np.ndarray]
    """For each image float64 [n, 5]: x_min, y_min, x_max, y_max as fractions of its width and height, and the class."""
    sizes: Sequence[tuple[int, int] | None]
    """Height and width of each image in pixels, where the annotations give them."""


def make_boxed(
    layout: Layout,
    names: tuple[str, ...],
    files: Sequence[str],
    images: list[tuple[str, str | None]],
    rows: list[list[tuple[float, ...]]],
    sizes: Sequence[tuple[int, int] | None],
    left_out: dict[str, list[str]],
) -> Boxed:
    """Returns the images of a layout with their boxes.

    Args:
      layout: where the files are.
      names: names of the classes.
      files: the other files, on which names and boxes depend, relative to the root.
      images: name relative to the root, and split, of each image.
      rows: the boxes of each image, as of ``Boxed``.
      sizes: as of ``Boxed``.
      left_out: names by the reason for which they are left out.

    Raises:
      DataError: an image has more than ``MAX_OBJECTS`` boxes.
    """

    def items() -> Iterator[Item]:
        for index, (name, split) in enumerate(images):
            path = os.path.join(layout.root, name)
            yield Item(path, path, index, split)

    for (name, _), of_image in zip(images, rows, strict=True):
        if len(of_image) > MAX_OBJECTS:
            raise DataError(f"{name} has {len(of_image):,} boxes, but an image may have at most {MAX_OBJECTS:,}")
    source = Source([*files, *(name for name, _ in images)], items, len(images), left_out, names)
    return Boxed(source, names, [np.array(of_image, np.float64).reshape(-1, 5) for of_image in rows], sizes)


def read_text(path: Path, max_bytes: int, parse: Callable[[str], Any] = str) -> Any:
    """Returns the value of a text file in UTF-8, with or without a byte order mark.

    Raises:
      DataError: it cannot be read, is larger than ``max_bytes``, or ``parse`` raises ValueError with the reason.
    """
    try:
        return parse(read_regular(path, max_bytes).decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8; save it in UTF-8") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None


def check_class_names(path: Path, names: Sequence[Any]) -> tuple[str, ...]:
    """Returns the names of the classes in a file.

    Raises:
      DataError: there is none, one is no text of 1 to 200 characters, or two differ in case or spaces only.
    """
    for name in names:
        if not isinstance(name, str) or not name.strip() or len(name) > 200:
            raise DataError(f"{path}: a class has the name {shown(name)}, but must have one of 1 to 200 characters")
    if not names:
        raise DataError(f"{path} has no classes, but must name at least 1")
    return check_names([name.strip() for name in names])
