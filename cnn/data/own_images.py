"""Own images: decoded, resized, cached and split."""

import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.data import folders, tables
from cnn.data.decoding import Decoded, decode_all, write_rows
from cnn.data.image_files import Resize
from cnn.data.layouts import LAYOUTS, Layout, Source, files_of_no_split, find_layout
from cnn.data.source_cache import SPLITS, Options, OwnImages, load_source
from cnn.data.stratify import TRAIN, check_classes, draw_splits, group_equal, labels_of_groups, number_classes
from cnn.errors import DataError
from cnn.text import listed, shown

SOURCES: dict[str, Callable[[Layout], Source]] = {
    "class folders": folders.class_folders,
    "CSV of files": folders.listed_files,
    "CSV of pixels": tables.csv_pixels,
    "npz": tables.npz_arrays,
    "parquet": tables.parquet_rows,
}


def load_own_images(
    path: str | os.PathLike,
    image_size: tuple[int, ...] = (),
    channels: int = 0,
    resize: Resize = "crop",
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    split_seed: int = 42,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> OwnImages:
    """Returns the images in a folder, a CSV, npz or parquet file, split, in the order of their content.

    Splits that the files do not give are drawn as by ``draw_splits``. Files are recognized by name, size and time, and
    otherwise by their bytes; the arrays are verified by SHA-256.

    Args:
      path: a path with one of the ``LAYOUTS``.
      image_size: height and width; () keeps the size, which all images must share.
      channels: 1 (grey), 3 (colour), or 0: grey if all images are.
      resize: how images of another shape are made to fit, as of ``fit_image``.
      val_fraction: fraction of the training images held out for validation, unless validation images are given.
      test_fraction: fraction of all images held out for the test, unless test images are given.
      split_seed: seed of the splits that are drawn.
      warn: called with each line on what is left out, occurs twice, or is missing from a split.

    Raises:
      DataError: the path has no layout, images or labels cannot be used, or the cache cannot be written.
    """
    options = Options(tuple(image_size), channels, resize, val_fraction, test_fraction, split_seed)
    if not (layout := find_layout(path)):
        raise DataError(f"{path} holds no images; give {LAYOUTS}")
    source = SOURCES[layout.kind](layout)
    source = source._replace(left_out={**source.left_out, "of no split": files_of_no_split(layout)})
    return load_source(layout, source, options, _fill, warn)


def _fill(work: Path, layout: Layout, source: Source, options: Options) -> dict[str, Any]:
    """Writes the arrays of all splits into a directory and returns their metadata."""
    decoded = decode_all(work / "decoded", source, options.image_size, options.channels, options.resize)
    names, labels = number_classes(decoded.labels, source.class_names)
    group_of = group_equal(decoded.digests)
    codes = draw_codes(layout, decoded, labels, options, functools.partial(check_classes, names))
    # In the order of their content: the same whatever the layout and the names. Equal images are ordered by class.
    order = np.lexsort([labels, group_of])
    notes = [*decoded.notes, *equal_lines(names, group_of, labels, codes)]
    notes += write_splits(work, layout, decoded, names, labels, order, codes)
    return {"class_names": names, "notes": notes}


def draw_codes(
    layout: Layout,
    decoded: Decoded,
    labels: np.ndarray,
    options: Options,
    check: Callable[[np.ndarray, np.ndarray, int], None],
) -> np.ndarray:
    """Returns the split of each image, int8 [N]: the one that its file gives, else as drawn by ``draw_splits``.

    Args:
      layout: where the files are.
      decoded: the images.
      labels: class by which the splits are drawn, integers [N].
      options: fractions and seed of the splits.
      check: called with the groups of equal images and the labels of those from which splits are drawn, and the number
        of these splits.
    """
    given = {split for split, _ in layout.parts} | set(decoded.splits)
    val = 0.0 if "val" in given else options.val_fraction
    test = 0.0 if "test" in given else options.test_fraction
    codes = np.array([SPLITS[split or "train"] for split in decoded.splits], np.int8)
    pool = np.flatnonzero(codes == TRAIN)
    check(group_equal(decoded.digests)[pool], labels[pool], 1 + (val > 0) + (test > 0))
    codes[pool] = draw_splits(decoded.digests[pool], labels[pool], val, test, options.split_seed, decoded.sources[pool])
    return codes


def write_splits(
    work: Path,
    layout: Layout,
    decoded: Decoded,
    names: Sequence[str],
    labels: np.ndarray,
    order: np.ndarray,
    codes: np.ndarray,
) -> Iterator[str]:
    """Writes the arrays of all splits into a directory; yields lines on classes that a split lacks.

    Args:
      work: the directory.
      layout: where the files are.
      decoded: the images.
      names: names of the classes.
      labels: int32 [N], or float32 [N, M, 5] of boxes, whose last column is the class, and -1 in a row of padding.
      order: indices of the images, in the order in which they are written.
      codes: as of ``draw_codes``.

    Raises:
      DataError: a split has no image.
    """
    for split, code in SPLITS.items():
        rows = order[codes[order] == code]
        if not len(rows):
            raise DataError(f"{layout.root}: no {split} image can be read")
        write_rows(work / f"{split}_images.npy", decoded, rows)
        np.save(work / f"{split}_labels.npy", labels[rows], allow_pickle=False)
        classes = labels[rows] if labels.ndim == 1 else labels[rows, :, 4]
        missing = np.setdiff1d(np.arange(len(names)), classes)
        if missing.size:
            lacking = listed(names[label] for label in missing.astype(int))
            yield f"the {split} images lack {len(missing)} classes: {lacking}"


def equal_lines(names: Sequence[str], group_of: np.ndarray, labels: np.ndarray, codes: np.ndarray) -> Iterator[str]:
    """Yields lines on images that occur more than once."""
    sizes = np.bincount(group_of)
    if count := int(sizes[sizes > 1].sum()):
        yield f"{count:,} images are copies of one another, {(sizes > 1).sum():,} different ones; copies share a split"
    if several := labels_of_groups(group_of, labels)[1]:
        example = " and ".join(shown(names[label]) for label in next(iter(several.values()))[:2])
        yield f"{len(several):,} different images have several labels, one of them {example}"
    for one, other in itertools.combinations(SPLITS, 2):
        both = np.intersect1d(group_of[codes == SPLITS[one]], group_of[codes == SPLITS[other]])
        if both.size:
            yield f"{both.size:,} different {other} images are also {one} images, as the files give them"
