"""Files of Keras and PyTorch: intact, of other dtypes, damaged, hostile or too large."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn
from cnn.exchange import readers

TORCH_FILE = Path(__file__).parents[1] / "files" / "torch_narrow.pt"
PICKLE = "torch_narrow/data.pkl"


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _with_pickle(path: Path, content: bytes) -> Path:
    return _write(path, {**_members(TORCH_FILE), PICKLE: content})


def test_a_state_dict_is_read_in_order_and_with_its_strides():
    layers = readers.read_torch(TORCH_FILE)
    assert [(layer.name, layer.kind) for layer in layers] == [
        ("0", "Conv"),
        ("3", "Conv"),
        ("7", "Dense"),
        ("10", "Dense"),
    ]
    assert [layer.leaves["kernel"].shape for layer in layers] == [(3, 3, 1, 4), (3, 3, 4, 4), (196, 8), (8, 10)]
    # Every other value from the eighth, of the 32 in the file.
    last = np.frombuffer(_members(TORCH_FILE)["torch_narrow/data/7"], "<f4")
    np.testing.assert_array_equal(layers[-1].leaves["bias"], last[7:27:2])


@pytest.mark.parametrize(("name", "dtype"), [("Double", "f8"), ("Half", "f2"), ("BFloat16", jnp.bfloat16)])
def test_other_dtypes_become_float32(tmp_path, name, dtype):
    members = {
        name: np.frombuffer(content, "<f4").astype(dtype).tobytes() if "/data/" in name else content
        for name, content in _members(TORCH_FILE).items()
    }
    members[PICKLE] = members[PICKLE].replace(b"FloatStorage", f"{name}Storage".encode())
    for layer, expected in zip(
        readers.read_torch(_write(tmp_path / "other.pt", members)), readers.read_torch(TORCH_FILE), strict=True
    ):
        for leaf, values in layer.leaves.items():
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values, expected.leaves[leaf].astype(dtype).astype(np.float32))


class Hostile:
    def __init__(self, function: Callable, *arguments: str):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, eval, exec], ids=["system", "eval", "exec"])
def test_a_hostile_pickle_is_refused_without_effect(tmp_path, function, protocol):
    harm = tmp_path / "harm"
    code = f"touch {harm}" if function is os.system else f"__import__('pathlib').Path({str(harm)!r}).touch()"
    content = pickle.dumps({"0.weight": Hostile(function, code)}, protocol)
    # It does harm if it is executed.
    pickle.loads(content)
    assert harm.exists()
    harm.unlink()
    with pytest.raises(cnn.UserError, match=r"torch\.save\(model\.state_dict\(\)") as refusal:
        readers.read_torch(_with_pickle(tmp_path / "hostile.pt", content))
    assert not harm.exists() and "\n" not in str(refusal.value)
    if protocol >= 2 and function is os.system:
        assert f"names '{os.system.__module__}.system', which is not part of a state_dict" in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Hostile(Hostile, "a module"), 2), "test_readers.Hostile', which is not part of a state"),
        (pickle.dumps({"model": {}, "epoch": 3}, 2), "holds more than the tensors of a state_dict"),
        (pickle.dumps({"lr": [0.1]}, 2), "more than the tensors of a state_dict (EMPTY_LIST)"),
        (pickle.dumps([], 2), "more than the tensors of a state_dict (EMPTY_LIST)"),
        (pickle.dumps({(1, 2): 3}, 2), "more than the tensors"),
        (b"", "is damaged"),
        (b"\x80\x02}", "is damaged"),
        # A tuple nested in itself twice, sixty times: hashing or printing it would take for ever.
        (b"\x80\x02}" + b")q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"h\x00s.", "more than the tensors"),
        (b"\x80\x02" + b")q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"Q.", "is damaged"),
        (b"\x80\x02" + b")q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b")R.", "is damaged"),
        (b"\x80\x02}" + b"q\x00" * 2**19 + b".", "more than the tensors"),
    ],
)
def test_anything_but_a_state_dict_is_refused_with_a_hint(tmp_path, content, message):
    with pytest.raises(cnn.UserError) as refusal:
        readers.read_torch(_with_pickle(tmp_path / "other.pt", content))
    assert message in str(refusal.value) and "save" in str(refusal.value) and "\n" not in str(refusal.value)


@settings(max_examples=300)
@given(position=st.integers(0, 2000), byte=st.integers(0, 255), cut=st.booleans())
def test_any_mutation_of_a_pickle_gives_layers_or_a_user_error(tmp_path_factory, position, byte, cut):
    content = bytearray(_members(TORCH_FILE)[PICKLE])
    position %= len(content)
    content[position] = byte
    path = tmp_path_factory.getbasetemp() / "mutated.pt"
    try:
        layers = readers.read_torch(_with_pickle(path, bytes(content[:position] if cut else content)))
    except cnn.UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert all(isinstance(values, np.ndarray) for layer in layers for values in layer.leaves.values())


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x24tQ"
"""The instructions for the storage of the first convolution's 36 values."""


def _tensor(storage: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """The instructions for a tensor of a storage."""

    def number(value):
        return b"J" + value.to_bytes(4, "little", signed=True)

    tuples = [b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides)]
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + b"".join(tuples) + b"\x89NtR"


