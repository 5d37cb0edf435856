"""Tiny data sets, pinned like the published ones, and a machine without data or network."""

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from cnn.data import cache, debian, idx
from cnn.data.idx import Arrays
from cnn.datasets import DATASETS, DatasetName
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
def tiny(monkeypatch) -> Callable[[DatasetName], Arrays]:
    """Data sets of 20 + 6 random images, with sizes and digests pinned to them: tiny(name) -> arrays."""

    def pin(name: DatasetName) -> Arrays:
        monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(train_images=20, test_images=6))
        arrays = random_arrays(name)
        if name == "fashion_mnist":
            for field, file in idx.IDX_FILES.items():
                sha256 = hashlib.sha256(idx_bytes(getattr(arrays, field))).hexdigest()
                monkeypatch.setitem(idx.IDX_FILES, field, file._replace(sha256=sha256))
        return arrays

    return pin


@pytest.fixture
def idx_directory(tiny, tmp_path) -> Path:
    """A directory with the tiny Fashion-MNIST in the published format."""
    return write(tmp_path / "idx", archives("fashion_mnist", tiny("fashion_mnist")))


@pytest.fixture
def installed(monkeypatch, offline, idx_directory) -> Path:
    """The same directory as the installed Debian package."""
    monkeypatch.setattr(debian, "DEBIAN_DIRECTORY", idx_directory)
    return idx_directory
