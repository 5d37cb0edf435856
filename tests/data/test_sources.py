import contextlib
import errno
import functools
import gzip
import hashlib
import http.server
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.data import debian, idx
from cnn.data import tfds as tfds_source
from cnn.data.idx import Arrays, IdxFile
from cnn.datasets import DATASETS, DatasetName
from cnn.errors import DataError

FAMILY = ("fashion_mnist", "mnist", "kmnist")


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
    """A tar.gz in the format of the published one."""

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
    """The files of a data set as they would be published."""
    if name == "cifar10":
        return {"cifar-10-binary.tar.gz": cifar10_archive(arrays)}
    fields = idx.IDX_FILES.items()
    return {f"{file.name}.gz": gzip.compress(idx_bytes(getattr(arrays, field))) for field, file in fields}


@pytest.fixture
def tiny(monkeypatch):
    """Data sets of 20 + 6 images, with everything that is pinned pinned to these: tiny(name) -> arrays."""

    def pin(name: DatasetName) -> Arrays:
        monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(train_images=20, test_images=6))
        arrays = random_arrays(name)
        if name == "fashion_mnist":
            for field, file in idx.IDX_FILES.items():
                sha256 = hashlib.sha256(idx_bytes(getattr(arrays, field))).hexdigest()
                monkeypatch.setitem(idx.IDX_FILES, field, file._replace(sha256=sha256))
        return arrays

    return pin


def register(monkeypatch, name: DatasetName, files: dict[str, bytes], url: str) -> None:
    """Makes TFDS expect these files of a data set, at this address."""
    from tensorflow_datasets.core.download.checksums import UrlInfo
    from tensorflow_datasets.core.utils import Size

    infos = {}
    for file, content in files.items():
        infos[url + file] = UrlInfo(Size(len(content)), hashlib.sha256(content).hexdigest(), file)
    monkeypatch.setattr(tfds_source._stock_builder(name), "url_infos", infos)


@contextlib.contextmanager
def serve(directory):
    """Serves a directory over HTTP on this machine, quietly."""

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


def assert_equal(found: Arrays, expected: Arrays) -> None:
    for field in Arrays._fields:
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), strict=True)


def write(directory, files: dict[str, bytes]):
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


# idx files


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_gives_its_array(tmp_path, suffix):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(idx_bytes(array)) if suffix else idx_bytes(array))
    np.testing.assert_array_equal(idx.read_idx(path, (2, 3, 4, 1)), array, strict=True)


def test_digest_of_an_array_is_that_of_its_idx_file():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    assert idx.array_digest(array) == hashlib.sha256(idx_bytes(array)).hexdigest()


IMAGES = np.random.default_rng(1).integers(256, size=(4, 5, 6, 1), dtype=np.uint8)
MUTATIONS = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 200), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("insert"), st.integers(0, 200), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("cut"), st.integers(0, 200), st.integers(1, 50)),
    st.tuples(st.just("append"), st.just(0), st.binary(min_size=1, max_size=40)),
)


def mutate(content: bytes, kind: str, at: int, what) -> bytes:
    if kind == "append":
        return content + what
    if kind == "cut":
        return content[:at] + content[at + what :]
    return content[:at] + what + content[at + (len(what) if kind == "set" else 0) :]


@settings(max_examples=300)
@given(st.booleans(), st.lists(MUTATIONS, max_size=3))
def test_any_mutation_of_an_idx_file_gives_the_array_or_a_data_error(tmp_path_factory, compressed, mutations):
    content = idx_bytes(IMAGES)
    sha256 = hashlib.sha256(content).hexdigest()
    path = tmp_path_factory.getbasetemp() / ("fuzz.gz" if compressed else "fuzz")
    content = gzip.compress(content, mtime=0) if compressed else content
    for mutation in mutations:
        content = mutate(content, *mutation)
    path.write_bytes(content)
    try:
        np.testing.assert_array_equal(idx.read_idx(path, IMAGES.shape, sha256), IMAGES, strict=True)
    except DataError as error:
        assert mutations and "\n" not in str(error)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_without_another_exception(tmp_path_factory, content):
    for name in ("bytes", "bytes.gz"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=name):
            idx.read_idx(path, IMAGES.shape)


