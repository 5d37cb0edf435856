import errno
import json
import os
import subprocess
import sys
import time
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.config import DataConfig
from cnn.data import cache, debian, idx, tfds
from cnn.data.cache import prepare
from cnn.data.splits import Splits, data_digest, load_data
from cnn.datasets import DATASETS
from cnn.errors import DataError
from cnn.resolution import class_names
from tests.data.published import archives, write

pytestmark = pytest.mark.usefixtures("offline")

CONFIG = DataConfig()


@pytest.fixture
def cache_home(tmp_path):
    return tmp_path / "home" / "fashion-cnn" / "fashion_mnist"


def assert_equal(actual: Splits, expected: Splits) -> None:
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one.images, other.images, strict=True)
        np.testing.assert_array_equal(one.labels, other.labels, strict=True)


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# Sources of the images


def test_installed_package_fills_the_cache(installed, cache_home, capsys):
    first = load_data(CONFIG)
    assert sorted(path.name for path in cache_home.iterdir()) == [
        *("metadata.json", "test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy")
    ]
    for path in installed.iterdir():
        path.unlink()
    assert_equal(load_data(CONFIG), first)
    assert capsys.readouterr() == ("", "")


def test_no_source_is_one_line_with_all_hints(cache_home, capsys, caplog):
    start = time.monotonic()
    with pytest.raises(DataError) as error:
        load_data(CONFIG)
    assert time.monotonic() - start < 10
    message = one_line(error)
    for hint in ("python -m cnn data", "--data.source", "apt-get install"):
        assert hint in message
    assert "Name or service not known" in message
    assert list(cache_home.iterdir()) == [] and caplog.records == []
    assert capsys.readouterr() == ("", "getting fashion_mnist from TensorFlow Datasets, once, in about half a minute\n")


def test_low_disk_space_is_always_reported(monkeypatch, cache_home):
    monkeypatch.setattr(cache, "MIN_FREE_BYTES", 2**63)
    with pytest.raises(DataError, match=r"To fix this: free disk space: only [0-9]+ MiB are left \(XDG_CACHE"):
        load_data(CONFIG)


def test_other_data_sets_ignore_the_fashion_mnist_sources(monkeypatch, installed):
    monkeypatch.setenv("FASHION_MNIST_DIR", str(installed))
    with pytest.raises(DataError, match="could not get mnist: .*Name or service not known.*--data.source$"):
        load_data(DataConfig(name="mnist"))


def test_damaged_installed_package_is_skipped_and_reported(installed, capsys):
    (installed / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(DataError, match="TensorFlow Datasets cannot prepare fashion_mnist"):
        load_data(CONFIG)
    assert "t10k-labels-idx1-ubyte.gz: got 0 bytes" in capsys.readouterr().err


def test_prepare_falls_back_to_the_package_from_apt(monkeypatch, idx_directory, cache_home, capsys):
    calls = []

    def fetch_with_tfds(name, directory, archives=None):
        calls.append(archives)
        if not archives:
            raise DataError("no network")
        return idx.read_idx_directory(archives)

    monkeypatch.setattr(tfds, "fetch_with_tfds", fetch_with_tfds)
    monkeypatch.setattr(debian, "fetch_debian_package", lambda directory: idx_directory)
    with pytest.raises(DataError, match="no network"):
        load_data(CONFIG)  # Training does not call apt.
    assert (
        prepare(CONFIG) == f"fashion_mnist: 20 + 6 images from the package no-such-package, in {cache_home}, digests ok"
    )
    assert "\nno network; getting fashion_mnist from the package no-such-package, once" in capsys.readouterr().err
    assert calls == [None, None, idx_directory]
    assert prepare(CONFIG).endswith("digests ok")
    assert len(calls) == 3


@pytest.mark.parametrize("by", ["option", "variable"])
def test_named_directory_is_read_and_not_cached(monkeypatch, idx_directory, cache_home, by):
    if by == "variable":
        monkeypatch.setenv("FASHION_MNIST_DIR", str(idx_directory))
    config = DataConfig(source=str(idx_directory)) if by == "option" else CONFIG
    splits = load_data(config)
    assert not cache_home.exists()
    prepare(config)
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)
    assert_equal(load_data(CONFIG), splits)


