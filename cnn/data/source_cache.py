"""Arrays of own images in the cache: a second run reads them, unless a file has changed."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn.data.arrays import Split
from cnn.data.cache import cache_directory, publish, working_directory
from cnn.data.decoding import in_threads
from cnn.data.image_files import Resize
from cnn.data.layouts import Layout, Source
from cnn.data.stratify import TEST, TRAIN, VAL
from cnn.errors import DataError
from cnn.text import printable, read_json, reason, regular_digest

VERSION = 1
"""Part of the key: raised when the same files would give other arrays."""

SPLITS = {"train": TRAIN, "val": VAL, "test": TEST}

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


Fill = Callable[[Path, Layout, Source, Options], dict[str, Any]]


def load_source(layout: Layout, source: Source, options: Options, fill: Fill, warn: Callable[[str], None]) -> OwnImages:
    """Returns the images of a source, split, from the cache.

    Args:
      layout: where the files are.
      source: what they hold.
      options: what else determines the arrays.
      fill: writes the arrays of all splits into a directory, if they are not cached, and returns their metadata: the
        names of the classes, and lines on the images.
      warn: as of ``load_own_images``.

    Raises:
      DataError: as of ``load_own_images``.
    """
    if options.channels not in (0, 1, 3):
        raise DataError(
            f"--data.channels is {options.channels}, but must be 0 (as they are), 1 (grey) or 3 (colour) for images"
        )
    # Before an error for which it may be the reason.
    for kind, names in source.left_out.items():
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
                metadata = fill(work, layout, source, options)
            except KeyboardInterrupt:
                warn("interrupted; nothing is cached, and the same command starts again")
                raise
            if _files_state(layout, source.files) != state:
                raise DataError(f"{layout.root}: a file changed while it was read; start again when all are written")
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
