"""Own images: decoded, resized, cached and split. A second run reads the cache, unless a file has changed."""

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn.data import folders, tables
from cnn.data.arrays import Split
from cnn.data.cache import cache_directory, publish, working_directory
from cnn.data.decoding import decode_all, in_threads, write_rows
from cnn.data.image_files import Resize
from cnn.data.layouts import LAYOUTS, Layout, Source, files_of_no_split, find_layout
from cnn.data.stratify import (
    TEST,
    TRAIN,
    VAL,
    check_classes,
    draw_splits,
    group_equal,
    labels_of_groups,
    number_classes,
)
from cnn.errors import DataError
from cnn.text import listed, printable, read_json, reason, regular_digest, shown

VERSION = 1
"""Part of the key: raised when the same files would give other arrays."""

SPLITS = {"train": TRAIN, "val": VAL, "test": TEST}

SOURCES: dict[str, Callable[[Layout], Source]] = {
    "class folders": folders.class_folders,
    "CSV of files": folders.listed_files,
    "CSV of pixels": tables.csv_pixels,
    "npz": tables.npz_arrays,
    "parquet": tables.parquet_rows,
}

_METADATA = "metadata.json"
_FILES = [f"{split}_{field}.npy" for split in SPLITS for field in Split._fields]


class OwnImages(NamedTuple):
    """Images from the user's files, memory-mapped from the cache."""

    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    digest: str
    """Hex SHA-256 of the names and the bytes of all files."""


