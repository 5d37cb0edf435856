"""Files of PyTorch: intact, of other dtypes, damaged, hostile or too large."""

import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn
from cnn.exchange import source_layers
from cnn.exchange.torch_files import read_torch

TORCH_FILE = Path(__file__).parents[1] / "files" / "torch_narrow.pt"
CHECKPOINTS = TORCH_FILE.with_suffix(".tar.xz")
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
    layers = read_torch(TORCH_FILE)
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
    for layer, expected in zip(read_torch(_write(tmp_path / "other.pt", members)), read_torch(TORCH_FILE), strict=True):
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
        read_torch(_with_pickle(tmp_path / "hostile.pt", content))
    assert not harm.exists() and "\n" not in str(refusal.value)
    if protocol >= 2 and function is os.system:
        assert f"names '{os.system.__module__}.system', which is not part of a state_dict" in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Hostile(Hostile, "a module"), 2), "test_torch_files.Hostile', which is not part of a state"),
        (pickle.dumps({"model": {}, "epoch": 3}, 2), "holds no state_dict"),
        (pickle.dumps({"model": Hostile(Hostile, "a"), "lr": 3}, 2), "names 'test_torch_files.Hostile'"),
        (pickle.dumps({"lr": [0.1]}, 2), "holds no state_dict"),
        (pickle.dumps([], 2), "holds no state_dict"),
        (pickle.dumps({(1, 2): 3}, 2), "holds no state_dict"),
        (pickle.dumps({"lr": 3}, 0), "holds more than tensors and numbers (DICT)"),
        (b"", "is damaged"),
        (b"\x80\x02}", "is damaged"),
        # A tuple nested in itself twice, sixty times: hashing or printing it would take for ever.
        (b"\x80\x02}" + b")q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"h\x00s.", "holds no state_dict"),
        (b"\x80\x02" + b")q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"Q.", "is damaged"),
        (b"\x80\x02" + b")q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b")R.", "is damaged"),
        (b"\x80\x02}" + b"q\x00" * 2**19 + b".", "more than the tensors"),
    ],
)
def test_anything_but_a_state_dict_is_refused_with_a_hint(tmp_path, content, message):
    with pytest.raises(cnn.UserError) as refusal:
        read_torch(_with_pickle(tmp_path / "other.pt", content))
    assert message in str(refusal.value) and "save" in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of a training script, with an optimizer and objects of other classes."""
    with tarfile.open(CHECKPOINTS) as tar:
        tar.extractall(tmp_path_factory.getbasetemp(), filter="data")
    return _members(tmp_path_factory.getbasetemp() / "imagenet.pth.tar")


@settings(max_examples=300)
@given(inside=st.booleans(), position=st.integers(0, 2**14), byte=st.integers(0, 255), cut=st.booleans())
def test_any_mutation_of_a_pickle_gives_layers_or_a_user_error(
    tmp_path_factory, checkpoint, inside, position, byte, cut
):
    members = checkpoint if inside else _members(TORCH_FILE)
    name = next(name for name in members if name.endswith("/data.pkl"))
    content = bytearray(members[name])
    position %= len(content)
    content[position] = byte
    path = tmp_path_factory.getbasetemp() / "mutated.pt"
    try:
        layers = read_torch(_write(path, members | {name: bytes(content[:position] if cut else content)}))
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
        assert read_torch(path)[0].kind == "Dense"
    else:
        with pytest.raises(cnn.UserError, match="is damaged"):
            read_torch(path)


def test_a_damaged_or_foreign_file_gives_one_line(tmp_path):
    path = tmp_path / "file"
    intact = TORCH_FILE.read_bytes()
    for content in (b"", b"no archive", intact[: len(intact) // 2], intact[:-30]):
        path.write_bytes(content)
        with pytest.raises(cnn.UserError, match=r"file is damaged, .*; save it again$"):
            read_torch(path)
    _write(path, {"readme": b""})
    with pytest.raises(cnn.UserError, match="is not from PyTorch"):
        read_torch(path)
    for missing in (tmp_path, tmp_path / "missing"):
        with pytest.raises(cnn.UserError, match="is not a file"):
            read_torch(missing)


def test_an_archive_larger_than_the_limit_is_not_read(tmp_path):
    bomb = _members(TORCH_FILE) | {"torch_narrow/data/9": bytes(source_layers.MAX_BYTES)}
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in bomb.items():
            archive.writestr(name, content)
    assert (tmp_path / "bomb.pt").stat().st_size < 2**20
    with pytest.raises(cnn.UserError, match="bytes, but at most 268,435,456 are read"):
        read_torch(tmp_path / "bomb.pt")


def test_arrays_larger_than_the_limit_are_not_read(tmp_path):
    # The same values repeated with stride 0.
    content = _members(TORCH_FILE)[PICKLE].replace(b"K\x04\x85q\x11K\x01\x85", b"J\xff\xff\xff\x7f\x85q\x11K\x00\x85")
    with pytest.raises(cnn.UserError, match="bytes, but at most"):
        read_torch(_with_pickle(tmp_path / "huge.pt", content))


def _state_dict() -> bytes:
    """The instructions for a state_dict with one tensor."""
    return b"}X\x08\x00\x00\x000.weight" + _tensor(STORAGE, 0, (9, 4), (4, 1)) + b"s"


def test_the_average_is_taken_of_two_state_dicts_and_nothing_else_is_guessed(tmp_path):
    def checkpoint(*names: str) -> Path:
        items = b"".join(b"X" + len(name).to_bytes(4, "little") + name.encode() + _state_dict() for name in names)
        return _with_pickle(tmp_path / "two.pt", b"\x80\x02}(" + items + b"u.")

    assert [layer.name for layer in read_torch(checkpoint("generator"))] == ["0"]
    assert len(read_torch(checkpoint("model", "model_ema"))) == 1
    for names in (("model", "best"), ("state_dict_ema", "model_ema")):
        with pytest.raises(cnn.UserError, match=rf"several state_dicts \('{names[0]}', '{names[1]}'\), but one is imp"):
            read_torch(checkpoint(*names))


def test_what_is_called_beside_a_state_dict_has_no_effect(tmp_path):
    harm = tmp_path / "harm"
    call = pickle.dumps(Hostile(os.system, f"touch {harm}"), 2)[2:-1]
    content = b"\x80\x02}(X\x04\x00\x00\x00args" + call + b"X\x05\x00\x00\x00model" + _state_dict() + b"u."
    assert [layer.kind for layer in read_torch(_with_pickle(tmp_path / "args.pt", content))] == ["Dense"]
    assert not harm.exists()
