"""Networks of every family as ONNX, run by onnxruntime, against ``cnn.predict``."""

import json
import math
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import onnx
import onnxruntime
import pytest

import cnn
from cnn.exchange import onnx_graph as graph
from cnn.models import layers
from cnn.models.family import Family
from cnn.models.layers import Dense, Flatten
from cnn.training.state import abstract_state
from tests.helpers import NARROW

MODELS = {
    "cnn": NARROW,
    "softmax": cnn.DenseConfig(features=()),
    "dense": cnn.DenseConfig(features=(8, 8), dropout_rate=0.2),
    # Its last pooling drops a row of seven pixels.
    "alexnet": cnn.AlexNetConfig(features=6, dense_features=8),
    # Blocks with stride 2, and one without.
    "resnet": cnn.ResNetConfig(blocks=(1, 1, 1), features=2),
    "efficientnet": cnn.EfficientNetConfig(features=(4, 8), blocks=1),
    # Its patches drop three pixels.
    "vit": cnn.ViTConfig(patch_size=5, features=8, blocks=1, heads=2),
    "recurrent": cnn.RecurrentConfig(cell="gru", features=8),
}


def random_state(config: cnn.ExperimentConfig) -> cnn.TrainState:
    """A state for prediction only: no weight is as initialized, and the EMA differs from the parameters."""
    rng = np.random.default_rng(0)

    def values(path, leaf):
        normal = rng.standard_normal(leaf.shape, np.float32)
        if path[-1].key == "kernel":
            sharpness = 4 if path[-2].key == "logits" else 1
            return sharpness * normal / np.float32(math.sqrt(math.prod(leaf.shape[:-1])))
        # Factors and divisors are positive.
        return 0.5 + normal**2 / 4 if path[-1].key in ("scale", "variance") else normal / 4

    state = abstract_state(config)
    leaves = {name: getattr(state, name) for name in ("params", "batch_stats", "ema")}
    leaves = jax.tree_util.tree_map_with_path(values, leaves)
    return state.replace(**leaves, step=np.int32(0), key=jax.random.key(0), opt_state=())


def images(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 4, 4, 1), np.uint8).repeat(7, 1).repeat(7, 2)


@pytest.mark.parametrize("family", MODELS)
def test_onnxruntime_gives_the_same_probabilities_for_any_batch(family):
    config = cnn.ExperimentConfig(model=MODELS[family])
    state = random_state(config)
    session = onnxruntime.InferenceSession(graph.make_graph(state, config).SerializeToString())
    expected = np.asarray(cnn.predict(state, images(7)))
    assert np.ptp(expected, 0).max() > 5e-3, "the network does not distinguish the images"
    for count in (1, 7):
        probabilities: Any = session.run(None, {"images": images(7)[:count]})[0]
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, expected[:count], atol=1e-4)


# Residual shortcuts have Pad with an input for the widths, transformers LayerNormalization.
OPSETS = {"resnet": (11, 6), "vit": (17, 8)}


@pytest.mark.parametrize("family", MODELS)
def test_the_opset_is_the_lowest_that_has_the_operators(family):
    config = cnn.ExperimentConfig(model=MODELS[family])
    model = graph.make_graph(random_state(config), config)
    opset, ir_version = OPSETS.get(family, (9, 4))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert model.ir_version == ir_version
    onnx.checker.check_model(model, full_check=True)
    for node in model.graph.node:
        assert onnx.defs.get_schema(node.op_type, opset, "").since_version <= opset
    if opset > graph.FIRST_OPSET:
        model.opset_import[0].version = opset - 1
        with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
            onnx.checker.check_model(model, full_check=True)


class Hyperbolic(nn.Module):
    config: Any

    @nn.compact
    def __call__(self, images, *, train):
        return Dense(10, activation=nn.tanh, name="logits")(Flatten(name="flatten")(images))


@dataclass(frozen=True)
class HyperbolicConfig(Family):
    def module(self):
        return Hyperbolic(self)


class Outside(nn.Module):
    """Computes between its layers, as a user may write it."""

    config: Any

    @nn.compact
    def __call__(self, images, *, train):
        if self.config.where == "before":
            images = images.reshape(len(images), -1)
        x = Flatten(name="flatten")(images) if images.ndim > 2 else images
        x = Dense(4, name="dense")(x)
        if self.config.where == "between":
            x = x + x
        logits = Dense(10, activation=None, name="logits")(x)
        return 2 * logits if self.config.where == "behind" else logits


@dataclass(frozen=True)
class OutsideConfig(Family):
    where: str = "before"

    def module(self):
        return Outside(self)


@pytest.mark.parametrize("where", ["before", "between", "behind"])
def test_a_network_that_computes_outside_of_its_layers_is_refused_in_one_line(where):
    config = cnn.ExperimentConfig(model=OutsideConfig(classes=10, where=where))
    with pytest.raises(cnn.UserError, match="Outside computes outside of its named layers, which the ONNX export does"):
        graph.make_graph(cnn.create_state(config), config)


def test_an_activation_without_nodes_is_named():
    config = cnn.ExperimentConfig(model=HyperbolicConfig(classes=10))
    with pytest.raises(cnn.UserError, match="a layer has the activation tanh, which the ONNX export does not support"):
        graph.make_graph(random_state(config), config)


class Branches(nn.Module):
    config: Any

    @nn.compact
    def __call__(self, images, *, train):
        maps = [layers.Conv(2, (size, size), name=f"conv{size}")(images) for size in (1, 3)]
        joined = layers.GlobalAveragePool(name="pool")(layers.Concatenate(name="maps")(*maps))
        halves = [Dense(5, activation=None, name=name)(joined) for name in ("first", "second")]
        return layers.Concatenate(name="logits")(*halves)


@dataclass(frozen=True)
class BranchesConfig(Family):
    def module(self):
        return Branches(self)


def test_branches_are_joined_by_their_channels():
    config = cnn.ExperimentConfig(model=BranchesConfig(classes=10))
    state = random_state(config)
    session = onnxruntime.InferenceSession(graph.make_graph(state, config).SerializeToString())
    probabilities: Any = session.run(None, {"images": images(3)})[0]
    np.testing.assert_allclose(probabilities, cnn.predict(state, images(3)), atol=1e-5)


def test_the_metadata_has_the_name_and_the_class_names():
    config = cnn.ExperimentConfig(name="mine", model=cnn.DenseConfig(features=(), classes=11))
    session = onnxruntime.InferenceSession(graph.make_graph(random_state(config), config).SerializeToString())
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["name"] == "mine"
    assert json.loads(metadata["class_names"]) == [*cnn.class_names(config.data), "class 10"]


def test_the_ema_is_exported():
    optim = cnn.OptimConfig(average_decay=0.9)
    config = cnn.ExperimentConfig(model=MODELS["softmax"], optim=optim)
    state = random_state(config)
    constants = [onnx.numpy_helper.to_array(constant) for constant in graph.make_graph(state, config).graph.initializer]
    ema, last = state.eval_state.params["logits"]["bias"], state.params["logits"]["bias"]
    assert any(np.array_equal(constant, ema) for constant in constants)
    assert not any(np.array_equal(constant, last) for constant in constants)


def test_an_unsupported_kind_of_layer_is_refused(monkeypatch):
    config = cnn.ExperimentConfig(model=NARROW)
    monkeypatch.delitem(graph.NODES, layers.Dense)
    with pytest.raises(cnn.UserError, match="dense is a Dense, which the ONNX export does not support"):
        graph.make_graph(random_state(config), config)
