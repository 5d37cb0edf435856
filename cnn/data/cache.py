"""The cache of verified arrays: filled once from local files or a download, read and checked by every later run."""

import errno
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from cnn.config import DataConfig
from cnn.data import debian, idx, tfds
from cnn.data.idx import Arrays
from cnn.data.layouts import LAYOUTS
from cnn.datasets import DATASETS, DatasetName
from cnn.errors import DataError, first_cause
from cnn.text import read_json, shown

_METADATA = "metadata.json"


MIN_FREE_BYTES = 512 << 20
"""About the space that a download needs; with less, a full disk may cause any failure, with any message."""


def prepare(config: DataConfig) -> str:
    """Fills the cache unless it is valid, and returns a line that names source and destination.

    A directory that the user names replaces whatever is cached. Where the data set's own address cannot be reached,
    Debian's package is downloaded with apt.

    Raises:
      DataError: the images cannot be found, downloaded, verified or cached.
    """
    cached = None if _named_directory(config) else _read_cache(config.name)
    origin = cached[1] if cached else _fill_cache(config, allow_apt=True)
    known = DATASETS[config.name]
    images = f"{known.train_images:,} + {known.test_images:,} images"
    return f"{config.name}: {images} from {origin}, in {cache_directory(config.name)}, digests ok"


def is_there(config: DataConfig) -> bool:
    """Returns whether images are on this machine, in a cache without damage, so that ``load_data`` fetches nothing."""
    if named := _named_directory(config):
        return os.path.exists(os.path.expanduser(named[1]))
    return _read_cache(config.name, say=lambda line: None) is not None


def load_arrays(config: DataConfig) -> Arrays:
    """Returns the verified arrays of a data set, from the named directory or else from the cache, filled if empty."""
    if named := _read_named(config):
        return named[0]
    if not (cached := _read_cache(config.name)):
        _fill_cache(config, allow_apt=False)
        cached = _read_cache(config.name)
    if not cached:
        raise DataError(f"{cache_directory(config.name)} loses what is written; set XDG_CACHE_HOME to another disk")
    return cached[0]


def _named_directory(config: DataConfig) -> tuple[str, str] | None:
    """Returns the option or variable with which the user names a directory, and its value; None without one."""
    if config.source is not None:
        return "--data.source", config.source
    directory = os.environ.get("FASHION_MNIST_DIR")
    return ("FASHION_MNIST_DIR", directory) if directory and config.name == "fashion_mnist" else None


def _read_named(config: DataConfig) -> tuple[Arrays, str] | None:
    """Returns the arrays from the directory that the user names, and its path; None without one."""
    if not (named := _named_directory(config)):
        return None
    directory = _published_directory(config.name, Path(os.path.expanduser(named[1])))
    try:
        if config.name == "fashion_mnist":
            return idx.read_idx_directory(directory), str(directory)
        return tfds.read_archives(config.name, directory), str(directory)
    except DataError as error:
        if config.source and not directory.exists():
            raise DataError(f"{named[0]} is {shown(named[1])}, which does not exist; name another path") from None
        if config.source and not directory.is_dir():
            raise DataError(f"{named[0]}: {directory} holds no images; unpack an archive, and give {LAYOUTS}") from None
        own = "; own images are in a folder for each class, or in a CSV, npz or parquet file"
        raise DataError(f"{named[0]}: {error}{own if config.source else ''}") from None


def _published_directory(name: DatasetName, directory: Path) -> Path:
    """Returns the directory of the published files, which is inside of torchvision's root, with a line on stderr."""
    raw = directory / DATASETS[name].builder[1] / "raw"
    if raw.is_dir() and not any(directory.glob("*-ubyte*")):
        print(f"{directory} is torchvision's root; reading {name} from {raw}", file=sys.stderr, flush=True)
        return raw
    return directory


def _fetch(name: DatasetName, work: Path, allow_apt: bool) -> tuple[Arrays, str]:
    """Returns the arrays and their source; the only place that decides whether to use the network."""
    fashion = name == "fashion_mnist"
    attempts: dict[str, Callable[[], Arrays]] = {}
    if fashion and debian.DEBIAN_DIRECTORY.is_dir():
        attempts[str(debian.DEBIAN_DIRECTORY)] = lambda: idx.read_idx_directory(debian.DEBIAN_DIRECTORY)
    keras = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"), "datasets", "fashion-mnist")
    if fashion and keras.is_dir():
        attempts[f"Keras' cache {keras}"] = lambda: idx.read_idx_directory(keras)
    attempts["TensorFlow Datasets"] = lambda: tfds.fetch_with_tfds(name, work)
    if fashion and allow_apt:
        package = f"the package {debian.DEBIAN_PACKAGE}"
        attempts[package] = lambda: tfds.fetch_with_tfds(name, work, debian.fetch_debian_package(work))
    causes = []
    for origin, attempt in attempts.items():
        if not Path(origin).is_dir():
            failure = "".join(f"{cause}; " for cause in causes[-1:])
            print(f"{failure}getting {name} from {origin}, once, in about half a minute", file=sys.stderr, flush=True)
        try:
            return attempt(), origin
        except DataError as error:
            causes.append(str(error))
    hints = [f"run python -m cnn data --data.name {name} with network access", "name a directory with --data.source"]
    if fashion:
        hints.append(f"apt-get install {debian.DEBIAN_PACKAGE}")
    free = shutil.disk_usage(work).free
    if free < MIN_FREE_BYTES:
        hints.insert(0, f"free disk space: only {free >> 20} MiB are left (XDG_CACHE_HOME moves the cache)")
    # The other causes were printed before each attempt.
    raise DataError(f"could not get {name}: {causes[-1]}. To fix this: {', or '.join(hints)}")


