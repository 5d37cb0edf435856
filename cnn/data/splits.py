"""Images and labels as arrays in memory: found or fetched, verified, cached, and split."""

import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn.config import DATASETS, DataConfig, DatasetName, ExperimentConfig
from cnn.data import idx as sources
from cnn.data import tfds as tfds_source
from cnn.data.idx import Arrays
from cnn.errors import ConfigError, DataError, first_cause

KOREAN_CLASS_NAMES = ("티셔츠", "바지", "스웨터", "드레스", "코트", "샌달", "셔츠", "스니커즈", "가방", "앵클 부츠")
"""Names of Fashion-MNIST's classes 0 to 9."""

_METADATA = "metadata.json"
_ROOM = 512 << 20
"""About the most bytes that fetching takes; with less, a full disk may be behind any failure, in any words."""


class Split(NamedTuple):
    """Some images with their labels."""

    images: np.ndarray
    """uint8 [N,H,W,C], 0 to 255."""
    labels: np.ndarray
    """int32 [N]."""


class Splits(NamedTuple):
    """A data set, split three ways."""

    train: Split
    val: Split
    test: Split


def load_data(config: DataConfig) -> Splits:
    """Returns the training, validation and test images of a data set.

    The published test images are the test split. The published training images are divided exactly as scikit-learn's
    ``train_test_split(test_size=val_fraction, random_state=split_seed)`` divides them; inside each split they keep
    their published order.

    A directory that the user names, by ``config.source`` or, for Fashion-MNIST, by the environment's
    ``FASHION_MNIST_DIR``, is read and verified anew each time: it may be wrong, and the cache must not hide that.
    Otherwise the images come from the cache in ``$XDG_CACHE_HOME/fashion-cnn`` (``~/.cache`` without the variable),
    verified by SHA-256. An empty or damaged cache is filled from the installed Debian package, or from the network.

    Raises:
      ConfigError: ``val_fraction`` leaves no image to train on.
      DataError: the images cannot be found, fetched, verified or cached.
    """
    if config.train_images < 1:
        raise ConfigError(
            f"--data.val_fraction is {config.val_fraction}, but must leave one of {config.val_images:,} images"
        )
    arrays = _load(config)
    permutation = np.random.RandomState(config.split_seed).permutation(len(arrays.train_images))
    # Which images go where is scikit-learn's; inside each split they keep the order in which they were published.
    val, train = (np.sort(part) for part in np.split(permutation, [config.val_images]))
    labels = arrays.train_labels.astype(np.int32)
    splits = Splits(
        train=Split(arrays.train_images[train], labels[train]),
        val=Split(arrays.train_images[val], labels[val]),
        test=Split(np.array(arrays.test_images), arrays.test_labels.astype(np.int32)),
    )
    for name, split in zip(Splits._fields, splits, strict=True):
        check_split(split, config.image_shape, len(class_names(config)), name)
    return splits


def class_names(config: DataConfig) -> tuple[str, ...]:
    """Returns the English names of the classes, by label."""
    return sources.CLASS_NAMES[config.name]


def model_class_names(config: ExperimentConfig) -> tuple[str, ...]:
    """Returns a name for each class of the model, which may have more than its data."""
    names = class_names(config.data)
    return names + tuple(f"class {label}" for label in range(len(names), config.model.classes))


