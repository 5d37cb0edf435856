"""Files of Keras: of all layouts, damaged, hostile or too large, or silent about the order of layers."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn
from cnn.exchange import keras_files, source_layers
from cnn.exchange.keras_files import read_keras

FILES = Path(__file__).parents[1] / "files" / "keras2_narrow.tar.xz"

KERNEL, BIAS = np.ones((5, 5)), np.ones(5)


def _hdf5(fill: Callable[[h5py.File], object] = len) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        fill(file)
    return content.getvalue()


def _saved(path: Path, fill: Callable[[h5py.File], object]) -> Path:
    path.write_bytes(_hdf5(fill))
    return path


def _archive(path: Path, fill: Callable[[h5py.File], object], **layer: object) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(_model(("Dense", "logits", layer))))
        archive.writestr("model.weights.h5", _hdf5(fill))
    return path


def _model(*layers: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """The description of a model, from the class, name and further fields of its layers."""
    described = [{"class_name": kind, "config": {"name": name, **fields}} for kind, name, fields in layers]
    return {"class_name": "Sequential", "config": {"name": "model", "layers": described}}


def _names(path: Path) -> list[str]:
    return [layer.name for layer in read_keras(path)]


def test_weights_of_unknown_layers_are_kept_as_other(tmp_path):
    def fill(file):
        file["layers/dense/vars/0"] = np.ones((2, 3))
        file["layers/lstm/cell/vars/0"] = np.ones(4)
        file["layers/dropout/seed_generator/vars/0"] = np.ones(2)
        file["optimizer/vars/0"] = np.ones(5)

    logits, other = read_keras(_archive(tmp_path / "some.keras", fill))
    assert (logits.name, logits.kind) == ("logits", "Dense") and logits.leaves["kernel"].shape == (2, 3)
    assert (other.name, other.kind) == ("layers/lstm", "other")


def test_a_layer_of_another_class_is_other_whatever_its_shapes_are(tmp_path):
    def fill(file):
        file["model_weights/up/up/kernel:0"], file["model_weights/up/up/bias:0"] = np.ones((3, 3, 4, 4)), np.ones(4)
        file.attrs["model_config"] = json.dumps(_model(("Conv2DTranspose", "up", {})))

    assert [layer.kind for layer in read_keras(_saved(tmp_path / "up.h5", fill))] == ["other"]


@pytest.mark.parametrize("prefix", ["", "model_weights/"], ids=["weights", "model"])
def test_equal_shapes_are_told_apart_by_the_order_that_h5_states(tmp_path, prefix):
    def fill(file):
        for name in ("a", "b", "c_1"):
            # The last as TensorFlow 1 names the variables of a model that was loaded again.
            file[f"{prefix}{name}/{name}_3/kernel_2:0"], file[f"{prefix}{name}/{name}_3/bias_2:0"] = KERNEL, BIAS
        file[prefix or "/"].attrs["layer_names"] = np.array([b"b", b"pool", b"c_1", b"a"])

    assert _names(_saved(tmp_path / "x.h5", fill)) == ["b/b_3", "c_1/c_1_3", "a/a_3"]


def test_an_inner_model_is_in_the_order_of_its_description(tmp_path):
    """Keras stores the weights of layers that are not trained last."""

    def fill(file):
        for name in ("frozen", "a"):
            file[f"model_weights/inner/{name}/kernel:0"], file[f"model_weights/inner/{name}/bias:0"] = KERNEL, BIAS
        file["model_weights"].attrs["layer_names"] = ["inner"]
        inner = _model(("Dense", "frozen", {}), ("Dense", "a", {}))["config"]
        file.attrs["model_config"] = json.dumps(_model(("Functional", "inner", inner | {"name": "inner"})))

    assert _names(_saved(tmp_path / "x.h5", fill)) == ["inner/frozen", "inner/a"]


def test_weights_are_in_the_order_of_their_numbers(tmp_path):
    def fill(file):
        for number in ("", "_2", "_10"):
            file[f"layers/dense{number}/vars/0"] = KERNEL
        file["layers/sequential/layers/conv2d/vars/0"] = np.ones((3, 3, 1, 2))

    path = _saved(tmp_path / "x.weights.h5", fill)
    assert _names(path) == [
        "layers/sequential/layers/conv2d",
        *("layers/dense", "layers/dense_2", "layers/dense_10"),
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("layers/dense/vars/0", "layers/sequential/layers/dense/vars/0"),
        ("a/a/kernel:0", "b/b/kernel:0"),
        ("inner/dense_1/kernel:0", "inner/dense_2/kernel:0"),
    ],
)
def test_equal_shapes_in_an_unknown_order_are_refused(tmp_path, names):
    def fill(file):
        for name in names:
            file[name] = KERNEL
        file.attrs["layer_names"] = ["inner"]

    with pytest.raises(cnn.UserError, match=r"which of '.*' and '.*', of equal shapes, is used first; save the model,"):
        read_keras(_saved(tmp_path / "x.h5", fill))


def test_bfloat16_becomes_float32(tmp_path):
    values = np.array([[1, 2.5], [-3, 0.1]], jnp.bfloat16)

    def fill(file):
        file.create_dataset("layers/dense/vars/0", data=values)

    (layer,) = read_keras(_saved(tmp_path / "x.weights.h5", fill))
    assert layer.leaves["kernel"].dtype == np.float32
    np.testing.assert_array_equal(layer.leaves["kernel"], values.astype(np.float32))


@pytest.mark.parametrize("write", [_archive, _saved], ids=["keras", "h5"])
def test_nothing_outside_a_file_is_read(tmp_path, write):
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file["kernel"], file["group/dense/dense/kernel"] = np.ones((2, 3)), np.ones((2, 3))

    def link(file):
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(tmp_path / "outside.h5"), "kernel")
        file["model_weights"] = h5py.ExternalLink(str(tmp_path / "outside.h5"), "group")

    def external(file):
        (tmp_path / "raw").write_bytes(bytes(24))
        file.create_dataset("layers/dense/vars/0", (2, 3), "f4", external=[(str(tmp_path / "raw"), 0, 24)])

    def virtual(file):
        layout = h5py.VirtualLayout((2, 3), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "outside.h5"), "kernel", (2, 3))
        file.create_virtual_dataset("layers/dense/vars/0", layout)

    with pytest.raises(cnn.UserError, match="has no weights of layers"):
        read_keras(write(tmp_path / "link", link))
    for fill in (external, virtual):
        with pytest.raises(cnn.UserError, match="is stored in another file"):
            read_keras(write(tmp_path / "external", fill))


def test_channels_first_are_refused(tmp_path):
    def fill(file):
        file["layers/dense/vars/0"] = file["model_weights/logits/kernel:0"] = KERNEL
        file.attrs["model_config"] = json.dumps(_model(("Dense", "logits", {"data_format": "channels_first"})))

    def without_numbers(file):
        fill(file)
        del file["layers"]

    archive = _archive(tmp_path / "some.keras", fill, data_format="channels_first")
    for path in (archive, _saved(tmp_path / "some.h5", without_numbers)):
        with pytest.raises(cnn.UserError, match="channels first in 'logits'; only channels_last"):
            read_keras(path)


def test_a_damaged_or_foreign_file_gives_one_line(tmp_path, saved):
    path = tmp_path / "file"
    intact = saved["inner-2.21.0.h5"]
    for content in (b"", b"no file", intact[: len(intact) // 2], intact[:9]):
        path.write_bytes(content)
        with pytest.raises(cnn.UserError, match=r"file is damaged.*; save it again$"):
            read_keras(path)
    for members in ({"readme": b""}, {"config.json": b'{"config": {"layers": [{}]}}', "model.weights.h5": _hdf5()}):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        with pytest.raises(cnn.UserError, match="file is damaged|has no weights of layers"):
            read_keras(path)
    for missing in (tmp_path, tmp_path / "missing"):
        with pytest.raises(cnn.UserError, match="is not a file"):
            read_keras(missing)


def test_a_heap_of_texts_in_which_hdf5_loops_for_ever_is_refused(tmp_path, saved):
    content = bytearray(saved["functional-2.21.0-weights.h5"])
    assert content[2520:2528] == b"\x0f" + bytes(7) and content[2528:2543] == b"hidden/kernel:0"
    content[2520] = 187
    (tmp_path / "file.h5").write_bytes(content)
    with pytest.raises(cnn.UserError, match="a heap of texts is damaged"):
        read_keras(tmp_path / "file.h5")


def test_a_file_or_arrays_larger_than_the_limit_are_not_read(tmp_path):
    def fill(file):
        file.create_dataset("layers/dense/vars/0", (2**15, 2**15), "f4", chunks=(1024, 1024), compression="gzip")

    for write in (_archive, _saved):
        with pytest.raises(cnn.UserError, match="4,294,967,296 bytes, but at most"):
            read_keras(write(tmp_path / "huge", fill))
    with (tmp_path / "sparse.h5").open("wb") as file:
        file.truncate(source_layers.MAX_BYTES + 1)
    with pytest.raises(cnn.UserError, match="268,435,457 bytes, but at most"):
        read_keras(tmp_path / "sparse.h5")


def test_texts_and_objects_that_could_be_larger_than_the_file_are_not_read(tmp_path, monkeypatch):
    def objects(file):
        file.create_dataset("layers/dense/vars/0", (2, 3), h5py.vlen_dtype(np.float32))

    with pytest.raises(cnn.UserError, match="vars/0 has the dtype object"):
        read_keras(_saved(tmp_path / "objects.h5", objects))

    def numbers(file):
        file["a/kernel:0"] = KERNEL
        file.attrs["layer_names"] = np.ones(3)

    with pytest.raises(cnn.UserError, match="layer_names is no text"):
        read_keras(_saved(tmp_path / "numbers.h5", numbers))

    def texts(file):
        file["a/kernel:0"] = file["b/kernel:0"] = KERNEL
        file.attrs["layer_names"] = ["b", "a"]

    path = _saved(tmp_path / "texts.h5", texts)
    assert _names(path) == ["b", "a"]
    # Each of the two could be as long as the file.
    monkeypatch.setattr(keras_files, "MAX_BYTES", 2 * path.stat().st_size - 1)
    with pytest.raises(cnn.UserError, match="of equal shapes"):
        read_keras(path)


@pytest.fixture(scope="module")
def saved() -> dict[str, bytes]:
    """The files of Keras 2, by name."""
    with tarfile.open(FILES) as tar:
        return {member.name: file.read() for member in tar if (file := tar.extractfile(member))}


NAMES = [f"{model}-2.21.0{end}" for model in ("functional", "inner") for end in (".h5", ".weights.h5", "-weights.h5")]


@settings(max_examples=300)
@given(
    name=st.sampled_from(NAMES),
    position=st.integers(0, 2**16),
    byte=st.integers(0, 255),
    cut=st.sampled_from((0, 0, 1)),
)
def test_any_mutation_of_hdf5_gives_layers_or_a_user_error(tmp_path_factory, saved, name, position, byte, cut):
    content = bytearray(saved[name])
    # What is not zero tells more often what is where.
    places = [place for place in range(2**13) if content[place]]
    position = places[position % len(places)]
    content[position] = byte
    path = tmp_path_factory.getbasetemp() / "mutated.h5"
    path.write_bytes(content[:position] if cut else content)
    try:
        layers = read_keras(path)
    except cnn.UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert all(values.dtype == np.float32 for layer in layers for values in layer.leaves.values())


@settings(max_examples=200)
@given(position=st.integers(0, 10**4), text=st.sampled_from(["[", "}", '"', "null", "0", "layers", "\ud800", "{}"]))
def test_any_mutation_of_a_description_gives_layers_or_a_user_error(tmp_path_factory, saved, position, text):
    with zipfile.ZipFile(io.BytesIO(saved["inner-2.13.1.keras"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = members["config.json"].decode()
    position %= len(config)
    members["config.json"] = (config[:position] + text + config[position + 1 :]).encode("utf-8", "surrogatepass")
    path = tmp_path_factory.getbasetemp() / "mutated.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    try:
        read_keras(path)
    except cnn.UserError as error:
        assert len(str(error).splitlines()) == 1
