import errno
import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from cnn.config import DataConfig, class_names
from cnn.data import cache, debian, idx, tfds
from cnn.data.cache import prepare
from cnn.data.splits import Split, Splits, check_split, data_digest, load_data
from cnn.datasets import DATASETS
from cnn.errors import ConfigError, DataError

CONFIG = DataConfig()


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """An empty cache, no files, and no network."""

    def closed(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)
    monkeypatch.setattr(debian, "DEBIAN_DIRECTORY", tmp_path / "not installed")
    monkeypatch.setattr(debian, "DEBIAN_PACKAGE", "no-such-package")
    monkeypatch.setattr(cache, "_ROOM", 0)
    monkeypatch.setattr(socket, "getaddrinfo", closed)
    monkeypatch.setattr(socket.socket, "connect", closed)


@pytest.fixture
def cache_home(tmp_path):
    return tmp_path / "home" / "fashion-cnn" / "fashion_mnist"


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Directory with a Fashion-MNIST of 20 + 6 images in the published format, its digests pinned."""
    few = DATASETS["fashion_mnist"]._replace(train_images=20, test_images=6)
    monkeypatch.setitem(DATASETS, "fashion_mnist", few)
    directory = tmp_path / "idx"
    directory.mkdir()
    generator = np.random.default_rng(0)
    for field, shape in idx.array_shapes("fashion_mnist").items():
        dims = [d for d in shape if d != 1]
        values = generator.integers(10 if len(dims) == 1 else 256, size=shape, dtype=np.uint8)
        content = bytes([0, 0, 8, len(dims)]) + np.array(dims, ">u4").tobytes() + values.tobytes()
        file = idx.IDX_FILES[field]
        (directory / f"{file.name}.gz").write_bytes(gzip.compress(content))
        monkeypatch.setitem(idx.IDX_FILES, field, file._replace(sha256=hashlib.sha256(content).hexdigest()))
    return directory


@pytest.fixture
def installed(monkeypatch, tiny):
    """The same, as the installed Debian package."""
    monkeypatch.setattr(debian, "DEBIAN_DIRECTORY", tiny)
    return tiny


def assert_equal(found: Splits, expected: Splits) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.images, other.images, strict=True)
        np.testing.assert_array_equal(one.labels, other.labels, strict=True)


def load_copy(config: DataConfig) -> Splits:
    """Loads what may then be damaged on the disk: the test images are mapped."""
    splits = load_data(config)
    return splits._replace(test=splits.test._replace(images=np.array(splits.test.images)))


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# The split


@settings(max_examples=50)
@given(st.floats(1e-9, 1 - 1e-9), st.integers(0, 2**32 - 1))
def test_the_split_is_that_of_scikit_learn_in_published_order(fraction, seed):
    examples = 137
    images = np.arange(examples, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 28, 28, 1), np.uint8)
    labels = np.arange(examples, dtype=np.uint8) % 10
    config = DataConfig(val_fraction=fraction, split_seed=seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(DATASETS, "fashion_mnist", DATASETS["fashion_mnist"]._replace(train_images=examples))
        monkeypatch.setattr(cache, "_load", lambda _: idx.Arrays(images, labels, images[:1], labels[:1]))
        if config.train_images < 1:
            with pytest.raises(ConfigError, match="val_fraction"):
                load_data(config)
            return
        splits = load_data(config)
    for split, part in zip(
        splits, train_test_split(np.arange(examples), test_size=fraction, random_state=seed), strict=False
    ):
        np.testing.assert_array_equal(split.images, images[np.sort(part)], strict=True)
        np.testing.assert_array_equal(split.labels, labels[np.sort(part)].astype(np.int32), strict=True)


def test_the_real_split_is_that_of_the_notebook(monkeypatch, real_home, published):
    monkeypatch.setenv("XDG_CACHE_HOME", str(real_home))
    splits = load_data(CONFIG)
    arrays = idx.read_idx_directory(published)
    train, val = train_test_split(np.arange(60_000), test_size=0.2, random_state=42)
    for split, part in (splits.train, train), (splits.val, val):
        np.testing.assert_array_equal(split.images, arrays.train_images[np.sort(part)], strict=True)
        np.testing.assert_array_equal(split.labels, arrays.train_labels[np.sort(part)].astype(np.int32), strict=True)
    np.testing.assert_array_equal(splits.test.images, arrays.test_images)
    np.testing.assert_array_equal(splits.test.labels, arrays.test_labels)
    assert splits.train.images.shape == (48000, 28, 28, 1) and splits.train.labels.dtype == np.int32


def test_a_split_without_training_images_is_refused_before_anything_is_read():
    with pytest.raises(ConfigError, match="--data.val_fraction is 0.99999999, but must leave one of 60,000 images"):
        load_data(DataConfig(val_fraction=0.99999999))


def test_the_smallest_fraction_gives_one_validation_image(installed):
    splits = load_data(DataConfig(val_fraction=1e-12))
    assert [len(split.labels) for split in splits] == [19, 1, 6]


# Names and digest


def test_class_names_go_by_label():
    assert class_names(CONFIG)[9] == "Ankle boot" and DATASETS["fashion_mnist"].korean_names[9] == "앵클 부츠"
    assert class_names(DataConfig(name="cifar10"))[0] == "airplane"
    assert all(len(set(class_names(DataConfig(name=name)))) == 10 for name in DATASETS)
    assert len(set(DATASETS["fashion_mnist"].korean_names)) == 10


def test_digest_follows_images_labels_and_split(installed):
    splits = load_data(CONFIG)
    assert data_digest(load_data(CONFIG)) == data_digest(splits)
    images = splits.val.images.copy()
    images[0, 0, 0, 0] ^= 1
    labels = np.roll(splits.train.labels, 1)
    others = [
        splits._replace(val=splits.val._replace(images=images)),
        splits._replace(train=splits.train._replace(labels=labels)),
        splits._replace(test=splits.test._replace(images=splits.test.images.reshape(6, 784))),
        load_data(DataConfig(split_seed=1)),
        load_data(DataConfig(val_fraction=0.3)),
    ]
    assert len({data_digest(s) for s in (splits, *others)}) == 6


# check_split


GOOD = Split(np.zeros((3, 28, 28, 1), np.uint8), np.array([0, 9, 5], np.int32))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_a_good_split_passes(dtype):
    check_split(GOOD._replace(labels=GOOD.labels.astype(dtype)), (28, 28, 1), 10, "train")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            GOOD._replace(images=np.linspace(-1, 1, 3 * 784, dtype=np.float32).reshape(3, 28, 28, 1)),
            r"^val images are float32 \[3, 28, 28, 1\] from -1 to 1, but must be uint8 \[N, 28, 28, 1\] from 0 to 255$",
        ),
        (GOOD._replace(images=GOOD.images[..., 0]), r"^val images are uint8 \[3, 28, 28\], but must be uint8 \[N, 28,"),
        (
            GOOD._replace(images=GOOD.images.astype(np.int64)),
            r"^val images are int64 \[3, 28, 28, 1\], but must be uint8",
        ),
        (GOOD._replace(images=np.uint8(3)), r"^val images are uint8 \[\], but must be uint8"),
        (
            GOOD._replace(labels=np.eye(3)),
            r"^val labels are float64 \[3, 3\], but must be integers \[3\], one an image$",
        ),
        (GOOD._replace(labels=np.zeros(3)), r"^val labels are float64 \[3\], but must be integers"),
        (GOOD._replace(labels=np.array([0, 1])), r"^val labels are int64 \[2\], but must be integers \[3\]"),
        (Split(GOOD.images[:0], GOOD.labels[:0]), "^val has no images"),
        (GOOD._replace(labels=np.array([0, 10, 11])), "^val label 1 is 10, but must be from 0 to 9$"),
        (GOOD._replace(labels=np.array([0, 1, -1])), "^val label 2 is -1, but must be from 0 to 9$"),
    ],
)
def test_a_bad_split_is_refused_with_what_came_and_what_is_wanted(split, message):
    with pytest.raises(DataError, match=message):
        check_split(split, (28, 28, 1), 10, "val")


# Where the images come from


def test_the_installed_package_fills_the_cache(installed, cache_home, capsys):
    first = load_copy(CONFIG)
    assert sorted(path.name for path in cache_home.iterdir()) == [
        *("metadata.json", "test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy")
    ]
    for path in installed.iterdir():
        path.unlink()
    assert_equal(load_data(CONFIG), first)
    assert capsys.readouterr() == ("", "")


def test_nothing_anywhere_is_one_line_with_every_way_out(cache_home, capsys, caplog):
    start = time.monotonic()
    with pytest.raises(DataError) as error:
        load_data(CONFIG)
    assert time.monotonic() - start < 10
    message = one_line(error)
    for remedy in ("make data", "python -m cnn data", "--data.source DIR", "FASHION_MNIST_DIR", "apt-get install"):
        assert remedy in message
    assert "Name or service not known" in message
    assert list(cache_home.iterdir()) == [] and caplog.records == []
    assert capsys.readouterr() == ("", "getting fashion_mnist from TensorFlow Datasets, once, in about half a minute\n")


def test_little_room_is_told_whatever_else_went_wrong(monkeypatch, cache_home):
    monkeypatch.setattr(cache, "_ROOM", 2**63)
    with pytest.raises(DataError, match=f"make room where only [0-9]+ MiB are free: {cache_home} .XDG_CACHE_HOME"):
        load_data(CONFIG)


def test_other_data_sets_are_not_looked_for_in_fashion_mnists_places(monkeypatch, installed):
    monkeypatch.setenv("FASHION_MNIST_DIR", str(installed))
    with pytest.raises(DataError, match="mnist is not to be had.*Name or service not known.*--data.source DIR$"):
        load_data(DataConfig(name="mnist"))


def test_a_damaged_installed_package_is_passed_over_and_told(installed):
    (installed / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(DataError, match="t10k-labels.*; TensorFlow Datasets cannot prepare fashion_mnist"):
        load_data(CONFIG)


def test_prepare_falls_back_on_the_package_that_apt_fetches(monkeypatch, tiny, cache_home, capsys):
    calls = []

    def fetch_with_tfds(name, directory, archives=None):
        calls.append(archives)
        if not archives:
            raise DataError("no network")
        return idx.read_idx_directory(archives)

    monkeypatch.setattr(tfds, "fetch_with_tfds", fetch_with_tfds)
    monkeypatch.setattr(debian, "fetch_debian_package", lambda directory: tiny)
    with pytest.raises(DataError, match="no network"):
        load_data(CONFIG)  # Training does not call apt.
    assert (
        prepare(CONFIG) == f"fashion_mnist: 20 + 6 images from the package no-such-package, in {cache_home}, digests ok"
    )
    assert "\nno network; getting fashion_mnist from the package no-such-package, once" in capsys.readouterr().err
    assert calls == [None, None, tiny]
    assert prepare(CONFIG).endswith("digests ok")
    assert len(calls) == 3


@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_named_directory_is_read_and_not_cached(monkeypatch, tiny, cache_home, by):
    if by == "variable":
        monkeypatch.setenv("FASHION_MNIST_DIR", str(tiny))
    config = DataConfig(source=str(tiny)) if by == "option" else CONFIG
    splits = load_data(config)
    assert not cache_home.exists()
    prepare(config)
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)
    assert_equal(load_data(CONFIG), splits)


def test_a_wrong_named_directory_is_an_error_whatever_the_cache_holds(monkeypatch, installed, tmp_path):
    load_data(CONFIG)
    with pytest.raises(DataError, match="^--data.source: found no .*nowhere/train-images-idx3-ubyte") as error:
        load_data(DataConfig(source=str(tmp_path / "nowhere")))
    one_line(error)
    with pytest.raises(DataError, match="^--data.source: found no"):
        prepare(DataConfig(source="~no-such-user/data"))
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    with pytest.raises(DataError, match="^FASHION_MNIST_DIR: found no"):
        load_data(CONFIG)
    assert load_data(DataConfig(source=str(installed)))  # The option is asked first.


# The cache


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def flip_last_bit(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def lie_in_the_metadata(path):
    """Changes an array together with the digest that is written beside it."""
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
        lie_in_the_metadata,
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
def test_a_damaged_cache_is_rebuilt_and_that_is_said(installed, cache_home, capsys, damage, file):
    first = load_copy(CONFIG)
    damage(cache_home / file)
    assert_equal(load_data(CONFIG), first)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"{cache_home} is damaged" in err
    assert_equal(load_data(CONFIG), first)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"{"])
def test_damaged_metadata_is_rebuilt(installed, cache_home, capsys, content):
    first = load_copy(CONFIG)
    (cache_home / "metadata.json").write_bytes(content)
    assert_equal(load_data(CONFIG), first)
    assert "is damaged" in capsys.readouterr().err


@settings(max_examples=60)
@given(st.integers(0, 130), st.binary(min_size=1, max_size=20))
def test_any_bytes_in_the_header_are_noticed_or_harmless(tmp_path_factory, at, content):
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


def test_other_data_sets_are_verified_by_the_metadata(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(DATASETS, "cifar10", DATASETS["cifar10"]._replace(train_images=20, test_images=6))
    arrays = idx.Arrays(**{k: np.ones(v, np.uint8) for k, v in idx.array_shapes("cifar10").items()})
    monkeypatch.setattr(tfds, "fetch_with_tfds", lambda name, directory: arrays)
    config = DataConfig(name="cifar10")
    first = load_copy(config)
    cache_home = tmp_path / "home/fashion-cnn/cifar10"
    assert json.loads((cache_home / "metadata.json").read_text())["classes"] == list(class_names(config))
    flip_last_bit(cache_home / "train_images.npy")
    assert_equal(load_data(config), first)
    assert "train_images.npy is not what was written" in capsys.readouterr().err


@pytest.mark.parametrize("writes", range(10))
def test_a_disk_that_fills_up_leaves_nothing_half_written(monkeypatch, installed, cache_home, writes):
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
    left = [path.name for path in cache_home.iterdir()]
    assert len(left) == max(0, writes - 5) and "metadata.json" not in left
    assert len(load_data(CONFIG).test.labels) == 6


def test_a_cache_that_cannot_be_written_is_an_error_with_the_way_out(monkeypatch, installed, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        DataError, match=f"cannot write the cache {tmp_path}/file/.*Not a directory; set XDG_CACHE_HOME"
    ):
        load_data(CONFIG)


def test_a_good_cache_need_not_be_writable(monkeypatch, installed, cache_home):
    first = load_copy(CONFIG)

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "replace", "unlink"):
        monkeypatch.setattr(os, name, read_only)
    assert_equal(load_data(CONFIG), first)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    with pytest.raises(DataError, match="cannot write the cache .*Read-only file system"):
        load_data(CONFIG)


def test_no_home_is_an_error_with_the_way_out(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(DataError, match="no home directory.*set XDG_CACHE_HOME"):
        load_data(CONFIG)


def test_without_the_variable_the_cache_is_in_the_home_directory(monkeypatch, installed, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    load_data(CONFIG)
    assert (tmp_path / ".cache/fashion-cnn/fashion_mnist/metadata.json").exists()


@pytest.mark.parametrize("damaged", [False, True], ids=["empty", "damaged"])
def test_another_load_between_any_two_writes_succeeds(monkeypatch, installed, cache_home, damaged):
    if damaged:
        load_data(CONFIG)
        flip_last_bit(cache_home / "train_images.npy")
    replace, nested, inside = os.replace, [], []

    def interleaved(one, other):
        if not inside:
            inside.append(True)
            nested.append(load_copy(CONFIG))
            inside.clear()
        replace(one, other)

    monkeypatch.setattr(os, "replace", interleaved)
    outer = load_copy(CONFIG)
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
    """Lets processes load at the same moment; returns status, digest and messages of each."""
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


def test_a_good_cache_needs_neither_network_nor_tfds(monkeypatch, real_home, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(real_home))
    expected = data_digest(load_data(CONFIG))
    assert load_in_processes(real_home, tmp_path / "none", 1) == [(0, f"{expected}\n", "")]


@pytest.mark.parametrize("damaged", [False, True], ids=["empty", "damaged"])
def test_two_processes_that_start_at_once_both_succeed(monkeypatch, real_home, published, tmp_path, damaged):
    monkeypatch.setenv("XDG_CACHE_HOME", str(real_home))
    expected = data_digest(load_data(CONFIG))
    home = tmp_path / "shared"
    cache_home = home / "fashion-cnn/fashion_mnist"
    if damaged:
        cache_home.mkdir(parents=True)
        for path in (real_home / "fashion-cnn/fashion_mnist").iterdir():
            (cache_home / path.name).write_bytes(path.read_bytes())
        flip_last_bit(cache_home / "test_labels.npy")
    found = load_in_processes(home, published, 2)
    assert [(code, digest) for code, digest, _ in found] == [(0, f"{expected}\n")] * 2
    assert [all("is damaged" in line for line in err.splitlines()) for *_, err in found] == [True, True]
    assert load_in_processes(home, tmp_path / "none", 1) == [(0, f"{expected}\n", "")]
    assert len(list(cache_home.iterdir())) == 5
