"""Images and labels as arrays in memory, verified and split."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from cnn.config import DataConfig, ExperimentConfig
from cnn.data.arrays import Split, Splits, release
from cnn.data.box_files import find_box_layout, load_boxes
from cnn.data.cache import load_arrays, prepare
from cnn.data.labels import Decision, read_decisions, relabel
from cnn.data.layouts import LAYOUTS, find_layout
from cnn.data.own_images import load_own_images
from cnn.data.scenes import check_boxes, with_scenes
from cnn.errors import ConfigError, DataError
from cnn.resolution import class_names, resolve, unnamed
from cnn.rules import FILE, INT32, checked, instance, require
from cnn.text import shown

CHUNK_BYTES = 64 << 20
"""Bytes that are read at a time of images that lie on the disk."""

MAX_CLASSES = 65_536
"""Largest number of classes where the configuration does not say it: the labels do."""


@checked(config=instance(DataConfig))
def load_data(config: DataConfig) -> Splits:
    """Returns the training, validation and test images of a data set.

    The published test images are the test split. The published training images are divided exactly as by
    scikit-learn's ``train_test_split(test_size=val_fraction, random_state=split_seed)``; within each split they keep
    their published order.

    A directory that the user names, with ``config.source`` or, for Fashion-MNIST, the environment variable
    ``FASHION_MNIST_DIR``, is read and verified each time: it may be wrong, and the cache must not hide that.
    Otherwise the images come from the cache in ``$XDG_CACHE_HOME/fashion-cnn`` (``~/.cache`` without the variable),
    verified by SHA-256. An empty or damaged cache is filled from the installed Debian package, or from the network.

    ``config.labels`` names a file that changes labels, or drops images, of the published training images, by their
    position in them; the split of all others is that without the file.

    Raises:
      ConfigError: ``val_fraction`` leaves no training image.
      DataError: the images cannot be found, downloaded, verified or cached.
    """
    return load_named(config)[1]


def load_named(config: DataConfig) -> tuple[DataConfig, Splits]:
    """Returns a data set as ``load_data`` does, and its configuration with image size, channels and class names."""
    if is_own(config):
        return _load_own(config)
    # A wrong path is the first thing to say: for its images, size and channels may be right.
    named = load_arrays(config) if config.source is not None else None
    height, width, channels = config.published.image_shape
    size = (height, width)
    require(config.image_size in ((), size), "data.image_size", config.image_size, f"{size} with {config.name}")
    require(config.channels in (0, channels), "data.channels", config.channels, f"{channels} with {config.name}")
    if config.train_images < 1:
        raise ConfigError(
            f"--data.val_fraction is {config.val_fraction}, but must leave one of {config.val_images:,} images"
        )
    arrays = named or load_arrays(config)
    names = class_names(config)
    _, labels, stays = _decided(config.labels, arrays.train_labels, names)
    # An image keeps its split whichever others are dropped.
    train, val = (part[stays[part]] for part in published_split(config, len(labels)))
    splits = Splits(
        train=Split(arrays.train_images[train], labels[train]),
        val=Split(arrays.train_images[val], labels[val]),
        test=Split(np.array(arrays.test_images), arrays.test_labels.astype(np.int32)),
    )
    for name, split in zip(Splits._fields, splits, strict=True):
        check_split(split, config.published.image_shape, len(names), name)
    config = dataclasses.replace(config, image_size=size, channels=channels, class_names=names)
    return config, with_scenes(config, splits)


def published_split(config: DataConfig, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which of the published training images are training and which are validation images, ascending."""
    # The assignment is scikit-learn's; within each split, images keep their published order.
    permutation = np.random.RandomState(config.split_seed).permutation(count)
    val, train = np.split(permutation, [config.val_images])
    return np.sort(train), np.sort(val)


def _decided(
    path: str | None, labels_N: np.ndarray, names: tuple[str, ...]
) -> tuple[list[Decision], np.ndarray, np.ndarray]:
    """The rows of a file of decisions, none without a file, and what ``relabel`` returns."""
    decisions = [] if path is None else read_decisions(path, labels_N, names)
    return decisions, *relabel(decisions, labels_N, names)


