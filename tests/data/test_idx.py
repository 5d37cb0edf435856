import gzip
import hashlib
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.data import idx
from cnn.errors import DataError
from tests.data.published import archives, assert_equal, idx_bytes, write


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_read_idx_returns_the_array(tmp_path, suffix):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(idx_bytes(array)) if suffix else idx_bytes(array))
    np.testing.assert_array_equal(idx.read_idx(path, (2, 3, 4, 1)), array, strict=True)


def test_array_digest_equals_the_sha256_of_the_idx_file():
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
def test_mutated_idx_file_gives_the_array_or_a_data_error(tmp_path_factory, compressed, mutations):
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
def test_arbitrary_bytes_raise_only_data_error(tmp_path_factory, content):
    for name in ("bytes", "bytes.gz"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=name):
            idx.read_idx(path, IMAGES.shape)


def test_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(DataError, match="got at least 19 bytes"):
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
            "t10k-labels-idx1-ubyte is missing, plain or .gz; expected a directory",
        ),
        (lambda d: change(d, "train-images-idx3-ubyte.gz", lambda b: b[:-9]), "train-images.*gz cannot be read.*ended"),
        (
            lambda d: change(d, "train-images-idx3-ubyte.gz", lambda b: b"<html>" + b),
            "train-images.*Not a gzipped file",
        ),
        (
            lambda d: change(d, "train-images-idx3-ubyte.gz", lambda b: gzip.compress(gzip.decompress(b)[:-1])),
            r"got 15,695 bytes with the idx header of shape \(20, 28, 28\), expected 15,696 bytes",
        ),
        (
            lambda d: swap(d, "train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
            r"train-labels.*: got 14 bytes .* shape \(6,\), expected 28 bytes with the idx header of shape \(20,\)",
        ),
        (
            lambda d: swap(d, "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
            r"train-images.* shape \(20,\), expected .* shape \(20, 28, 28\)",
        ),
        (
            lambda d: change(
                d, "t10k-images-idx3-ubyte.gz", lambda b: gzip.compress(gzip.decompress(b)[:-1] + b"\x07")
            ),
            "t10k-images.*: got SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}",
        ),
        (
            lambda d: (d / "train-images-idx3-ubyte").mkdir(),
            "train-images-idx3-ubyte cannot be read.*not a regular file",
        ),
        (
            lambda d: os.mkfifo(d / "train-images-idx3-ubyte"),
            "train-images-idx3-ubyte cannot be read.*not a regular file",
        ),
    ],
    ids="missing,truncated,not gzip,short,train and t10k,images and labels,tampered,directory,FIFO".split(","),
)
def test_bad_directory_is_rejected_with_actual_and_expected(tmp_path, tiny, damage, message):
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