class Options(NamedTuple):
    """All that determines the arrays, besides the files."""

    image_size: tuple[int, ...]
    channels: int
    resize: Resize
    val_fraction: float
    test_fraction: float
    split_seed: int


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
    if channels not in (0, 1, 3):
        raise DataError(
            f"--data.channels is {channels}, but must be 0 (as they are), 1 (grey) or 3 (colour) for images"
        )
    if not (layout := find_layout(path)):
        raise DataError(f"{path} holds no images; give {LAYOUTS}")
    source = SOURCES[layout.kind](layout)
    # Before an error for which it may be the reason.
    for kind, names in {**source.left_out, "of no split": files_of_no_split(layout)}.items():
        if names:
            first = ", ".join(map(printable, names[:3])) + ", ..." * (len(names) > 3)
            warn(f"left out, {kind}: {len(names):,} ({first})")
    home = cache_directory("images")
    state = _files_state(layout, source.files)
    seen = home / "files" / state
    known = _read_digest(seen)
    digest = known or _files_digest(layout, source.files)
    # With the size and channels that were found, which a run asks for by its configuration.
    shape = _read_shape(home / "shapes" / _key(digest, options))
    key = _key(digest, options, shape)
    cached = _read_entry(home / key, key, warn)
    if not cached:
        with working_directory(home) as work:
            try:
                metadata = _fill(work, layout, source, options)
            except KeyboardInterrupt:
                warn("interrupted; nothing is cached, and the same command starts again")
                raise
            if _files_state(layout, source.files) != state:
                raise DataError(f"{path}: a file changed while it was read; start again when all are written")
            shape = np.load(work / _FILES[0], mmap_mode="r").shape[1:]
            key, asked = _key(digest, options, shape), _key(digest, options)
            hashes = {name: _file_digest(work / name) for name in _FILES}
            metadata |= {"key": key, "digest": digest, "source": printable(layout.root), "sha256": hashes}
            (work / _METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
            (work / asked).write_text(json.dumps(shape), encoding="ascii")
            publish(work, home / key, [*_FILES, _METADATA])
            publish(work, home / "shapes", [asked])
        cached = _read_entry(home / key, key, warn)
    if not cached:
        raise DataError(f"{home} loses what is written; set XDG_CACHE_HOME to another disk")
    images, notes = cached
    if not known:
        with working_directory(home) as work:
            (work / state).write_text(digest, encoding="ascii")
            publish(work, seen.parent, [state])
    for line in notes:
        warn(line)
    return images


# The files


def _files_state(layout: Layout, files: Sequence[str]) -> str:
    """The digest of the names, sizes and times of the files: it is another one after any change."""
    digest = hashlib.sha256(json.dumps([layout.kind, os.fsencode(layout.root).hex(), _parts(layout)]).encode())
    for name in files:
        try:
            status = os.stat(os.path.join(layout.root, name))
            state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        except (OSError, ValueError) as error:
            state = reason(error)
        digest.update(os.fsencode(name) + f"\0{state}\0".encode())
    return digest.hexdigest()


def _parts(layout: Layout) -> list[tuple[str | None, str]]:
    return [(split, printable(path.relative_to(layout.root))) for split, path in layout.parts]


def _files_digest(layout: Layout, files: Sequence[str]) -> str:
    """The digest of the names and the bytes of the files."""
    digest = hashlib.sha256(json.dumps([layout.kind, _parts(layout)]).encode())
    for name, content in in_threads(lambda name: _file_digest(os.path.join(layout.root, name)), files):
        digest.update(os.fsencode(name) + f"\0{content}\0".encode())
    return digest.hexdigest()


def _file_digest(path: str | os.PathLike) -> str:
    """The hex SHA-256 of a regular file's bytes; why it has none, for another one."""
    try:
        return regular_digest(path)
    except (OSError, ValueError) as error:
        return reason(error)


def _key(digest: str, options: Options, shape: Sequence[int] = ()) -> str:
    """The name of the cached arrays of files of a digest, whose images have a shape [H, W, C] if it is known."""
    if shape:
        options = options._replace(image_size=tuple(shape[:2]), channels=shape[2])
    return hashlib.sha256(json.dumps([VERSION, digest, options]).encode()).hexdigest()


def _read_shape(path: Path) -> tuple[int, ...]:
    with suppress(OSError, ValueError, TypeError):
        height, width, channels = map(int, read_json(path))
        return height, width, channels
    return ()


def _read_digest(path: Path) -> str | None:
    with suppress(OSError, ValueError):
        text = path.read_text(encoding="ascii")
        return text if len(text) == 64 else None


# The cache


def _read_entry(entry: Path, key: str, warn: Callable[[str], None]) -> tuple[OwnImages, list[str]] | None:
    """Returns cached images, verified, and the lines on them; None, with a line, if they are damaged."""
    if not os.path.exists(entry / _METADATA):
        return None
    try:
        metadata = read_json(entry / _METADATA)
        if metadata["key"] != key:
            raise ValueError("it was made from other files")
        for name in _FILES:
            if _file_digest(entry / name) != metadata["sha256"][name]:
                raise ValueError(f"{name} differs from what was written")
        arrays = [np.lib.format.open_memmap(entry / name, mode="r") for name in _FILES]
        train, val, test = (Split(*pair) for pair in zip(arrays[::2], arrays[1::2], strict=True))
        return OwnImages(train, val, test, tuple(metadata["class_names"]), metadata["digest"]), metadata["notes"]
    except Exception as error:  # On damaged bytes NumPy's header parser raises almost any type.
        warn(f"the cache {entry} is damaged ({reason(error)}); it is rebuilt")
        return None


def _fill(work: Path, layout: Layout, source: Source, options: Options) -> dict[str, Any]:
    """Writes the arrays of all splits into a directory and returns their metadata."""
    decoded = decode_all(work / "decoded", source, options.image_size, options.channels, options.resize)
    names, labels = number_classes(decoded.labels, source.class_names)
    group_of = group_equal(decoded.digests)
    given = {split for split, _ in layout.parts} | set(decoded.splits)
    val = 0.0 if "val" in given else options.val_fraction
    test = 0.0 if "test" in given else options.test_fraction
    codes = np.array([SPLITS[split or "train"] for split in decoded.splits], np.int8)
    pool = np.flatnonzero(codes == TRAIN)
    check_classes(names, group_of[pool], labels[pool], 1 + (val > 0) + (test > 0))
    codes[pool] = draw_splits(decoded.digests[pool], labels[pool], val, test, options.split_seed, decoded.sources[pool])
    # In the order of their content: the same whatever the layout and the names. Equal images are ordered by class.
    order = np.lexsort([labels, group_of])
    notes = [*decoded.notes, *_equal_lines(names, group_of, labels, codes)]
    for split, code in SPLITS.items():
        rows = order[codes[order] == code]
        if not len(rows):
            raise DataError(f"{layout.root}: no {split} image can be read")
        write_rows(work / f"{split}_images.npy", decoded, rows)
        np.save(work / f"{split}_labels.npy", labels[rows], allow_pickle=False)
        missing = np.setdiff1d(np.arange(len(names)), labels[rows])
        if missing.size:
            notes.append(f"the {split} images lack {len(missing)} classes: {listed(names[label] for label in missing)}")
    return {"class_names": names, "notes": notes}


def _equal_lines(names: Sequence[str], group_of: np.ndarray, labels: np.ndarray, codes: np.ndarray) -> Iterator[str]:
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
