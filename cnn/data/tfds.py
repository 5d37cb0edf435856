"""Downloads, verifies and prepares a data set with TensorFlow Datasets (TFDS), without TensorFlow."""

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
        raise DataError(f"{archive}: got classes {', '.join(names)}, expected {', '.join(expected)}")

    def batches(*numbers: str) -> tuple[np.ndarray, np.ndarray]:
        content = b"".join(files[f"{number}.bin"] for number in numbers)
        records = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)  # A label, then the image, C first.
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), np.ascontiguousarray(records[:, 0])

    return Arrays(*batches(*(f"data_batch_{i}" for i in range(1, 6))), *batches("test_batch"))


def decode_files(name: DatasetName, files: Mapping[str, os.PathLike]) -> Arrays:
    """Returns the arrays in files with the given published names, such as those that TFDS downloaded."""
    if name == "cifar10":
        return _read_cifar10(Path(files["cifar-10-binary.tar.gz"]))
    shapes = array_shapes(name)
    return Arrays(*(read_idx(Path(files[f"{file.name}.gz"]), shapes[field]) for field, file in IDX_FILES.items()))


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def stock_builder(name: DatasetName) -> Any:
    """Returns TFDS's own builder class, which knows the addresses and checksums of the published files."""
    module, builder = DATASETS[name].builder
    return getattr(importlib.import_module(f"tensorflow_datasets.image_classification.{module}"), builder)


def read_archives(name: DatasetName, directory: Path) -> Arrays:
    """Returns a data set from a directory with its published files, each verified by the SHA-256 registered in TFDS.

    Raises:
      DataError: a file is missing or differs from the published one.
    """
    infos = stock_builder(name).url_infos.values()
    for info in infos:
        path = directory / info.filename
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            names = ", ".join(info.filename for info in infos)
            raise DataError(f"{path} cannot be read ({error.strerror}); expected a directory with {names}") from None
        if digest != info.checksum:
            raise DataError(f"{path}: got SHA-256 {digest}, expected {info.checksum}")
    return decode_files(name, {info.filename: directory / info.filename for info in infos})


def tfds_builder(name: DatasetName) -> Any:
    """Returns a TFDS builder class that needs no TensorFlow and keeps the published order.

    The stock builders use TensorFlow to unpack archives and to encode images, so this one does both itself. It keeps
    their identification of the data (addresses, checksums, version).
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    stock = stock_builder(name)
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
                # The split into training and validation images depends on the position in the published files.
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
                )

            def _split_generators(self, dl_manager):
                # One after another: threads of a failed download would continue writing, and warning, after the end.
                files = {info.filename: dl_manager.download(url) for url, info in stock.url_infos.items()}
                arrays = decode_files(stock.name, files)
                return {
                    "train": self._generate_examples(arrays.train_images, arrays.train_labels),
                    "test": self._generate_examples(arrays.test_images, arrays.test_labels),
                }

            def _generate_examples(self, images, labels):
                for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                    yield index, {"image": _png(image), "label": int(label)}

    return Builder


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Silences the progress bars and warnings of TFDS and sets its timeouts."""
    from tensorflow_datasets.core.download import downloader

    level, retries, open_url = logging.root.manager.disable, downloader.MAX_RETRIES, downloader._open_url
    logging.disable(logging.WARNING)
    downloader.MAX_RETRIES = 1  # The default, 10, takes 205 s to fail without a network.
    downloader._open_url = functools.partial(open_url, timeout=NETWORK_SECONDS)  # It sets no timeout itself.
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
        downloader.MAX_RETRIES, downloader._open_url = retries, open_url


def fetch_with_tfds(name: DatasetName, directory: Path, archives: Path | None = None) -> Arrays:
    """Returns a data set that TFDS downloaded, verified against its checksums, and prepared.

    Args:
      name: the data set.
      directory: an empty working directory; nothing in it is needed afterwards.
      archives: a directory with the published files; without it they are downloaded.

    Raises:
      DataError: the download failed, or its checksum is not the one registered in TFDS.
      OSError: the directory's disk is full.
    """
    import tensorflow_datasets as tfds

    builder = tfds_builder(name)(data_dir=directory / "prepared")
    config = tfds.download.DownloadConfig(manual_dir=archives, force_checksums_validation=True)
    try:
        with _quiet_tfds():
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
    except Exception as error:  # TFDS and its dependencies raise too many types to list.
        cause = first_cause(error)
        if os.strerror(errno.ENOSPC) in cause:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise DataError(f"TensorFlow Datasets cannot prepare {name}: {cause}") from None
    for field, shape in array_shapes(name).items():
        if arrays[field].shape != shape:
            raise DataError(f"TensorFlow Datasets returned {field} of shape {arrays[field].shape}, expected {shape}")
        if name == "fashion_mnist" and array_digest(arrays[field]) != IDX_FILES[field].sha256:
            raise DataError(f"TensorFlow Datasets returned {field} that differ from the published ones")
    return Arrays(**arrays)
