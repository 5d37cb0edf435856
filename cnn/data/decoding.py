"""Decodes a stream of images in threads into one file; the memory does not depend on their number."""

import functools
import hashlib
import itertools
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from cnn.data.image_files import HINT, Resize, fit_image, one_line_errors, open_image, read_bytes
from cnn.data.layouts import Item, Source
from cnn.errors import DataError
from cnn.text import listed

MAX_THREADS = 4
"""Maximum number of images that are decoded at a time: a large one needs half a gigabyte of memory."""

GROUP = 8
"""Number of images that a thread decodes in a row: handing over each one takes as long as decoding a small one."""

_One = TypeVar("_One")
_Other = TypeVar("_Other")


class Decoded(NamedTuple):
    """Images in a file, one after the other, and what is known of each."""

    file: Path
    shape: tuple[int, int, int]
    """Height and width of all, and the channels of those with most."""
    channels: np.ndarray
    """uint8 [N]: grey images are kept as such."""
    digests: np.ndarray
    """Of the pixels in the file, uint8 [N, 32]; equal for a grey image and one in three equal channels."""
    sources: np.ndarray
    """Of the pixels before they were resized, uint8 [N, 32]."""
    sizes: np.ndarray
    """Height and width before they were resized, int32 [N, 2]."""
    labels: list[str | int]
    splits: list[str | None]
    notes: list[str]
    """Lines on what is left out."""


class _Pixels(NamedTuple):
    pixels: np.ndarray
    digest: bytes
    source: bytes
    size: tuple[int, ...]


def decode_all(file: Path, source: Source, image_size: tuple[int, ...], channels: int, resize: Resize) -> Decoded:
    """Decodes all images of a source into a new file; those that cannot be decoded are left out.

    Args:
      file: the name of the new file.
      source: the images.
      image_size: height and width; () keeps the size, which all images must share.
      channels: 1, 3, or 0 for those of each image.
      resize: as of ``fit_image``.

    Raises:
      DataError: the source is damaged, no image can be decoded, or the images have different sizes.
    """
    first, depths, digests, sources = None, bytearray(), bytearray(), bytearray()
    labels, splits, unreadable, sizes = [], [], [], []
    decode = functools.partial(_decode, image_size=image_size, channels=channels, resize=resize)
    with open(file, "wb") as out, warnings.catch_warnings(), _progress(source.total) as advance:
        # Pillow warns where an error is raised here; threads share the warning filters.
        warnings.simplefilter("ignore")
        for item, result in in_threads(decode, source.items()):
            advance()
            if isinstance(result, DataError):
                unreadable.append(str(result).removesuffix(HINT))
                continue
            size = result.pixels.shape[:2]
            first = first or (size, item.name)
            if size != first[0]:
                raise DataError(
                    f"{item.name} has {size[0]} x {size[1]} pixels, but {os.path.basename(first[1])} "
                    f"{first[0][0]} x {first[0][1]}; give all one size with --data.image_size HEIGHT WIDTH"
                )
            out.write(result.pixels.tobytes())
            depths.append(result.pixels.shape[2])
            digests += result.digest
            sources += result.source
            sizes.append(result.size)
            labels.append(item.label)
            splits.append(item.split)
    if not first and not unreadable:
        raise DataError("there are no images, only names of columns or arrays")
    if not first:
        raise DataError(f"none of {len(unreadable)} images can be read; the first: {listed(unreadable[:1])}")
    notes = []
    if unreadable:
        count = f"{len(unreadable):,} of {len(labels) + len(unreadable):,} images"
        notes = [f"left out {count}, which cannot be read: {' | '.join(unreadable[:3])}"]
    shape = *first[0], max(depths)
    channels_of, *digests_of = (np.frombuffer(content, np.uint8) for content in (depths, digests, sources))
    of_pixels, of_sources = (rows.reshape(-1, 32) for rows in digests_of)
    return Decoded(file, shape, channels_of, of_pixels, of_sources, np.array(sizes, np.int32), labels, splits, notes)


def write_rows(file: Path, decoded: Decoded, rows: np.ndarray) -> None:
    """Writes decoded images with the given indices, in this order, as an npy file: uint8 [N, H, W, C]."""
    height, width, channels = decoded.shape
    pixels = np.memmap(decoded.file, mode="r")
    sizes = decoded.channels.astype(np.int64) * height * width
    ends = np.cumsum(sizes)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), height, width, channels)}
    # Written, not mapped: on a full disk a mapping ends the process.
    with open(file, "wb") as out:
        np.lib.format.write_array_header_1_0(out, header)
        for row in rows:
            image = pixels[ends[row] - sizes[row] : ends[row]].reshape(height, width, -1)
            out.write(np.broadcast_to(image, (height, width, channels)).tobytes())


def in_threads(function: Callable[[_One], _Other], items: Iterable[_One]) -> Iterator[tuple[_One, _Other]]:
    """Yields each item with the function's result, in order; few items are read before their turn."""
    count = min(MAX_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

    def run(group: Sequence[_One]) -> list[tuple[_One, _Other]]:
        return [(item, function(item)) for item in group]

    items, waiting = iter(items), deque()
    with ThreadPoolExecutor(count) as threads:
        while group := list(itertools.islice(items, GROUP)):
            waiting.append(threads.submit(run, group))
            if len(waiting) > count:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _decode(item: Item, image_size: tuple[int, ...], channels: int, resize: Resize) -> _Pixels | DataError:
    """The pixels of an image: by the functions of ``predict``, never inverted."""
    from PIL import Image

    try:
        with one_line_errors(item.name):
            if isinstance(item.image, np.ndarray):
                image = Image.fromarray(item.image)
            elif item.image == b"":
                raise ValueError("no bytes")
            else:
                image, _ = open_image(item.image if isinstance(item.image, bytes) else read_bytes(item.image))
            shape = *(image_size or (image.height, image.width)), channels or len(image.getbands())
            source = np.asarray(image)
            pixels, _ = fit_image(image, shape, False, resize)
            digest = _digest(source)
            same = pixels.size == source.size and pixels.shape[:2] == source.shape[:2]
            return _Pixels(pixels, digest if same else _digest(pixels), digest, source.shape[:2])
    except DataError as error:
        return error


def _digest(pixels: np.ndarray) -> bytes:
    """SHA-256 of the shape and the pixels; an image in three equal channels has the one of the grey image."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).digest()


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each image: a progress bar on a terminal, else one line at the start."""
    count = "images" if total is None else f"{total:,} images"
    if not sys.stderr.isatty():
        print(f"decoding {count} into the cache, once", file=sys.stderr, flush=True)
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("decoding images"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("images", total=total)
        yield lambda: bar.advance(task)
