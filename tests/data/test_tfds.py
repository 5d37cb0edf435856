import contextlib
import errno
import functools
import hashlib
import http.server
import socket
import threading
import time

import numpy as np
import pytest

from cnn.data import tfds as tfds_source
from cnn.datasets import DATASETS, DatasetName
from cnn.errors import DataError
from tests.data.published import archives, assert_equal, cifar10_archive, write

FAMILY = ("fashion_mnist", "mnist", "kmnist")


def register(monkeypatch, name: DatasetName, files: dict[str, bytes], url: str) -> None:
    """Registers these files of a data set in TFDS, at this address."""
    from tensorflow_datasets.core.download.checksums import UrlInfo
    from tensorflow_datasets.core.utils import Size

    infos = {}
    for file, content in files.items():
        infos[url + file] = UrlInfo(Size(len(content)), hashlib.sha256(content).hexdigest(), file)
    monkeypatch.setattr(tfds_source.stock_builder(name), "url_infos", infos)


@contextlib.contextmanager
def serve(directory):
    """Serves a directory over HTTP on this machine, without log."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=directory)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


# Archives in a directory of the user


@pytest.mark.parametrize("name", DATASETS)
def test_read_archives_returns_the_arrays(tmp_path, monkeypatch, tiny, name):
    arrays = tiny(name)
    register(monkeypatch, name, files := archives(name, arrays), "http://localhost/")
    assert_equal(tfds_source.read_archives(name, write(tmp_path, files)), arrays)


def test_missing_archive_is_named(tmp_path):
    with pytest.raises(
        DataError, match="t10k-images-idx3-ubyte.gz cannot be read.*expected a directory with t10k-images"
    ):
        tfds_source.read_archives("mnist", tmp_path)


def test_wrong_archive_is_named(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"other")
    with pytest.raises(DataError, match="cifar-10-binary.tar.gz: got SHA-256 d9298a.*, expected c4a38c50a1bc"):
        tfds_source.read_archives("cifar10", tmp_path)


def test_cifar10_with_other_classes_is_rejected(tmp_path, monkeypatch, tiny):
    files = {"cifar-10-binary.tar.gz": cifar10_archive(tiny("cifar10"), DATASETS["mnist"].class_names)}
    register(monkeypatch, "cifar10", files, "http://localhost/")
    with pytest.raises(DataError, match="got classes 0, 1.*expected airplane, automobile"):
        tfds_source.read_archives("cifar10", write(tmp_path, files))


# Download and preparation


@pytest.mark.parametrize("name", FAMILY)
def test_class_names_match_tfds(tmp_path, name):
    stock = tfds_source.stock_builder(name)(data_dir=tmp_path)
    assert tuple(stock.info.features["label"].names) == DATASETS[name].class_names


@pytest.mark.parametrize("name", DATASETS)
def test_mock_data_has_the_shapes_of_the_data_set(tmp_path, name):
    import tensorflow_datasets as tfds

    builder = tfds_source.tfds_builder(name)(data_dir=tmp_path)
    with tfds.testing.mock_data(num_examples=3):
        examples = builder.as_data_source(split="train")
        assert len(examples) == 3
        for index in range(3):
            image, label = examples[index]["image"], examples[index]["label"]
            assert image.dtype == np.uint8 and image.shape == DATASETS[name].image_shape
            assert 0 <= label < 10


def test_our_builder_does_not_replace_the_stock_one(tmp_path):
    import tensorflow_datasets as tfds

    tfds_source.tfds_builder("mnist")
    assert tfds.builder_cls("mnist") is tfds_source.stock_builder("mnist")


@pytest.mark.parametrize("name", DATASETS)
def test_tfds_download_gives_the_arrays_in_published_order(tmp_path, monkeypatch, capfd, tiny, name):
    arrays = tiny(name)
    files = archives(name, arrays)
    with serve(write(tmp_path / "server", files)) as url:
        register(monkeypatch, name, files, url)
        assert_equal(tfds_source.fetch_with_tfds(name, tmp_path / "work"), arrays)
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_modified_download_is_rejected(tmp_path, monkeypatch, tiny):
    files = archives("mnist", tiny("mnist"))
    with serve(write(tmp_path / "server", files | {"t10k-labels-idx1-ubyte.gz": b"<html>log in first</html>"})) as url:
        register(monkeypatch, "mnist", files, url)
        with pytest.raises(
            DataError, match="cannot prepare mnist: Artifact .*t10k-labels.* has wrong checksum"
        ) as error:
            tfds_source.fetch_with_tfds("mnist", tmp_path / "work")
    assert "\n" not in str(error.value)


def test_missing_download_is_rejected(tmp_path, monkeypatch, tiny):
    with serve(write(tmp_path / "server", {})) as url:
        register(monkeypatch, "cifar10", archives("cifar10", tiny("cifar10")), url)
        with pytest.raises(DataError, match="cannot prepare cifar10: Failed to get url .*404"):
            tfds_source.fetch_with_tfds("cifar10", tmp_path / "work")


def test_unresponsive_server_times_out(tmp_path, monkeypatch, tiny):
    monkeypatch.setattr(tfds_source, "NETWORK_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        register(monkeypatch, "mnist", archives("mnist", tiny("mnist")), url)
        start = time.monotonic()
        with pytest.raises(DataError, match="timed out"):
            tfds_source.fetch_with_tfds("mnist", tmp_path)
    assert time.monotonic() - start < 5


def test_full_disk_is_reported_as_an_os_error(tmp_path, monkeypatch, tiny):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    files = archives("mnist", tiny("mnist"))
    register(monkeypatch, "mnist", files, "http://localhost/")
    monkeypatch.setattr(tfds_source, "decode_files", full)
    with pytest.raises(OSError, match="No space left") as error:
        tfds_source.fetch_with_tfds("mnist", tmp_path / "work", write(tmp_path / "archives", files))
    assert error.value.errno == errno.ENOSPC


def test_arrays_with_a_wrong_digest_are_rejected(tmp_path, monkeypatch, tiny):
    arrays = tiny("fashion_mnist")
    other = arrays._replace(test_labels=(arrays.test_labels + 1) % 10)
    files = archives("fashion_mnist", other)
    register(monkeypatch, "fashion_mnist", files, "http://localhost/")
    with pytest.raises(DataError, match="test_labels that differ from the published ones"):
        tfds_source.fetch_with_tfds("fashion_mnist", tmp_path / "work", write(tmp_path / "archives", files))


def test_data_set_with_missing_images_is_rejected(tmp_path, monkeypatch, tiny):
    arrays = tiny("cifar10")
    short = arrays._replace(train_images=arrays.train_images[:15], train_labels=arrays.train_labels[:15])
    files = archives("cifar10", short)
    register(monkeypatch, "cifar10", files, "http://localhost/")
    with pytest.raises(DataError, match=r"train_images of shape \(15, 32, 32, 3\), expected \(20, 32, 32, 3\)"):
        tfds_source.fetch_with_tfds("cifar10", tmp_path / "work", write(tmp_path / "archives", files))
