"""Networks of every family in 8 bits, by onnxruntime; what that costs, measured; the command."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import cnn
from cnn.__main__ import main
from cnn.exchange import int8
from cnn.exchange.onnx_graph import make_graph
from tests.exchange.test_onnx_graph import MODELS, images, random_state
from tests.helpers import NARROW


def _probabilities(content: bytes, images_NxHxWxC: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content)
    return np.asarray(session.run(["probabilities"], {"images": images_NxHxWxC})[0])


def _contrast(probabilities_NxK: np.ndarray) -> np.ndarray:
    """By how much an image's log-probabilities differ from the mean image's: random networks prefer one class."""
    logits_NxK = np.log(probabilities_NxK)
    return logits_NxK - logits_NxK.mean(0)


@pytest.mark.parametrize("family", MODELS)
def test_networks_of_every_family_distinguish_images_in_8_bits_as_before(family):
    config, drawn = cnn.ExperimentConfig(model=MODELS[family]), images(200)
    model = make_graph(random_state(config), config, int8.OPSET)
    before, after = model.SerializeToString(), int8.quantize(model, drawn[:100])
    expected, actual = (_probabilities(content, drawn) for content in (before, after))
    # The last softmax is not in steps of 1/255, of which one is 0.
    np.testing.assert_allclose(actual.sum(1), 1, atol=1e-6)
    contrast = _contrast(expected)
    error = np.sqrt(np.mean((_contrast(actual) - contrast) ** 2))
    if family == "efficientnet":
        # The random one distinguishes images by 0.005 nats only, so that it is only shown to stay close.
        assert error < 0.005 and 0.005 > contrast.std()
    else:
        assert error < 0.2 * contrast.std()
        assert (_contrast(actual).argmax(1) == contrast.argmax(1)).mean() > 0.8 > 2 * _most_frequent(contrast.argmax(1))
    quantized = onnx.load_from_string(after)
    assert quantized.producer_name == "fashion-cnn"
    constants = [constant for constant in quantized.graph.initializer if len(constant.dims) > 1]
    kernels = [constant for constant in constants if constant.name.startswith(("Conv", "MatMul"))]
    assert kernels and {kernel.data_type for kernel in kernels} == {onnx.TensorProto.INT8}


def _most_frequent(labels_N: np.ndarray) -> float:
    return np.bincount(labels_N).max() / len(labels_N)


@pytest.fixture(scope="module")
def network() -> tuple[cnn.TrainState, cnn.ExperimentConfig]:
    config = cnn.ExperimentConfig(name="mine", model=NARROW)
    return random_state(config), config


def test_the_same_network_gives_the_same_bits_and_metadata(network, small):
    state, config = network
    first, second = (int8.quantize(make_graph(state, config, int8.OPSET), small.val.images) for _ in range(2))
    assert first == second
    properties = {entry.key: entry.value for entry in onnx.load_from_string(first).metadata_props}
    assert properties["name"] == "mine" and json.loads(properties["class_names"])[0] == "T-shirt/top"


def test_size_and_accuracy_are_those_of_the_files(network, small, monkeypatch):
    monkeypatch.setattr(int8, "CALLS", {1: 2, 100: 2})
    state, config = network
    other = state.replace(params={**state.params, "logits": {k: -v for k, v in state.params["logits"].items()}})
    files = {name: make_graph(s, config).SerializeToString() for name, s in (("float32", state), ("int8", other))}
    given, others = (np.asarray(cnn.predict(s, small.test.images)).argmax(1) for s in (state, other))
    # Of 110 labels, the first network gives the first 80, and the second one the others.
    test = cnn.Split(small.test.images, np.where(np.arange(110) < 80, given, others).astype(np.int32))
    values = int8.compare(files, test)
    accuracies = {"float32": (given == test.labels).mean(), "int8": (others == test.labels).mean()}
    assert {name: values[name]["accuracy"] for name in files} == accuracies
    assert values["accuracy_difference"] == accuracies["int8"] - accuracies["float32"] < 0
    low, high = values["accuracy_difference_interval"]
    assert low < values["accuracy_difference"] < high < 0
    assert values["float32"]["bytes"] == len(files["float32"]) and values["test_images"] == len(test.labels)
    assert values["size_ratio"] == len(files["int8"]) / len(files["float32"])
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert all(time > 0 for time in values["int8"]["milliseconds"].values())
    assert f"{values['accuracy_difference']:+.4f}" in int8.format_comparison(values)


@pytest.fixture
def run_dir(network, small, tmp_path, monkeypatch) -> Path:
    """A run directory whose best network has random weights."""
    monkeypatch.setattr(int8, "CALLS", {1: 1, 100: 1})
    monkeypatch.setattr(int8, "load_best", lambda run_dir: network)
    monkeypatch.setattr(int8, "load_images", lambda run_dir: small)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_a_run_is_written_with_what_it_costs_and_again(run_dir, small, tmp_path):
    for output in (None, None, tmp_path / "mine", tmp_path / "mine"):
        path, values = int8.export_int8(run_dir, output)
        assert path == (output or run_dir / "export" / "model-int8.onnx")
        assert json.loads(path.with_name(f"{path.name}.json").read_text()) == values
        assert len(path.read_bytes()) == values["int8"]["bytes"]
        # Fewer validation images than are wanted.
        assert values["calibration_images"] == len(small.val.labels)


@pytest.mark.parametrize("name", ["model-int8.onnx", "model-int8.onnx.json"])
def test_a_users_file_of_either_name_is_kept(run_dir, name, monkeypatch):
    monkeypatch.setattr(int8, "load_best", lambda run_dir: pytest.fail("computes"))
    (run_dir / "export").mkdir()
    (run_dir / "export" / name).write_text("mine")
    with pytest.raises(cnn.ConfigError, match="which this command has not written; name another file"):
        int8.export_int8(run_dir)
    assert [path.name for path in (run_dir / "export").iterdir()] == [name]


def test_without_onnxruntime_the_extra_is_named_before_anything_is_loaded(run_dir, monkeypatch):
    monkeypatch.setattr(int8, "load_best", lambda run_dir: pytest.fail("computes"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(cnn.UserError, match=r"the package onnxruntime is not installed; run pip .*\[int8\]"):
        int8.export_int8(run_dir)


def test_another_format_in_8_bits_is_refused(tmp_path):
    with pytest.raises(cnn.ConfigError, match="--int8 has an effect only with --format onnx; name that, not stablehlo"):
        main(["export", str(tmp_path), "--format", "stablehlo", "--int8"])