@checked(config=instance(DataConfig))
def find_origins(config: DataConfig) -> tuple[np.ndarray, list[Decision]]:
    """Returns the index that a file of ``--data.labels`` gives each training, then each validation image, and its rows.

    An index is the position in the published training images, in their published order; of own images, the position in
    the training images, followed by the validation images. Images that are dropped count, so that indices never change.

    Raises:
      UserError: as of ``load_data``.
    """
    loaded, splits = load_named(dataclasses.replace(config, labels=None))
    labels_N = np.concatenate([splits.train.labels, splits.val.labels])
    own = loaded.name == "images"
    indices_N = np.arange(len(labels_N)) if own else np.concatenate(published_split(config, len(labels_N)))
    in_order_N = np.empty_like(labels_N)
    in_order_N[indices_N] = labels_N
    decisions, _, stays_N = _decided(config.labels, in_order_N, loaded.class_names)
    return indices_N[stays_N[indices_N]], decisions


def is_own(config: DataConfig) -> bool:
    """Returns whether the images are the user's own: the configuration says so, or its source has their layout.

    Raises:
      ConfigError: there is no source.
      DataError: the source cannot be read.
    """
    if config.name == "images":
        require(config.source is not None, "data.source", config.source, f"{LAYOUTS}, with --data.name images")
        return True
    # Boxes first: folders of images with boxes would be those of classes.
    return config.source is not None and any(find(config.source) is not None for find in (find_box_layout, find_layout))


def _load_own(config: DataConfig) -> tuple[DataConfig, Splits]:
    boxed = find_box_layout(str(config.source)) is not None
    load_source = load_boxes if boxed else load_own_images
    own = load_source(
        str(config.source),
        config.image_size,
        config.channels,
        config.resize,
        config.val_fraction,
        config.test_fraction,
        config.split_seed,
    )
    height, width, channels = own.train.images.shape[1:]
    names, found = config.class_names or own.class_names, len(own.class_names)
    require(len(names) == found, "data.class_names", config.class_names, f"the names of the {found} classes")
    resolved = dataclasses.replace(
        config, name="images", image_size=(height, width), channels=channels, class_names=names
    )
    if boxed:
        require(config.labels is None, "data.labels", config.labels, "left out with boxes")
        require(not config.scenes, "data.scenes", config.scenes, "0 with boxes")
        return resolved, Splits(own.train, own.val, own.test)
    train, val = _relabelled(config.labels, own.train, own.val, names)
    return resolved, with_scenes(resolved, Splits(train, val, own.test))


def _relabelled(path: str | None, train: Split, val: Split, names: tuple[str, ...]) -> Iterator[Split]:
    """The training and the validation images after the decisions in a file; as they are without one."""
    _, labels, stays = _decided(path, np.concatenate([train.labels, val.labels]), names)
    parts = zip((train, val), *(np.split(array, [len(train.labels)]) for array in (labels, stays)), strict=True)
    for split, labels_N, stays_N in parts:
        # A selection is in memory; without one, images stay on the disk.
        yield Split(split.images if stays_N.all() else split.images[stays_N], labels_N[stays_N])


@checked(path=FILE)
def load_images(path: str | os.PathLike, **fields: Any) -> tuple[Splits, tuple[str, ...]]:
    """Returns one's own images, split, and the names of their classes.

    Args:
      path: a folder of class folders, or a CSV, npz or parquet file; docs/data.md lists the layouts.
      **fields: of ``DataConfig``, such as ``image_size=(64, 64)``, ``channels=3``, ``resize="pad"``.

    Raises:
      UserError: the path has no layout, or images or labels cannot be used.
    """
    config, splits = load_named(DataConfig(name="images", source=os.fspath(path), **fields))
    return splits, config.class_names


def prepare_data(config: DataConfig) -> str:
    """Fills the cache unless it is valid, and returns a line that says with what, and from where.

    Raises:
      UserError: the images cannot be found, downloaded, verified or cached.
    """
    if not is_own(config):
        require(config.labels is None, "data.labels", config.labels, f"left out here, where {config.name} is fetched")
        return prepare(config)
    own, splits = load_named(config)
    counts = ", ".join(f"{len(split.labels):,} {name}" for name, split in splits._asdict().items())
    height, width, channels = own.image_shape
    return f"images: {counts}, {len(own.class_names)} classes, {height} x {width} x {channels}, from {config.source}"


