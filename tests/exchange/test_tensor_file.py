"""The safetensors format against the package of that name, both ways, and files that are not of it."""

import json

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from safetensors import numpy as package

from cnn.exchange.tensor_file import DTYPES, read_tensors, write_tensors

# The package's NumPy part knows no bfloat16.
KNOWN = [dtype for name, dtype in DTYPES.items() if name != "BF16"]
TENSORS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=5).filter(lambda name: name != "__metadata__"),
    st.sampled_from(KNOWN).flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0))),
    # Of no arrays and empty metadata, the package 0.8.0 writes a header that it cannot read.
    min_size=1,
    max_size=4,
)


def _same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape)
        assert actual[name].tobytes() == array.tobytes()


@given(tensors=TENSORS, metadata=st.dictionaries(st.sampled_from("ab"), st.text(st.characters(codec="utf-8"))))
def test_the_package_reads_what_is_written_and_writes_what_is_read(tensors, metadata, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "tensors.safetensors"
    content = write_tensors(tensors, metadata)
    assert int.from_bytes(content[:8], "little") % 8 == 0
    path.write_bytes(content)
    with safetensors.safe_open(path, framework="np") as opened:
        _same({name: opened.get_tensor(name) for name in opened.keys()}, tensors)
        assert (opened.metadata() or {}) == metadata
    # The package writes the memory of an array, whatever its order.
    path.write_bytes(package.save({name: np.array(array, order="C") for name, array in tensors.items()}, metadata))
    read = read_tensors(path)
    assert read[0] == metadata
    _same(read[1], tensors)


def test_the_order_of_arrays_does_not_change_the_bytes_and_that_of_metadata_is_kept():
    a, b = np.ones(3, np.float32), np.zeros((2, 2), np.float32)
    content = write_tensors({"b": b, "a": a}, {"z": "1", "c": "2"})
    assert content == write_tensors({"a": a, "b": b}, {"z": "1", "c": "2"})
    assert content[8:].startswith(b'{"__metadata__":{"z":"1","c":"2"},"a":')


GOOD = write_tensors({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.int32)}, {"config": "{}"})


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "does not describe a"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}, "does not describe a"),
        ({"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}, "does not describe a"),
        ({"dtype": "F8", "shape": [4], "data_offsets": [0, 4]}, "does not describe a"),
        ({"dtype": [], "shape": [1], "data_offsets": [0, 4]}, "does not describe a"),
        ({"dtype": "F32", "shape": [1]}, "does not describe a"),
        (["F32", [1], [0, 4]], "does not describe a"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "do not follow those before"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "has 4 bytes of arrays, but its header describes 8"),
        ({"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}, "maximum supported dimension"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(entry, reason, tmp_path):
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match=reason):
        read_tensors(tmp_path / "file")


@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), end=st.integers(0, len(GOOD)))
def test_whatever_is_changed_a_file_is_read_or_refused_in_words(place, value, end, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes((GOOD[:place] + bytes([value]) + GOOD[place + 1 :])[:end])
    try:
        metadata, read = read_tensors(path)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert end == len(GOOD) and sum(array.nbytes for array in read.values()) <= 32
        assert all(isinstance(text, str) for text in metadata.values())