def data_digest(splits: Splits) -> str:
    """Returns the hex SHA-256 of all images and labels, their order, shapes and dtypes: what a run was trained on."""
    digest = hashlib.sha256()
    for array in (array for split in splits for array in split):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def check_split(split: Split, image_shape: tuple[int, int, int], classes: int, name: str) -> None:
    """Checks that a split can be trained or evaluated on.

    Args:
      split: images and labels.
      image_shape: height, width and channels that the images must have.
      classes: labels must lie in 0 to ``classes - 1``.
      name: what the message calls the split.

    Raises:
      DataError: an image or a label is not of the wanted shape, dtype or range, or there is none.
    """
    images, labels = np.asarray(split.images), np.asarray(split.labels)
    if images.dtype != np.uint8 or images.shape[1:] != image_shape:
        shape = ", ".join(("N", *map(str, image_shape)))
        extent = ""
        if np.issubdtype(images.dtype, np.floating) and images.size:
            extent = f" from {images.min():g} to {images.max():g}"
        raise DataError(
            f"{name} images are {images.dtype} {list(images.shape)}{extent}, but must be uint8 [{shape}] from 0 to 255"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise DataError(
            f"{name} labels are {labels.dtype} {list(labels.shape)}, but must be integers [{len(images)}], one an image"
        )
    if not len(images):
        raise DataError(f"{name} has no images, but must have at least 1")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise DataError(f"{name} label {wrong[0]} is {labels[wrong[0]]}, but must be from 0 to {classes - 1}")


def check_splits(config: ExperimentConfig, splits: Splits) -> Splits:
    """Returns the splits if the experiment can run on them.

    Raises:
      UserError: images or labels are not what the configuration says, or fewer than a batch.
    """
    known, classes = len(class_names(config.data)), config.model.classes
    # Who gives images of their own may give fewer classes.
    if classes < known and any(np.max(split.labels, initial=0) >= classes for split in splits):
        raise ConfigError(f"--model.classes is {config.model.classes}, but {config.data.name} has {known} classes")
    for name, split in splits._asdict().items():
        check_split(split, config.data.image_shape, config.model.classes, name)
    count, batch_size = len(splits.train.labels), config.optim.batch_size
    if batch_size > count:
        raise ConfigError(
            f"--optim.batch_size is {batch_size}, but must be at most {count}, the number of training images"
        )
    return splits


def prepare(config: DataConfig) -> str:
    """Fills the cache, if it is not good already, and returns a line that says from where, to where.

    A directory that the user names goes into the cache whatever that holds. Where the data set's own address cannot be
    reached, Debian's package is fetched with apt.

    Raises:
      DataError: the images cannot be found, fetched, verified or cached.
    """
    cached = None if _named_directory(config) else _read_cache(config.name)
    origin = cached[1] if cached else _fill_cache(config, allow_apt=True)
    train_images, test_images = DATASETS[config.name].train_images, sources.TEST_IMAGES
    images = f"{train_images:,} + {test_images:,} images"
    return f"{config.name}: {images} from {origin}, in {cache_directory(config.name)}, digests ok"


def _load(config: DataConfig) -> Arrays:
    if named := _read_named(config):
        return named[0]
    if not (cached := _read_cache(config.name)):
        _fill_cache(config, allow_apt=False)
        cached = _read_cache(config.name)
    if not cached:
        raise DataError(
            f"{cache_directory(config.name)} does not keep what is written; set XDG_CACHE_HOME to another disk"
        )
    return cached[0]


def _named_directory(config: DataConfig) -> tuple[str, str] | None:
    """Returns the option or variable by which the user names a directory, and its value; None without one."""
    if config.source is not None:
        return "--data.source", config.source
    directory = os.environ.get("FASHION_MNIST_DIR")
    return ("FASHION_MNIST_DIR", directory) if directory and config.name == "fashion_mnist" else None


def _read_named(config: DataConfig) -> tuple[Arrays, str] | None:
    """Returns the arrays in the directory that the user names, and its path; None without one."""
    if not (named := _named_directory(config)):
        return None
    directory = Path(os.path.expanduser(named[1]))
    try:
        if config.name == "fashion_mnist":
            return sources.read_idx_directory(directory), str(directory)
        return tfds_source.read_archives(config.name, directory), str(directory)
    except DataError as error:
        raise DataError(f"{named[0]}: {error}") from None


def _fetch(name: DatasetName, work: Path, allow_apt: bool) -> tuple[Arrays, str]:
    """Returns the arrays and where they came from; the only place that decides whether to use the network."""
    fashion = name == "fashion_mnist"
    attempts: dict[str, Callable[[], Arrays]] = {}
    if fashion and sources.DEBIAN_DIRECTORY.is_dir():
        attempts[str(sources.DEBIAN_DIRECTORY)] = lambda: sources.read_idx_directory(sources.DEBIAN_DIRECTORY)
    attempts["TensorFlow Datasets"] = lambda: tfds_source.fetch_with_tfds(name, work)
    if fashion and allow_apt:
        package = f"the package {sources.DEBIAN_PACKAGE}"
        attempts[package] = lambda: tfds_source.fetch_with_tfds(name, work, sources.fetch_debian_package(work))
    causes = []
    for origin, attempt in attempts.items():
        if not Path(origin).is_dir():
            failed = "".join(f"{cause}; " for cause in causes[-1:])
            print(f"{failed}getting {name} from {origin}, once, in about half a minute", file=sys.stderr, flush=True)
        try:
            return attempt(), origin
        except DataError as error:
            causes.append(str(error))
    remedies = [
        f"run `make data` (python -m cnn data --data.name {name}) where there is a network",
        "name a directory by --data.source DIR",
    ]
    if fashion:
        remedies[1] += " or FASHION_MNIST_DIR"
        remedies.append(f"apt-get install {sources.DEBIAN_PACKAGE}")
    free = shutil.disk_usage(work).free
    if free < _ROOM:
        remedies.append(f"make room where only {free >> 20} MiB are free: {work.parent} (XDG_CACHE_HOME moves it)")
    raise DataError(f"{name} is not to be had: {'; '.join(causes)}. Ways out: {', or '.join(remedies)}")


def cache_directory(name: str) -> Path:
    """Returns ``$XDG_CACHE_HOME/fashion-cnn/<name>``, by default in ``~/.cache``."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        raise DataError("there is no home directory for the cache; set XDG_CACHE_HOME to a directory") from None
    return home / "fashion-cnn" / name


def _read_cache(name: DatasetName) -> tuple[Arrays, str] | None:
    """Returns the cached arrays, verified, and where they came from; None, said on stderr, when they are damaged."""
    directory = cache_directory(name)
    if not os.path.exists(directory / _METADATA):
        return None
    try:
        metadata = json.loads((directory / _METADATA).read_bytes())
        pinned = {field: file.sha256 for field, file in sources.IDX_FILES.items()}
        digests = pinned if name == "fashion_mnist" else metadata["sha256"]
        arrays = {}
        for field, shape in sources.array_shapes(name).items():
            array = np.lib.format.open_memmap(directory / f"{field}.npy", mode="r")
            if array.dtype != np.uint8 or array.shape != shape or sources.array_digest(array) != digests[field]:
                raise ValueError(f"{field}.npy is not what was written")
            arrays[field] = array
        return Arrays(**arrays), str(metadata["source"])
    except Exception as error:  # On damaged bytes NumPy's header parser raises nearly anything.
        print(f"the cache {directory} is damaged ({first_cause(error)}); it is rebuilt", file=sys.stderr)
        return None


def _fill_cache(config: DataConfig, allow_apt: bool) -> str:
    """Fetches the data set into the cache and returns where it came from.

    Each process works in a directory of its own and moves finished files, whose content follows from the data alone,
    over whatever is there: two that start at the same time need no lock to both succeed. The metadata goes last.
    """
    directory = cache_directory(config.name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob(".incomplete-*"):
            # Of a process that was killed, if it is older than any fill takes; another may be removing it as well.
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > 24 * 3600:
                    shutil.rmtree(left, ignore_errors=True)
        # The thread of an interrupted download may still write here when it is cleaned up.
        with tempfile.TemporaryDirectory(dir=directory, prefix=".incomplete-", ignore_cleanup_errors=True) as work:
            arrays, origin = _read_named(config) or _fetch(config.name, Path(work), allow_apt)
            digests = {field: sources.array_digest(array) for field, array in arrays._asdict().items()}
            metadata = {"classes": class_names(config), "sha256": digests, "source": origin}
            files = {f"{field}.npy": _npy(array) for field, array in arrays._asdict().items()}
            files[_METADATA] = json.dumps(metadata, indent=2).encode() + b"\n"
            for name, content in files.items():
                with open(Path(work) / name, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for name in files:
                os.replace(Path(work) / name, directory / name)
    except OSError as error:
        raise DataError(
            f"cannot write the cache {directory}: {error.strerror or error}; "
            "set XDG_CACHE_HOME to a directory with room that can be written to"
        ) from None
    return origin


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