def test_wrong_named_directory_is_an_error_despite_a_valid_cache(monkeypatch, installed, tmp_path):
    load_data(CONFIG)
    with pytest.raises(DataError, match="^--data.source is '.*nowhere', which does not exist") as error:
        load_data(DataConfig(source=str(tmp_path / "nowhere")))
    one_line(error)
    with pytest.raises(DataError, match="^--data.source is '~no-such-user/data', which does not exist"):
        prepare(DataConfig(source="~no-such-user/data"))
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    with pytest.raises(DataError, match="^FASHION_MNIST_DIR: .* is missing"):
        load_data(CONFIG)
    assert load_data(DataConfig(source=str(installed)))  # The option takes precedence.


def test_an_archive_as_source_is_refused_with_the_layouts(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="photos.zip holds no images; unpack an archive, and give a folder of class"):
        load_data(DataConfig(source=str(tmp_path / "photos.zip")))


@pytest.mark.parametrize("by", ["option", "variable"])
def test_torchvisions_root_is_read_and_reported(monkeypatch, idx_directory, tmp_path, capsys, by):
    raw = tmp_path / "root" / "FashionMNIST" / "raw"
    raw.parent.mkdir(parents=True)
    idx_directory.rename(raw)
    if by == "variable":
        monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "root"))
    config = DataConfig(source=str(tmp_path / "root")) if by == "option" else CONFIG
    splits = load_data(config)
    message = f"{tmp_path}/root is torchvision's root; reading fashion_mnist from {raw}\n"
    assert capsys.readouterr() == ("", message)
    assert_equal(splits, load_data(DataConfig(source=str(raw))))
    assert capsys.readouterr() == ("", "")
    flip_last_bit(raw / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(DataError, match="FashionMNIST/raw/t10k-labels-idx1-ubyte.gz"):
        load_data(config)


@pytest.mark.parametrize("name", ["mnist", "kmnist"])
def test_torchvisions_root_of_another_data_set(monkeypatch, tiny, tmp_path, name):
    arrays = tiny(name)
    files = archives(name, arrays)
    raw = tmp_path / "root" / name.upper() / "raw"
    raw.parent.mkdir(parents=True)
    write(raw, files)
    infos = {file: SimpleNamespace(filename=file, checksum=sha256(files[file]).hexdigest()) for file in files}
    monkeypatch.setattr(tfds, "stock_builder", lambda name: SimpleNamespace(url_infos=infos))
    loaded = load_data(DataConfig(name=name, source=str(tmp_path / "root")))
    np.testing.assert_array_equal(loaded.test.images, arrays.test_images)


def test_kerass_cache_fills_ours_without_a_network(monkeypatch, idx_directory, tmp_path, capsys):
    keras = tmp_path / "keras" / "datasets" / "fashion-mnist"
    keras.parent.mkdir(parents=True)
    idx_directory.rename(keras)
    expected = load_data(DataConfig(source=str(keras)))
    assert_equal(load_data(CONFIG), expected)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"getting fashion_mnist from Keras' cache {keras}, once" in err
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "gone"))
    assert_equal(load_data(CONFIG), expected)


def test_a_damaged_keras_cache_is_skipped_and_reported(idx_directory, tmp_path, capsys):
    keras = tmp_path / "keras" / "datasets" / "fashion-mnist"
    keras.parent.mkdir(parents=True)
    idx_directory.rename(keras)
    (keras / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(DataError, match="TensorFlow Datasets cannot prepare fashion_mnist"):
        load_data(CONFIG)
    assert "t10k-labels-idx1-ubyte.gz: got 0 bytes" in capsys.readouterr().err


# Damage, full disks, concurrent loads


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def flip_last_bit(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def falsify_metadata(path):
    """Changes an array and the digest in the metadata."""
    flip_last_bit(path)
    array = np.load(path)
    metadata = path.parent / "metadata.json"
    content = json.loads(metadata.read_text())
    content["sha256"][path.stem] = idx.array_digest(array)
    metadata.write_text(json.dumps(content))


@pytest.mark.parametrize("file", ["train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy"])
@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_last_bit,
        falsify_metadata,
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04"),
        lambda path: np.save(path, np.array([{}]), allow_pickle=True),
        lambda path: np.save(path, np.load(path).astype(np.int16)),
        lambda path: np.save(path, np.load(path)[..., 0] if "images" in path.name else np.load(path)[:, None]),
        lambda path: np.save(path, np.load(path).view(np.int8)),
    ],
    ids=["truncated", "bit", "metadata", "missing", "empty", "zip", "pickle", "int16", "shape", "int8"],
)
def test_damaged_cache_is_rebuilt_with_a_warning(installed, cache_home, capsys, damage, file):
    first = load_data(CONFIG)
    damage(cache_home / file)
    assert_equal(load_data(CONFIG), first)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"{cache_home} is damaged" in err
    assert_equal(load_data(CONFIG), first)
    assert capsys.readouterr().err == ""