def data_digest(splits: Splits) -> str:
    """Returns the hex SHA-256 of the data of a run: all images and labels, their order, shapes and dtypes."""
    digest = hashlib.sha256()
    for array in (array for split in splits for array in split):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        rows = max(1, CHUNK_BYTES * len(array) // max(array.nbytes, 1))
        for start in range(0, len(array), rows):
            digest.update(np.ascontiguousarray(array[start : start + rows]).data)
            release(array)
    return digest.hexdigest()


def check_split(split: Split, image_shape: tuple, classes: int, name: str, boxes: bool = False) -> None:
    """Checks that a split can be trained or evaluated on.

    Args:
      split: images and labels.
      image_shape: height, width and channels that the images must have.
      classes: labels must be from 0 to ``classes - 1``.
      name: name of the split in the message.
      boxes: whether the labels must be boxes and classes, as of ``check_boxes``.

    Raises:
      DataError: images or labels have the wrong shape, dtype or range, or there are none.
    """
    if not (hasattr(split.images, "dtype") and hasattr(split.labels, "dtype")):
        raise DataError(f"{name} images and labels must be arrays, but are {shown(tuple(map(type, split)))}")
    images, labels = np.asarray(split.images), np.asarray(split.labels)
    if images.dtype != np.uint8 or images.shape[1:] != image_shape:
        shape = ", ".join(("N", *map(str, image_shape)))
        extent = ""
        if np.issubdtype(images.dtype, np.floating) and images.size:
            extent = f" from {images.min():g} to {images.max():g}"
        raise DataError(
            f"{name} images are {images.dtype} {list(images.shape)}{extent}, but must be uint8 [{shape}] from 0 to 255"
        )
    if not len(images):
        raise DataError(f"{name} has no images, but must have at least 1")
    if boxes:
        check_boxes(split, classes, name)
        return
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        kind = "boxes, which need a detector" if labels.ndim == 3 else f"{labels.dtype} {list(labels.shape)}"
        raise DataError(f"{name} labels are {kind}, but must be integers [{len(images)}], 1 per image")
    invalid = np.flatnonzero((labels < 0) | (labels >= classes))
    if invalid.size:
        raise DataError(f"{name} label {invalid[0]} is {labels[invalid[0]]}, but must be from 0 to {classes - 1}")


def load(config: ExperimentConfig, splits: Splits | None = None) -> tuple[ExperimentConfig, Splits]:
    """Returns a configuration with what it leaves to its data, as ``resolve``, and the images that it trains on.

    Args:
      config: the configuration.
      splits: the caller's images; by default those that the configuration names.

    Raises:
      UserError: images or labels do not match the configuration, or are fewer than a batch.
    """
    if splits is None:
        data, splits = load_named(config.data)
        config = dataclasses.replace(config, data=data)
    return check_splits(config, splits), splits


def check_splits(config: ExperimentConfig, splits: Splits) -> ExperimentConfig:
    """Returns the configuration with what it leaves to its images, if it can train on them.

    The classes that it does not name are "class 0", "class 1", ... up to the largest label.

    Raises:
      UserError: images or labels do not match the configuration, or are fewer than a batch.
    """
    if not isinstance(splits, Splits) or not all(isinstance(split, Split) for split in splits):
        raise DataError(f"splits are {shown(splits)}, but must be a cnn.Splits of three cnn.Split; load_data gives one")
    resolved = config.data.image_size and config.data.channels
    image_shape = config.data.source_shape if resolved else np.shape(splits.train.images)[1:]
    named, classes, side = len(config.data.class_names), config.model.classes, config.data.scenes
    for name, split in splits._asdict().items():
        shape = image_shape if len(image_shape) == 3 and image_shape[2] in (1, 3) else ("H", "W", "1 or 3")
        composed = side and name == "train"
        shape = (side, side, *shape[2:]) if side and not composed else shape
        boxes = config.model.task == "detection" and not composed
        check_split(split, shape, max(named, classes) or MAX_CLASSES, name, boxes)
    # Of boxes, the last column is the class.
    largest = max(int(np.max(split.labels[..., -1] if split.labels.ndim > 1 else split.labels)) for split in splits)
    names = unnamed(classes or max(largest + 1, 1 if config.model.task == "detection" else 2))
    count, batch_size = len(splits.train.labels), config.optim.batch_size
    if batch_size > count:
        raise ConfigError(
            f"--optim.batch_size is {batch_size}, but must be at most {count}, the number of training images"
        )
    epochs, shift, side = config.train.epochs, config.augment.shift, max(image_shape[:2])
    # Steps are counted in int32.
    require(epochs <= (most := INT32 // -(-count // batch_size)), "train.epochs", epochs, f"at most {most:,} here")
    require(shift <= side, "augment.shift", shift, f"at most {side}, the images' side")
    labels = splits.train.labels if splits.train.labels.ndim == 1 else splits.train.labels[..., 4]
    counts = np.bincount(labels[labels >= 0].astype(int), minlength=max(len(names), named)).tolist()
    return resolve(config, image_shape, names, tuple(counts))
