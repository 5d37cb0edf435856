"""A page's graph, run by onnxruntime: every layer's output, kernels and Grad-CAM are those of the network."""

import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

import flax.linen as nn
import numpy as np
import onnxruntime
import pytest

import cnn
from cnn.exchange.exporting import to_onnx
from cnn.look.attribution import grad_cam
from cnn.models.family import Family
from cnn.models.layers import Conv, Dense, Flatten
from cnn.web.graph import WebGraph, web_graph
from tests.exchange.test_onnx_graph import MODELS, images, random_state
from tests.look.networks import small_state

EXPLAINED = {"cnn": "pool2", "alexnet": "pool5", "resnet": "block3", "efficientnet": "head_norm"}
"""The last layer with pixels, in the families that have one before the logits; the others have no Grad-CAM."""


def _run(graph: WebGraph, images_BxHxWxC: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(graph.model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(None, {"images": images_BxHxWxC})), strict=True))


def _channels_last(outputs: np.ndarray) -> np.ndarray:
    return outputs.transpose(0, 2, 3, 1) if outputs.ndim == 4 else outputs


def _assert_layers_are_those_of_the_network(state: cnn.TrainState, outputs: dict[str, Any], drawn: np.ndarray) -> None:
    maps = cnn.feature_maps(state, drawn)
    assert {name for name in outputs if name.startswith("layers/")} == {f"layers/{name}" for name in maps}
    for name, expected in maps.items():
        actual = _channels_last(outputs[f"layers/{name}"])
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("family", MODELS)
def test_the_outputs_are_the_layers_kernels_and_grad_cam_of_the_network(family):
    config, drawn = cnn.ExperimentConfig(model=MODELS[family]), images(2)
    state = random_state(config)
    graph = web_graph(state, config)
    outputs = _run(graph, drawn)
    _assert_layers_are_those_of_the_network(state, outputs, drawn)
    parameters = {}
    for name, leaves in state.eval_state.params.items():
        if "kernel" in leaves and "recurrent_kernel" not in leaves:
            parameters[f"kernels/{name}"] = leaves["kernel"]
            if "bias" in leaves:
                parameters[f"biases/{name}"] = leaves["bias"]
    assert set(parameters) == {name for name in outputs if name.startswith(("kernels/", "biases/"))}
    for name, expected in parameters.items():
        np.testing.assert_array_equal(outputs[name], expected, err_msg=name)
    assert graph.grad_cam == EXPLAINED.get(family)
    if graph.grad_cam:
        expected = np.asarray(grad_cam(state, drawn, graph.grad_cam, outputs["probabilities"].argmax(1)))
        assert expected.max() > 0
        np.testing.assert_allclose(outputs["grad_cam"], expected, atol=1e-5 * expected.max())
    else:
        assert "grad_cam" not in outputs
    # What a browser reads, and no kernel twice.
    assert graph.model.ir_version <= 13 and graph.model.opset_import[0].version <= 26
    assert graph.model.ByteSize() - len(to_onnx(state, config)) < 10_000


@pytest.mark.parametrize("family", MODELS)
def test_the_facts_of_a_layer_are_those_of_its_module(family):
    config = cnn.ExperimentConfig(model=MODELS[family])
    state = random_state(config)
    facts = web_graph(state, config).layers
    names = [fact["name"] for fact in facts]
    for number, (row, fact) in enumerate(zip(cnn.layer_table(state), facts, strict=True)):
        assert (fact["name"], fact["kind"], fact["shape"]) == (row.name, row.kind, list(row.output_shape[1:]))
        assert fact["inputs"] and set(fact["inputs"]) <= {None, *names[:number]}
        leaves = state.params.get(row.name, {})
        has_kernel = "kernel" in leaves and "recurrent_kernel" not in leaves
        assert fact["kernel"] == (list(leaves["kernel"].shape) if has_kernel else None)
        assert (fact["grid"] is None) == (len(fact["shape"]) != 2 or family == "recurrent")


@pytest.mark.parametrize("family", MODELS)
def test_every_kind_of_layer_and_activation_has_a_text_in_both_languages(family):
    config = cnn.ExperimentConfig(model=MODELS[family])
    facts = web_graph(random_state(config), config).layers
    needed = {fact["kind"] for fact in facts} | {fact["activation"] for fact in facts if fact["activation"]}
    texts = resources.files("cnn.web").joinpath("pages", "texts.js").read_text(encoding="utf-8")
    for language in texts.split("export const TEXTS")[1].split("\n  },\n")[:2]:
        assert needed <= set(re.findall(r'\b(\w+): "', language))


def _facts(model: Family, name: str) -> dict[str, Any]:
    config = cnn.ExperimentConfig(model=model)
    return next(fact for fact in web_graph(random_state(config), config).layers if fact["name"] == name)