def test_images_are_there_only_in_a_cache_that_loading_them_would_read(installed, cache_home, capsys):
    assert not cache.is_there(CONFIG)
    load_data(CONFIG)
    assert cache.is_there(CONFIG)
    for damage in (flip_last_bit, truncate, os.unlink):
        damage(cache_home / "train_images.npy")
        before = sorted(cache_home.iterdir())
        assert not cache.is_there(CONFIG) and sorted(cache_home.iterdir()) == before
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("named", [True, False])
def test_images_in_a_directory_below_home_are_there(idx_directory, monkeypatch, named):
    monkeypatch.setenv("HOME", str(idx_directory.parent))
    config = DataConfig(source="~/idx" if named else None)
    if not named:
        monkeypatch.setenv("FASHION_MNIST_DIR", "~/idx")
    assert cache.is_there(config) and len(load_data(config).test.images) == 6
    idx_directory.rename(idx_directory.with_name("elsewhere"))
    assert not cache.is_there(config)


def test_a_cache_that_is_cut_while_it_is_used_changes_nothing(installed, cache_home):
    load_data(CONFIG)
    arrays = cache.load_arrays(CONFIG)
    # A mapped page that is gone would end this process.
    assert not any(isinstance(array, np.memmap) for array in arrays)
    before = [array.copy() for array in arrays]
    for path in cache_home.glob("*.npy"):
        os.truncate(path, 0)
    for array, expected in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"{"])
def test_damaged_metadata_is_rebuilt(installed, cache_home, capsys, content):
    first = load_data(CONFIG)
    (cache_home / "metadata.json").write_bytes(content)
    assert_equal(load_data(CONFIG), first)
    assert "is damaged" in capsys.readouterr().err


@settings(max_examples=60)
@given(st.integers(0, 130), st.binary(min_size=1, max_size=20))
def test_mutated_npy_header_is_detected_or_harmless(tmp_path_factory, at, content):
    with pytest.MonkeyPatch.context() as monkeypatch:
        home = tmp_path_factory.getbasetemp() / "fuzzed"
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        monkeypatch.setitem(DATASETS, "mnist", DATASETS["mnist"]._replace(train_images=20, test_images=6))
        arrays = idx.Arrays(**{k: np.zeros(v, np.uint8) for k, v in idx.array_shapes("mnist").items()})
        monkeypatch.setattr(tfds, "fetch_with_tfds", lambda name, directory: arrays)
        load_data(DataConfig(name="mnist"))
        path = home / "fashion-cnn" / "mnist" / "train_labels.npy"
        good = path.read_bytes()
        path.write_bytes(good[:at] + content + good[at + len(content) :])
        splits = load_data(DataConfig(name="mnist"))
    assert splits.train.labels.tolist() == [0] * 16


def test_other_data_sets_are_verified_against_the_metadata(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(DATASETS, "cifar10", DATASETS["cifar10"]._replace(train_images=20, test_images=6))
    arrays = idx.Arrays(**{k: np.ones(v, np.uint8) for k, v in idx.array_shapes("cifar10").items()})
    monkeypatch.setattr(tfds, "fetch_with_tfds", lambda name, directory: arrays)
    config = DataConfig(name="cifar10")
    first = load_data(config)
    cache_home = tmp_path / "home/fashion-cnn/cifar10"
    assert json.loads((cache_home / "metadata.json").read_text())["classes"] == list(class_names(config))
    flip_last_bit(cache_home / "train_images.npy")
    assert_equal(load_data(config), first)
    assert "train_images.npy differs from what was written" in capsys.readouterr().err


@pytest.mark.parametrize("writes", range(10))
def test_full_disk_leaves_no_partial_cache(monkeypatch, installed, cache_home, writes):
    calls = 0

    def full(fd):
        nonlocal calls
        calls += 1
        if calls > writes:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        patch.setattr(os, "replace", lambda one, other, replace=os.replace: (full(0), replace(one, other)))
        with pytest.raises(
            DataError, match=f"cannot write the cache {cache_home}: No space left.*XDG_CACHE_HOME"
        ) as error:
            load_data(CONFIG)
    one_line(error)
    written = [path.name for path in cache_home.iterdir()]
    assert len(written) == max(0, writes - 5) and "metadata.json" not in written
    assert len(load_data(CONFIG).test.labels) == 6


def test_unwritable_cache_is_an_error_with_a_hint(monkeypatch, installed, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        DataError, match=f"cannot write the cache {tmp_path}/file/.*Not a directory; set XDG_CACHE_HOME"
    ):
        load_data(CONFIG)


def test_valid_cache_may_be_read_only(monkeypatch, installed, cache_home):
    first = load_data(CONFIG)

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "replace", "unlink"):
        monkeypatch.setattr(os, name, read_only)
    assert_equal(load_data(CONFIG), first)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    with pytest.raises(DataError, match="cannot write the cache .*Read-only file system"):
        load_data(CONFIG)


