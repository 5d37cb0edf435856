"""TensorFlow Datasets fetches, verifies and prepares a data set here, without TensorFlow."""

import contextlib
import errno
import functools
import hashlib
import importlib
import io
import logging
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.data.debian import NETWORK_SECONDS
from cnn.data.idx import IDX_FILES, Arrays, array_digest, array_shapes, read_idx
from cnn.datasets import DATASETS, DatasetName
from cnn.errors import DataError, first_cause


def _read_cifar10(archive: Path) -> Arrays:
    """Returns CIFAR-10 from its binary version (https://www.cs.toronto.edu/~kriz/cifar.html)."""
    with tarfile.open(archive) as tar:
        files = {Path(member.name).name: file.read() for member in tar if (file := tar.extractfile(member))}
    names = tuple(files["batches.meta.txt"].decode().split())
    if names != (expected := DATASETS["cifar10"].class_names):
        raise DataError(f"{archive}: found classes {', '.join(names)}, expected {', '.join(expected)}")

    def batches(*numbers: str) -> tuple[np.ndarray, np.ndarray]:
        content = b"".join(files[f"{number}.bin"] for number in numbers)
        records = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)  # A label, then the image, C first.
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), np.ascontiguousarray(records[:, 0])

    return Arrays(*batches(*(f"data_batch_{i}" for i in range(1, 6))), *batches("test_batch"))


def _decode(name: DatasetName, files: Mapping[str, os.PathLike]) -> Arrays:
    """Returns the arrays in the files that TFDS fetched, by their published names."""
    if name == "cifar10":
        return _read_cifar10(Path(files["cifar-10-binary.tar.gz"]))
    shapes = array_shapes(name)
    return Arrays(*(read_idx(Path(files[f"{file.name}.gz"]), shapes[field]) for field, file in IDX_FILES.items()))


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _stock_builder(name: DatasetName) -> Any:
    """Returns TFDS's own builder class, which knows the addresses and checksums of the published files."""
    module, builder = DATASETS[name].builder
    return getattr(importlib.import_module(f"tensorflow_datasets.image_classification.{module}"), builder)


def read_archives(name: DatasetName, directory: Path) -> Arrays:
    """Returns a data set from a directory with its files as published, each verified by the SHA-256 that TFDS has.

    Raises:
      DataError: a file is missing, or not the published one.
    """
    infos = _stock_builder(name).url_infos.values()
    for info in infos:
        path = directory / info.filename
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            names = ", ".join(info.filename for info in infos)
            raise DataError(f"{path} cannot be read ({error.strerror}); expected a directory with {names}") from None
        if found != info.checksum:
            raise DataError(f"{path}: found SHA-256 {found}, expected {info.checksum}")
    return _decode(name, {info.filename: directory / info.filename for info in infos})


def _tfds_builder(name: DatasetName) -> Any:
    """Returns a TFDS builder class that needs no TensorFlow and keeps the published order.

    The stock builders use TensorFlow to unpack archives and to encode images, so this one does both by itself. What
    identifies the data (addresses, checksums, version) stays theirs.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    stock = _stock_builder(name)
    with registered.skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            VERSION = stock.VERSION
            name = stock.name
            url_infos = stock.url_infos

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=DATASETS[stock.name].image_shape),
                    "label": tfds.features.ClassLabel(names=DATASETS[stock.name].class_names),
                }
                # The split into training and validation images goes by the position in the published files.
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
                )

            def _split_generators(self, dl_manager):
                # One after another: threads of a download that failed would go on writing, and warning, after the end.
                files = {info.filename: dl_manager.download(url) for url, info in stock.url_infos.items()}
                arrays = _decode(stock.name, files)
                return {
                    "train": self._generate_examples(arrays.train_images, arrays.train_labels),
                    "test": self._generate_examples(arrays.test_images, arrays.test_labels),
                }

            def _generate_examples(self, images, labels):
                for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                    yield index, {"image": _png(image), "label": int(label)}

    return Builder


@contextlib.contextmanager
def _tfds_manners() -> Iterator[None]:
    """Keeps TFDS off the terminal, where its progress bars and warnings go, and bounds how long it waits."""
    from tensorflow_datasets.core.download import downloader

    level, retries, open_url = logging.root.manager.disable, downloader.MAX_RETRIES, downloader._open_url
    logging.disable(logging.WARNING)
    downloader.MAX_RETRIES = 1  # Its ten take 205 s to notice that there is no network.
    downloader._open_url = functools.partial(open_url, timeout=NETWORK_SECONDS)  # It has none of its own.
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
        downloader.MAX_RETRIES, downloader._open_url = retries, open_url


def fetch_with_tfds(name: DatasetName, directory: Path, archives: Path | None = None) -> Arrays:
    """Returns a data set that TensorFlow Datasets fetched, verified against its checksums, and prepared.

    Args:
      name: the data set.
      directory: an empty directory to work in; nothing in it is needed afterwards.
      archives: a directory that holds the published files already; without it they are downloaded.

    Raises:
      DataError: there is no network, or what came is not what TFDS has registered.
      OSError: the directory's disk is full.
    """
    import tensorflow_datasets as tfds

    builder = _tfds_builder(name)(data_dir=directory / "prepared")
    config = tfds.download.DownloadConfig(manual_dir=archives, force_checksums_validation=True)
    try:
        with _tfds_manners():
            builder.download_and_prepare(
                download_dir=directory / "downloads", download_config=config, file_format="array_record"
            )
            arrays = {}
            for split in ("train", "test"):
                examples = builder.as_data_source(split=split)
                examples = examples.__getitems__(range(len(examples)))  # One by one they take three times as long.
                pairs = [(example["image"], example["label"]) for example in examples]
                arrays[f"{split}_images"] = np.stack([image for image, _ in pairs])
                arrays[f"{split}_labels"] = np.array([label for _, label in pairs], np.uint8)
    except Exception as error:  # TFDS and all that lies under it raise too many types to list.
        cause = first_cause(error)
        if os.strerror(errno.ENOSPC) in cause:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise DataError(f"TensorFlow Datasets cannot prepare {name}: {cause}") from None
    for field, shape in array_shapes(name).items():
        if arrays[field].shape != shape:
            raise DataError(f"TensorFlow Datasets gave {field} of shape {arrays[field].shape}, expected {shape}")
        if name == "fashion_mnist" and array_digest(arrays[field]) != IDX_FILES[field].sha256:
            raise DataError(f"TensorFlow Datasets gave {field} that are not the published ones")
    return Arrays(**arrays)