def test_what_a_layer_does_is_said():
    conv = _facts(MODELS["cnn"], "conv1")
    assert conv == {
        **{"name": "conv1", "kind": "Conv", "shape": [28, 28, 4], "inputs": [None], "grid": None},
        **{"kernel": [3, 3, 1, 4], "bias": True, "activation": "relu"},
        **{"strides": [1, 1], "padding": "SAME", "groups": 1},
    }
    assert _facts(MODELS["cnn"], "pool1")["window"] == [2, 2]
    depthwise = _facts(MODELS["efficientnet"], "block2_depthwise")
    assert (depthwise["groups"], depthwise["strides"], depthwise["bias"]) == (16, [2, 2], False)
    assert _facts(MODELS["efficientnet"], "block1_scale")["inputs"] == ["block1_norm2", "block1_excite"]
    assert _facts(MODELS["efficientnet"], "block1_excite")["activation"] == "sigmoid"
    norm = _facts(MODELS["resnet"], "norm")
    assert (norm["kernel"], norm["bias"], norm["activation"]) == (None, False, "relu")
    # Patches of five pixels a side in an image of 28, of which three pixels are left over.
    assert _facts(MODELS["vit"], "block1")["grid"] == [5, 5] and _facts(MODELS["vit"], "pool")["grid"] is None


class Unusual(nn.Module):
    """Layers without names, which Flax names as ONNX nodes are named here, and one that is called twice."""

    config: "UnusualConfig"

    @nn.compact
    def __call__(self, images, *, train):
        x = images
        for _ in range(4):
            x = Conv(2)(x)
        again = Conv(2, name="again")
        x = again(again(x)) if self.config.twice else again(x)
        return Dense(self.config.classes, activation=None)(Flatten()(x))


@dataclass(frozen=True)
class UnusualConfig(Family):
    twice: bool = False

    def module(self):
        return Unusual(self)


def test_layers_that_have_the_names_of_nodes_do_not_clash_with_them():
    config, drawn = cnn.ExperimentConfig(model=UnusualConfig(classes=10)), images(2)
    state = random_state(config)
    outputs = _run(graph := web_graph(state, config), drawn)
    assert "layers/Conv_3" in outputs and "Conv_3" in {node.name for node in graph.model.graph.node}
    _assert_layers_are_those_of_the_network(state, outputs, drawn)


def test_a_layer_that_is_called_twice_has_its_first_output_and_no_grad_cam():
    config, drawn = cnn.ExperimentConfig(model=UnusualConfig(classes=10, twice=True)), images(2)
    state = random_state(config)
    outputs = _run(graph := web_graph(state, config), drawn)
    _assert_layers_are_those_of_the_network(state, outputs, drawn)
    assert graph.grad_cam is None and [fact["name"] for fact in graph.layers].count("again") == 1


class Misleading(nn.Module):
    """A layer with the name of the input, and one that is called after the logits and takes no part in them."""

    config: "MisleadingConfig"

    @nn.compact
    def __call__(self, images, *, train):
        x = Conv(2, name="conv")(Conv(2, name="images")(images))
        logits = Dense(self.config.classes, activation=None, name="logits")(Flatten()(x))
        Dense(self.config.classes, activation=None, name="aux")(Flatten(name="other")(x))
        return logits


@dataclass(frozen=True)
class MisleadingConfig(Family):
    def module(self):
        return Misleading(self)


def test_grad_cam_is_that_of_the_logits_and_a_layer_named_images_is_not_the_input():
    config, drawn = cnn.ExperimentConfig(model=MisleadingConfig(classes=10)), images(2)
    state = random_state(config)
    outputs = _run(graph := web_graph(state, config), drawn)
    assert graph.grad_cam == "conv"
    expected = np.asarray(grad_cam(state, drawn, "conv", outputs["probabilities"].argmax(1)))
    np.testing.assert_allclose(outputs["grad_cam"], expected, atol=1e-5 * expected.max())
    assert [fact["inputs"] for fact in graph.layers[:2]] == [[None], ["images"]]


def test_colour_images_that_are_not_square_keep_their_axes():
    state = small_state(cnn.ModelConfig(conv1_features=2, conv2_features=3, dense_features=4), (12, 20, 3))
    config = cnn.ExperimentConfig(model=state.spec.model.config, data=cnn.DataConfig(class_names=("a", "b")))
    drawn = np.random.default_rng(0).integers(0, 256, (2, 12, 20, 3), np.uint8)
    outputs = _run(web_graph(state, config), drawn)
    _assert_layers_are_those_of_the_network(state, outputs, drawn)
    expected = np.asarray(grad_cam(state, drawn, "pool2", outputs["probabilities"].argmax(1)))
    np.testing.assert_allclose(outputs["grad_cam"], expected, atol=1e-5 * expected.max())