def test_missing_home_directory_is_an_error_with_a_hint(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(DataError, match="no home directory.*set XDG_CACHE_HOME"):
        load_data(CONFIG)


def test_default_cache_is_in_the_home_directory(monkeypatch, installed, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    load_data(CONFIG)
    assert (tmp_path / ".cache/fashion-cnn/fashion_mnist/metadata.json").exists()


@pytest.mark.parametrize("damaged", [False, True], ids=["empty", "damaged"])
def test_load_between_any_two_writes_succeeds(monkeypatch, installed, cache_home, damaged):
    if damaged:
        load_data(CONFIG)
        flip_last_bit(cache_home / "train_images.npy")
    replace, nested, inside = os.replace, [], []

    def interleaved(one, other):
        if not inside:
            inside.append(True)
            nested.append(load_data(CONFIG))
            inside.clear()
        replace(one, other)

    monkeypatch.setattr(os, "replace", interleaved)
    outer = load_data(CONFIG)
    assert len(nested) == 5
    for splits in nested:
        assert_equal(splits, outer)


# Real processes with the real data


LOAD = """
import pathlib, socket, sys
def closed(*args): raise AssertionError("a network call")
socket.socket.connect = socket.getaddrinfo = closed
from cnn.data import debian, splits
from cnn.config import DataConfig
debian.DEBIAN_DIRECTORY = pathlib.Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
loaded = splits.load_data(DataConfig())
assert "tensorflow_datasets" not in sys.modules and "PIL" not in sys.modules
print(splits.data_digest(loaded))
"""


def load_in_processes(home, installed, count: int) -> list[tuple[int, str, str]]:
    """Runs processes that load at the same time; returns exit status, stdout and stderr of each."""
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options["env"] = os.environ | {"XDG_CACHE_HOME": str(home)}
    processes = [subprocess.Popen([sys.executable, "-c", LOAD, str(installed)], **options) for _ in range(count)]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [(process.returncode, *output) for process in processes if (output := process.communicate(timeout=120))]


def test_valid_cache_needs_neither_network_nor_tfds(monkeypatch, real_home, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(real_home))
    expected = data_digest(load_data(CONFIG))
    assert load_in_processes(real_home, tmp_path / "none", 1) == [(0, f"{expected}\n", "")]


@pytest.mark.parametrize("damaged", [False, True], ids=["empty", "damaged"])
def test_two_concurrent_processes_both_succeed(monkeypatch, real_home, published, tmp_path, damaged):
    monkeypatch.setenv("XDG_CACHE_HOME", str(real_home))
    expected = data_digest(load_data(CONFIG))
    home = tmp_path / "shared"
    cache_home = home / "fashion-cnn/fashion_mnist"
    if damaged:
        cache_home.mkdir(parents=True)
        for path in (real_home / "fashion-cnn/fashion_mnist").iterdir():
            (cache_home / path.name).write_bytes(path.read_bytes())
        flip_last_bit(cache_home / "test_labels.npy")
    outputs = load_in_processes(home, published, 2)
    assert [(code, digest) for code, digest, _ in outputs] == [(0, f"{expected}\n")] * 2
    assert [all("is damaged" in line for line in err.splitlines()) for *_, err in outputs] == [True, True]
    assert load_in_processes(home, tmp_path / "none", 1) == [(0, f"{expected}\n", "")]
    assert len(list(cache_home.iterdir())) == 5