@pytest.mark.parametrize(
    ("tensor", "fits"),
    [
        (_tensor(STORAGE, 0, (9, 4), (4, 1)), True),
        (_tensor(STORAGE, 35, (1, 1), (99, 99)), True),
        (_tensor(STORAGE, 0, (37, 1), (1, 1)), False),
        (_tensor(STORAGE, 34, (2, 2), (1, 1)), False),
        (_tensor(STORAGE, -1, (1, 1), (1, 1)), False),
        (_tensor(STORAGE, 35, (2, 1), (-1, 1)), False),
        (_tensor(STORAGE, 0, (2, 2), (1,)), False),
        # A tensor of one value repeated a thousand times, used as a storage.
        (_tensor(_tensor(STORAGE, 0, (1000,), (0,)), 0, (1000, 1), (1, 1)), False),
    ],
)
def test_nothing_outside_a_storage_is_read(tmp_path, tensor, fits):
    path = _with_pickle(tmp_path / "one.pt", b"\x80\x02}X\x08\x00\x00\x000.weight" + tensor + b"s.")
    if fits:
        assert readers.read_torch(path)[0].kind == "Dense"
    else:
        with pytest.raises(cnn.UserError, match="is damaged"):
            readers.read_torch(path)


def _keras_weights(fill: Callable[[h5py.File], object] = len) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        fill(file)
    return content.getvalue()


def _keras_file(path: Path, fill: Callable[[h5py.File], object], **layer: object) -> Path:
    layers = [{"class_name": "Dense", "config": {"name": "logits", **layer}}]
    config = json.dumps({"config": {"layers": layers}}).encode()
    return _write(path, {"config.json": config, "model.weights.h5": _keras_weights(fill)})


def test_weights_of_unknown_layers_are_kept_as_other(tmp_path):
    def fill(file):
        file["layers/dense/vars/0"] = np.ones((2, 3))
        file["layers/lstm/cell/vars/0"] = np.ones(4)
        file["layers/dropout/seed_generator/vars/0"] = np.ones(2)
        file["optimizer/vars/0"] = np.ones(5)

    logits, other = readers.read_keras(_keras_file(tmp_path / "some.keras", fill))
    assert (logits.name, logits.kind) == ("logits", "Dense") and logits.leaves["kernel"].shape == (2, 3)
    assert (other.name, other.kind) == ("layers/lstm/cell/vars/0", "other")


def test_links_out_of_a_keras_file_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file["values"] = np.ones((2, 3))

    def link(file):
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(tmp_path / "outside.h5"), "values")

    def external(file):
        (tmp_path / "raw").write_bytes(bytes(24))
        file.create_dataset("layers/dense/vars/0", (2, 3), "f4", external=[(str(tmp_path / "raw"), 0, 24)])

    (logits,) = readers.read_keras(_keras_file(tmp_path / "link.keras", link))
    assert not logits.leaves
    with pytest.raises(cnn.UserError, match="is stored in another file"):
        readers.read_keras(_keras_file(tmp_path / "external.keras", external))


def test_channels_first_are_refused(tmp_path):
    path = _keras_file(tmp_path / "some.keras", len, data_format="channels_first")
    with pytest.raises(cnn.UserError, match="channels first in 'logits'; only channels_last"):
        readers.read_keras(path)


@pytest.mark.parametrize("read", [readers.read_keras, readers.read_torch], ids=["keras", "torch"])
def test_a_damaged_or_foreign_file_gives_one_line(tmp_path, read):
    path = tmp_path / "file"
    intact = TORCH_FILE.read_bytes()
    for content in (b"", b"no archive", intact[: len(intact) // 2], intact[:-30]):
        path.write_bytes(content)
        with pytest.raises(cnn.UserError, match=r"file is damaged, .*; save it again$"):
            read(path)
    _write(path, {"config.json": b'{"config": {"layers": [{}]}}', "model.weights.h5": _keras_weights()})
    with pytest.raises(cnn.UserError, match="file is damaged|is not from PyTorch"):
        read(path)
    _write(path, {"readme": b""})
    with pytest.raises(cnn.UserError, match="file is damaged|is not from PyTorch"):
        read(path)
    for missing in (tmp_path, tmp_path / "missing"):
        with pytest.raises(cnn.UserError, match="is not a file"):
            read(missing)


def test_an_archive_larger_than_the_limit_is_not_read(tmp_path):
    bomb = _members(TORCH_FILE) | {"torch_narrow/data/9": bytes(readers.MAX_BYTES)}
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in bomb.items():
            archive.writestr(name, content)
    assert (tmp_path / "bomb.pt").stat().st_size < 2**20
    with pytest.raises(cnn.UserError, match="bytes, but at most 268,435,456 are read"):
        readers.read_torch(tmp_path / "bomb.pt")


def test_arrays_larger_than_the_limit_are_not_read(tmp_path):
    def fill(file):
        file.create_dataset("layers/dense/vars/0", (2**15, 2**15), "f4", chunks=(1024, 1024), compression="gzip")

    with pytest.raises(cnn.UserError, match="4,294,967,296 bytes, but at most"):
        readers.read_keras(_keras_file(tmp_path / "huge.keras", fill))
    # The same values repeated with stride 0.
    content = _members(TORCH_FILE)[PICKLE].replace(b"K\x04\x85q\x11K\x01\x85", b"J\xff\xff\xff\x7f\x85q\x11K\x00\x85")
    with pytest.raises(cnn.UserError, match="bytes, but at most"):
        readers.read_torch(_with_pickle(tmp_path / "huge.pt", content))
