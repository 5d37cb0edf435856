"""Tiny data sets in their published formats."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np

from cnn.data import idx
from cnn.data.idx import Arrays
from cnn.datasets import DATASETS, DatasetName


def random_arrays(name: DatasetName) -> Arrays:
    generator = np.random.default_rng(0)
    shapes = idx.array_shapes(name)
    return Arrays(
        **{k: generator.integers(10 if len(v) == 1 else 256, size=v, dtype=np.uint8) for k, v in shapes.items()}
    )


def idx_bytes(array: np.ndarray) -> bytes:
    """An independent writer of the idx format."""
    dims = [d for d in array.shape if d != 1]
    return bytes([0, 0, 8, len(dims)]) + np.array(dims, ">u4").tobytes() + array.tobytes()


def cifar10_archive(arrays: Arrays, names=DATASETS["cifar10"].class_names) -> bytes:
    """A tar.gz in the published format."""

    def records(images, labels):
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        return np.concatenate([labels[:, None], planes], axis=1).tobytes()

    size = len(arrays.train_images) // 5
    files = {"batches.meta.txt": "\n".join((*names, "", "")).encode()}
    files["test_batch.bin"] = records(arrays.test_images, arrays.test_labels)
    for i in range(5):
        part = slice(i * size, (i + 1) * size)
        files[f"data_batch_{i + 1}.bin"] = records(arrays.train_images[part], arrays.train_labels[part])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def archives(name: DatasetName, arrays: Arrays) -> dict[str, bytes]:
    """The published files of a data set, with these arrays."""
    if name == "cifar10":
        return {"cifar-10-binary.tar.gz": cifar10_archive(arrays)}
    fields = idx.IDX_FILES.items()
    return {f"{file.name}.gz": gzip.compress(idx_bytes(getattr(arrays, field))) for field, file in fields}


def write(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def assert_equal(actual: Arrays, expected: Arrays) -> None:
    for field in Arrays._fields:
        np.testing.assert_array_equal(getattr(actual, field), getattr(expected, field), strict=True)