def test_no_more_is_unpacked_than_is_expected(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(DataError, match="found at least 19 bytes"):
        idx.read_idx(path, (10,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def swap(directory, one, other):
    (directory / one).rename(directory / "third")
    (directory / other).rename(directory / one)
    (directory / "third").rename(directory / other)


def change(directory, name, function):
    (directory / name).write_bytes(function((directory / name).read_bytes()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda d: (d / "t10k-labels-idx1-ubyte.gz").unlink(),
            "found no .*t10k-labels-idx1-ubyte.*expected a directory",
        ),
        (lambda d: change(d, "train-images-idx3-ubyte.gz", lambda b: b[:-9]), "train-images.*gz cannot be read.*ended"),
        (
            lambda d: change(d, "train-images-idx3-ubyte.gz", lambda b: b"<html>" + b),
            "train-images.*Not a gzipped file",
        ),
        (
            lambda d: change(d, "train-images-idx3-ubyte.gz", lambda b: gzip.compress(gzip.decompress(b)[:-1])),
            r"found 15,695 bytes with the idx header of shape \(20, 28, 28\), expected 15,696 bytes",
        ),
        (
            lambda d: swap(d, "train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
            r"train-labels.*: found 14 bytes .* shape \(6,\), expected 28 bytes with the idx header of shape \(20,\)",
        ),
        (
            lambda d: swap(d, "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
            r"train-images.* shape \(20,\), expected .* shape \(20, 28, 28\)",
        ),
        (
            lambda d: change(
                d, "t10k-images-idx3-ubyte.gz", lambda b: gzip.compress(gzip.decompress(b)[:-1] + b"\x07")
            ),
            "t10k-images.*: found SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}",
        ),
        (lambda d: (d / "train-images-idx3-ubyte").mkdir(), "train-images-idx3-ubyte cannot be read.*no regular file"),
        (lambda d: os.mkfifo(d / "train-images-idx3-ubyte"), "train-images-idx3-ubyte cannot be read.*no regular file"),
    ],
    ids="missing,truncated,not gzip,short,train and t10k,images and labels,tampered,directory,FIFO".split(","),
)
def test_a_bad_directory_is_refused_with_file_found_and_expected(tmp_path, tiny, damage, message):
    directory = write(tmp_path / "idx", archives("fashion_mnist", tiny("fashion_mnist")))
    damage(directory)
    with pytest.raises(DataError, match=message) as error:
        idx.read_idx_directory(directory)
    assert "\n" not in str(error.value)


def test_plain_and_compressed_files_give_the_same_arrays(tmp_path, tiny):
    arrays = tiny("fashion_mnist")
    compressed = write(tmp_path / "compressed", archives("fashion_mnist", arrays))
    plain = {file.name: idx_bytes(getattr(arrays, field)) for field, file in idx.IDX_FILES.items()}
    assert_equal(idx.read_idx_directory(compressed), arrays)
    assert_equal(idx.read_idx_directory(write(tmp_path / "plain", plain)), arrays)


# The published files, byte for byte


@pytest.mark.skipif(not shutil.which("apt-get"), reason="the package is Debian's, and apt fetches it")
def test_debian_files_get_back_their_published_bytes_and_tfds_gives_their_arrays(tmp_path, capfd):
    fetched = debian.fetch_debian_package(tmp_path)
    expected = idx.read_idx_directory(fetched)
    # Checked against the SHA-256 that TFDS has registered.
    assert_equal(tfds_source.read_archives("fashion_mnist", fetched), expected)
    assert_equal(tfds_source.fetch_with_tfds("fashion_mnist", tmp_path / "work", fetched), expected)
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    # Known answers: the first labels, and equally many images of each class.
    assert expected.train_labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert np.bincount(expected.train_labels).tolist() == [6000] * 10
    assert np.bincount(expected.test_labels).tolist() == [1000] * 10


def test_gzip_header_is_as_published():
    file = IdxFile("name", "", 1504176606)
    content = gzip.compress(b"content", mtime=7)
    found = debian.publish_gzip(content, file)
    assert found[3] == 8 and int.from_bytes(found[4:8], "little") == 1504176606 and found[10:15] == b"name\0"
    assert gzip.decompress(found) == b"content"


# Archives that the user has already


@pytest.mark.parametrize("name", DATASETS)
def test_archives_give_the_arrays(tmp_path, monkeypatch, tiny, name):
    arrays = tiny(name)
    register(monkeypatch, name, files := archives(name, arrays), "http://localhost/")
    assert_equal(tfds_source.read_archives(name, write(tmp_path, files)), arrays)


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(
        DataError, match="t10k-images-idx3-ubyte.gz cannot be read.*expected a directory with t10k-images"
    ):
        tfds_source.read_archives("mnist", tmp_path)


def test_a_wrong_archive_is_named(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"other")
    with pytest.raises(DataError, match="cifar-10-binary.tar.gz: found SHA-256 d9298a.*, expected c4a38c50a1bc"):
        tfds_source.read_archives("cifar10", tmp_path)


def test_cifar10_with_other_classes_is_refused(tmp_path, monkeypatch, tiny):
    files = {"cifar-10-binary.tar.gz": cifar10_archive(tiny("cifar10"), DATASETS["mnist"].class_names)}
    register(monkeypatch, "cifar10", files, "http://localhost/")
    with pytest.raises(DataError, match="found classes 0, 1.*expected airplane, automobile"):
        tfds_source.read_archives("cifar10", write(tmp_path, files))


# TensorFlow Datasets


@pytest.mark.parametrize("name", FAMILY)
def test_class_names_are_those_of_tfds(tmp_path, name):
    stock = tfds_source._stock_builder(name)(data_dir=tmp_path)
    assert tuple(stock.info.features["label"].names) == DATASETS[name].class_names


@pytest.mark.parametrize("name", DATASETS)
def test_mock_data_has_the_shapes_of_the_data_set(tmp_path, name):
    import tensorflow_datasets as tfds

    builder = tfds_source._tfds_builder(name)(data_dir=tmp_path)
    with tfds.testing.mock_data(num_examples=3):
        examples = builder.as_data_source(split="train")
        assert len(examples) == 3
        for index in range(3):
            image, label = examples[index]["image"], examples[index]["label"]
            assert image.dtype == np.uint8 and image.shape == DATASETS[name].image_shape
            assert 0 <= label < 10


def test_our_builder_does_not_replace_the_stock_one(tmp_path):
    import tensorflow_datasets as tfds

    tfds_source._tfds_builder("mnist")
    assert tfds.builder_cls("mnist") is tfds_source._stock_builder("mnist")


@pytest.mark.parametrize("name", DATASETS)
def test_tfds_downloads_verifies_and_prepares_in_the_published_order(tmp_path, monkeypatch, capfd, tiny, name):
    arrays = tiny(name)
    files = archives(name, arrays)
    with serve(write(tmp_path / "server", files)) as url:
        register(monkeypatch, name, files, url)
        assert_equal(tfds_source.fetch_with_tfds(name, tmp_path / "work"), arrays)
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_a_changed_download_is_refused(tmp_path, monkeypatch, tiny):
    files = archives("mnist", tiny("mnist"))
    with serve(write(tmp_path / "server", files | {"t10k-labels-idx1-ubyte.gz": b"<html>log in first</html>"})) as url:
        register(monkeypatch, "mnist", files, url)
        with pytest.raises(
            DataError, match="cannot prepare mnist: Artifact .*t10k-labels.* has wrong checksum"
        ) as error:
            tfds_source.fetch_with_tfds("mnist", tmp_path / "work")
    assert "\n" not in str(error.value)


def test_a_missing_download_is_refused(tmp_path, monkeypatch, tiny):
    with serve(write(tmp_path / "server", {})) as url:
        register(monkeypatch, "cifar10", archives("cifar10", tiny("cifar10")), url)
        with pytest.raises(DataError, match="cannot prepare cifar10: Failed to get url .*404"):
            tfds_source.fetch_with_tfds("cifar10", tmp_path / "work")


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch, tiny):
    monkeypatch.setattr(tfds_source, "NETWORK_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        register(monkeypatch, "mnist", archives("mnist", tiny("mnist")), url)
        start = time.monotonic()
        with pytest.raises(DataError, match="timed out"):
            tfds_source.fetch_with_tfds("mnist", tmp_path)
    assert time.monotonic() - start < 5


def test_a_full_disk_is_not_taken_for_a_closed_network(tmp_path, monkeypatch, tiny):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    files = archives("mnist", tiny("mnist"))
    register(monkeypatch, "mnist", files, "http://localhost/")
    monkeypatch.setattr(tfds_source, "_decode", full)
    with pytest.raises(OSError, match="No space left") as error:
        tfds_source.fetch_with_tfds("mnist", tmp_path / "work", write(tmp_path / "archives", files))
    assert error.value.errno == errno.ENOSPC


def test_arrays_that_tfds_does_not_give_back_as_published_are_refused(tmp_path, monkeypatch, tiny):
    arrays = tiny("fashion_mnist")
    other = arrays._replace(test_labels=(arrays.test_labels + 1) % 10)
    files = archives("fashion_mnist", other)
    register(monkeypatch, "fashion_mnist", files, "http://localhost/")
    with pytest.raises(DataError, match="test_labels that are not the published ones"):
        tfds_source.fetch_with_tfds("fashion_mnist", tmp_path / "work", write(tmp_path / "archives", files))


def test_a_shortened_data_set_is_refused(tmp_path, monkeypatch, tiny):
    arrays = tiny("cifar10")
    short = arrays._replace(train_images=arrays.train_images[:15], train_labels=arrays.train_labels[:15])
    files = archives("cifar10", short)
    register(monkeypatch, "cifar10", files, "http://localhost/")
    with pytest.raises(DataError, match=r"train_images of shape \(15, 32, 32, 3\), expected \(20, 32, 32, 3\)"):
        tfds_source.fetch_with_tfds("cifar10", tmp_path / "work", write(tmp_path / "archives", files))


# Debian's package


def fake_apt(tmp_path, monkeypatch, script: str) -> None:
    path = write(tmp_path / "bin", {"apt-get": f"#!/bin/sh\n{script}\n".encode()}) / "apt-get"
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="packages are unpacked by Debian's dpkg-deb")
def test_without_package_lists_private_ones_are_fetched(tmp_path, monkeypatch, tiny):
    arrays = tiny("fashion_mnist")
    root = tmp_path / "root"
    (root / debian.DEBIAN_DIRECTORY.relative_to("/")).mkdir(parents=True)
    write(root / debian.DEBIAN_DIRECTORY.relative_to("/"), archives("fashion_mnist", arrays))
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        f"Package: {debian.DEBIAN_PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    )
    deb = tmp_path / f"{debian.DEBIAN_PACKAGE}_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", root, deb], check=True, capture_output=True)
    fake_apt(
        tmp_path,
        monkeypatch,
        f"""case "$*" in
        *Dir::State=*update) touch updated ;;
        *Dir::State=*download*) test -e updated && cp {deb} . ;;
        *) echo "E: Unable to locate package" >&2; exit 100 ;;
        esac""",
    )
    (tmp_path / "work").mkdir()
    assert_equal(idx.read_idx_directory(debian.fetch_debian_package(tmp_path / "work")), arrays)


def test_an_unknown_package_is_said_in_apts_words(tmp_path, monkeypatch):
    fake_apt(tmp_path, monkeypatch, "echo 'E: Unable to locate package x' >&2; exit 100")
    with pytest.raises(DataError, match="^apt-get failed: E: Unable to locate package x$"):
        debian.fetch_debian_package(tmp_path)


def test_a_hanging_apt_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(debian, "COMMAND_SECONDS", 0.1)
    fake_apt(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(DataError, match="apt-get failed: .*timed out"):
        debian.fetch_debian_package(tmp_path)


def test_no_apt_is_a_data_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="apt-get failed: .*No such file"):
        debian.fetch_debian_package(tmp_path)