def cache_directory(name: str) -> Path:
    """Returns ``$XDG_CACHE_HOME/fashion-cnn/<name>``, by default in ``~/.cache``."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        raise DataError("there is no home directory for the cache; set XDG_CACHE_HOME to a directory") from None
    return home / "fashion-cnn" / name


def _read_cache(
    name: DatasetName, say: Callable[[str], None] = lambda line: print(line, file=sys.stderr)
) -> tuple[Arrays, str] | None:
    """Returns the cached arrays, verified, and their source; None, with a line, if they are damaged."""
    directory = cache_directory(name)
    if not os.path.exists(directory / _METADATA):
        return None
    try:
        metadata = read_json(directory / _METADATA)
        pinned = {field: file.sha256 for field, file in idx.IDX_FILES.items()}
        digests = pinned if name == "fashion_mnist" else metadata["sha256"]
        arrays = {}
        for field, shape in idx.array_shapes(name).items():
            path = directory / f"{field}.npy"
            mapped = np.lib.format.open_memmap(path, mode="r")
            # Read, as another program may cut the file, and touching a mapped page that is gone ends the process.
            array = np.fromfile(path, mapped.dtype, mapped.size, offset=mapped.offset).reshape(mapped.shape)
            if array.dtype != np.uint8 or array.shape != shape or idx.array_digest(array) != digests[field]:
                raise ValueError(f"{field}.npy differs from what was written")
            arrays[field] = array
        return Arrays(**arrays), str(metadata["source"])
    except Exception as error:  # On damaged bytes NumPy's header parser raises almost any type.
        say(f"the cache {directory} is damaged ({first_cause(error)}); it is rebuilt")
        return None


def _fill_cache(config: DataConfig, allow_apt: bool) -> str:
    """Loads or downloads the data set into the cache and returns its source."""
    directory = cache_directory(config.name)
    with working_directory(directory) as work:
        arrays, origin = _read_named(config) or _fetch(config.name, work, allow_apt)
        digests = {field: idx.array_digest(array) for field, array in arrays._asdict().items()}
        metadata = {"classes": DATASETS[config.name].class_names, "sha256": digests, "source": origin}
        files = {f"{field}.npy": _npy(array) for field, array in arrays._asdict().items()}
        files[_METADATA] = json.dumps(metadata, indent=2).encode() + b"\n"
        for name, content in files.items():
            (work / name).write_bytes(content)
        publish(work, directory, list(files))
    return origin


@contextmanager
def working_directory(directory: Path) -> Iterator[Path]:
    """Gives a new directory inside of a cache directory, removed at the end.

    Raises:
      DataError: what an OSError in the block says about the cache.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for stale in directory.glob(".incomplete-*"):
            # Left by a killed process if older than any fill takes; another process may be removing it as well.
            with suppress(FileNotFoundError):
                if time.time() - stale.stat().st_mtime > 24 * 3600:
                    shutil.rmtree(stale, ignore_errors=True)
        # The thread of an interrupted download may still write here when it is cleaned up.
        with tempfile.TemporaryDirectory(dir=directory, prefix=".incomplete-", ignore_cleanup_errors=True) as work:
            yield Path(work)
    except OSError as error:
        raise DataError(
            f"cannot write the cache {directory}: {error.strerror or error}; "
            "set XDG_CACHE_HOME to a writable directory with free space"
        ) from None


def publish(work: Path, directory: Path, names: Sequence[str]) -> None:
    """Moves finished files of a working directory into a cache directory, in order: the metadata is the last.

    Their content depends only on the data: two processes that start at the same time both succeed without a lock.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (directory / name).exists() and not (directory / name).is_file():
            raise OSError(errno.EEXIST, f"{name} is not a regular file")
        with open(work / name, "rb+") as file:
            os.fsync(file.fileno())
    for name in names:
        os.replace(work / name, directory / name)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
