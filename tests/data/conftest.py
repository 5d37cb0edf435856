"""Tiny data sets, pinned like the published ones, and a machine without data or network."""

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnn.data import cache, debian, idx
from cnn.data.idx import Arrays
from cnn.datasets import DATASETS, DatasetName
from tests.data.own_layouts import class_folders
from tests.data.published import archives, idx_bytes, random_arrays, write


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty cache, no files, and no network."""

    def closed(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(debian, "DEBIAN_DIRECTORY", tmp_path / "not installed")
    monkeypatch.setattr(debian, "DEBIAN_PACKAGE", "no-such-package")
    monkeypatch.setattr(cache, "MIN_FREE_BYTES", 0)
    monkeypatch.setattr(socket, "getaddrinfo", closed)
    monkeypatch.setattr(socket.socket, "connect", closed)


@pytest.fixture
def pin(monkeypatch) -> Callable[[DatasetName, Arrays], None]:
    """Sets the sizes and digests of a published data set to those of arrays."""

    def pin(name: DatasetName, arrays: Arrays) -> None:
        sizes = {"train_images": len(arrays.train_labels), "test_images": len(arrays.test_labels)}
        monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(**sizes))
        if name == "fashion_mnist":
            for field, file in idx.IDX_FILES.items():
                sha256 = hashlib.sha256(idx_bytes(getattr(arrays, field))).hexdigest()
                monkeypatch.setitem(idx.IDX_FILES, field, file._replace(sha256=sha256))

    return pin


@pytest.fixture
def tiny(pin, monkeypatch) -> Callable[[DatasetName], Arrays]:
    """Data sets of 20 + 6 random images, with sizes and digests pinned to them: tiny(name) -> arrays."""

    def random(name: DatasetName) -> Arrays:
        monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(train_images=20, test_images=6))
        pin(name, arrays := random_arrays(name))
        return arrays

    return random


@pytest.fixture
def idx_directory(tiny, tmp_path) -> Path:
    """A directory with the tiny Fashion-MNIST in the published format."""
    return write(tmp_path / "idx", archives("fashion_mnist", tiny("fashion_mnist")))


@pytest.fixture
def installed(monkeypatch, offline, idx_directory) -> Path:
    """The same directory as the installed Debian package."""
    monkeypatch.setattr(debian, "DEBIAN_DIRECTORY", idx_directory)
    return idx_directory


@pytest.fixture(scope="session")
def digits():
    """100 images of 8 x 8 pixels, and their labels: 0 to 9, ten times."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rows = np.stack([np.flatnonzero(labels == label)[:10] for label in range(10)], axis=1).ravel()
    return (images[rows] * 15.9375).astype(np.uint8).reshape(-1, 8, 8), labels[rows].astype(np.uint8)


@pytest.fixture
def folder(tmp_path, digits):
    """The digits in class folders."""
    return class_folders(tmp_path / "digits", {"": digits})
