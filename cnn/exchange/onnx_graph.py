"""A network -> an ONNX graph: nodes for each kind of layer, connected by running the model's own code."""

import json
import math
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cnn.config import ExperimentConfig
from cnn.errors import UserError, import_extra
from cnn.models import layers
from cnn.models.recurrent import CELLS, Last, Recurrent, Rows
from cnn.resolution import model_class_names
from cnn.training.state import TrainState
from cnn.training.summary import intercept_methods, layer_table

FIRST_OPSET = 9
"""The lowest version of ONNX's operators that is tried; in the files of older ones, all constants are inputs."""


class Value(NamedTuple):
    """A layer's input or output, in place of an array."""

    name: str
    shape: tuple[Any, ...]
    """In the model, [B, H, W, C], [B, T, D] or [B, F]; in the graph, channels come first: [B, C, H, W]."""
    layer: str | None = None
    """Name of the layer whose output it is; None for the images."""

    def astype(self, dtype: Any) -> "Value":
        """Returns itself, as the graph computes in float32 whatever the model's dtype."""
        return self


Add = Callable[..., str]
"""Adds a node: operator, inputs by name or as a constant array, attributes; returns its output's name."""


class Traced(NamedTuple):
    """A named layer, as the model's code has called it."""

    name: str
    module: Any
    leaves: dict[str, np.ndarray]
    """Its parameters and statistics by name."""
    inputs: tuple[Value, ...]
    output: Value


class Output(NamedTuple):
    """A further output of a graph."""

    name: str
    """Of a node's output, or of a constant."""
    shape: tuple[Any, ...]
    """In the graph; the name of an axis of any size."""


MoreOutputs = Callable[[Add, list[Traced], dict[str, np.ndarray], Value], dict[str, Output]]
"""Adds nodes after those of the layers, given the graph's constants by name and the logits; returns outputs by name."""


def _array(*integers: int) -> np.ndarray:
    return np.array(integers, np.int64)


def _activated(add: Add, activation: Any, x: str) -> str:
    if activation is None:
        return x
    if activation is nn.swish:
        return add("Mul", x, add("Sigmoid", x))
    if activation is nn.gelu:
        # Flax's gelu is the tanh approximation, an operator of its own only since opset 20.
        cubic = add("Mul", add("Mul", x, x), add("Mul", x, np.float32(0.044715)))
        tanh = add("Tanh", add("Mul", add("Add", x, cubic), np.float32(math.sqrt(2 / math.pi))))
        return add("Mul", add("Mul", x, np.float32(0.5)), add("Add", tanh, np.float32(1)))
    operators = {nn.relu: "Relu", jax.nn.sigmoid: "Sigmoid"}
    if activation not in operators:
        name = getattr(activation, "__name__", activation)
        raise UserError(f"a layer has the activation {name}, which the ONNX export does not support; use stablehlo")
    return add(operators[activation], x)


def _conv(add: Add, layer: Any, leaves: dict, images: Value) -> str:
    kernel = leaves["kernel"].transpose(3, 2, 0, 1)
    bias = [leaves["bias"]] if "bias" in leaves else []
    # A depthwise kernel is [H, W, 1, C], with a group for each channel.
    groups = images.shape[-1] // kernel.shape[1]
    padding = "VALID" if getattr(layer, "padding", "SAME") == "VALID" else "SAME_UPPER"
    x = add("Conv", images.name, kernel, *bias, strides=layer.strides, auto_pad=padding, group=groups)
    return _activated(add, getattr(layer, "activation", None), x)


def _max_pool(add: Add, layer: Any, leaves: dict, images: Value) -> str:
    return add("MaxPool", images.name, kernel_shape=layer.window, strides=layer.window)


def _flatten(add: Add, layer: Any, leaves: dict, x: Value) -> str:
    return add("Flatten", _channels_last(add, x), axis=1)


def _channels_last(add: Add, x: Value) -> str:
    return add("Transpose", x.name, perm=(0, 2, 3, 1)) if len(x.shape) == 4 else x.name


def _dense(add: Add, layer: Any, leaves: dict, x: Value) -> str:
    return _activated(add, layer.activation, add("Add", add("MatMul", x.name, leaves["kernel"]), leaves["bias"]))


def _dropout(add: Add, layer: Any, leaves: dict, x: Value) -> str:
    return x.name


def _batch_norm(add: Add, layer: Any, leaves: dict, images: Value) -> str:
    values = [leaves[name] for name in ("scale", "bias", "mean", "variance")]
    return _activated(
        add, layer.activation, add("BatchNormalization", images.name, *values, epsilon=float(layer.epsilon))
    )


def _layer_norm(add: Add, layer: Any, leaves: dict, tokens: Value) -> str:
    scale, bias = leaves["scale"], leaves["bias"]
    return add("LayerNormalization", tokens.name, scale, bias, axis=-1, epsilon=float(layer.epsilon))


def _add(add: Add, layer: Any, leaves: dict, x: Value, shortcut: Value) -> str:
    other = shortcut.name
    if x.shape != shortcut.shape:
        (_, height, _, channels), (_, input_height, _, input_channels) = x.shape, shortcut.shape
        stride, end = -(-input_height // height), np.iinfo(np.int64).max
        other = add("Slice", other, _array(0, 0), _array(end, end), _array(2, 3), _array(stride, stride))
        other = add("Pad", other, _array(0, 0, 0, 0, 0, channels - input_channels, 0, 0))
    return _activated(add, layer.activation, add("Add", x.name, other))


def _global_average_pool(add: Add, layer: Any, leaves: dict, x: Value) -> str:
    channels_first = x.name if len(x.shape) == 4 else add("Transpose", x.name, perm=(0, 2, 1))
    return add("Flatten", add("GlobalAveragePool", channels_first), axis=1)


def _scale(add: Add, layer: Any, leaves: dict, images: Value, factors: Value) -> str:
    return add("Mul", images.name, add("Reshape", factors.name, _array(0, -1, 1, 1)))


def _position_embedding(add: Add, layer: Any, leaves: dict, images: Value) -> str:
    tokens = add("Reshape", _channels_last(add, images), _array(0, -1, images.shape[-1]))
    return add("Add", tokens, leaves["position"])


def _attention(add: Add, layer: Any, leaves: dict, x: Value) -> str:
    features = x.shape[-1] // (3 * layer.heads)
    # Queries, keys and values of all heads, each [B, heads, T, features].
    parts = add("Reshape", x.name, _array(0, 0, 3 * layer.heads, features))
    parts = add("Transpose", parts, perm=(0, 2, 1, 3))
    queries, keys, values = (
        add("Slice", parts, _array(first), _array(first + layer.heads), _array(1))
        for first in range(0, 3 * layer.heads, layer.heads)
    )
    products = add("MatMul", queries, add("Transpose", keys, perm=(0, 1, 3, 2)))
    shares = add("Softmax", add("Div", products, np.float32(math.sqrt(features))), axis=3)
    outputs = add("Transpose", add("MatMul", shares, values), perm=(0, 2, 1, 3))
    return add("Reshape", outputs, _array(0, 0, layer.heads * features))


# ONNX's own orders of the gates, and its operators.
_RECURRENT = {
    "lstm": ("LSTM", ("input", "output", "forget", "candidate"), {}),
    "gru": ("GRU", ("update", "reset", "candidate"), {"linear_before_reset": 1}),
    "rnn": ("RNN", ("candidate",), {}),
}


def _recurrent(add: Add, layer: Any, leaves: dict, sequence: Value) -> str:
    operator, order, attributes = _RECURRENT[layer.cell]
    gates = CELLS[layer.cell].gates

    def columns(array: np.ndarray) -> np.ndarray:
        """The columns of each gate, [..., G F], in ONNX's order, as rows: [G F, ...]."""
        parts = np.split(array, len(gates), -1)
        return np.concatenate([parts[gates.index(gate)] for gate in order], -1).T

    kernel, recurrent_kernel = (columns(leaves[name])[None] for name in ("kernel", "recurrent_kernel"))
    both = leaves["bias"] if leaves["bias"].ndim == 2 else np.stack([leaves["bias"], np.zeros_like(leaves["bias"])])
    bias = np.concatenate([columns(one) for one in both])[None]
    steps_first = add("Transpose", sequence.name, perm=(1, 0, 2))
    outputs = add(operator, steps_first, kernel, recurrent_kernel, bias, hidden_size=layer.features, **attributes)
    # [T, 1, B, F], with an axis of directions.
    return add("Reshape", add("Transpose", outputs, perm=(2, 0, 1, 3)), _array(0, sequence.shape[1], layer.features))


def _rows(add: Add, layer: Any, leaves: dict, images: Value) -> str:
    _, height, width, channels = images.shape
    return add("Reshape", _channels_last(add, images), _array(0, height, width * channels))


def _last(add: Add, layer: Any, leaves: dict, sequence: Value) -> str:
    return add("Gather", sequence.name, np.array(sequence.shape[1] - 1, np.int64), axis=1)


NODES: dict[type, Callable[..., str]] = {
    layers.Conv: _conv,
    layers.DepthwiseConv: _conv,
    layers.MaxPool: _max_pool,
    layers.Flatten: _flatten,
    layers.Dense: _dense,
    layers.Dropout: _dropout,
    layers.BatchNorm: _batch_norm,
    layers.LayerNorm: _layer_norm,
    layers.Add: _add,
    layers.GlobalAveragePool: _global_average_pool,
    layers.Scale: _scale,
    layers.PositionEmbedding: _position_embedding,
    layers.Attention: _attention,
    Recurrent: _recurrent,
    Rows: _rows,
    Last: _last,
}
"""By kind of layer: adds its nodes, given ``add``, the layer, its arrays by name and its inputs; returns its output."""


def make_graph(
    state: TrainState,
    config: ExperimentConfig,
    first_opset: int = FIRST_OPSET,
    more_outputs: MoreOutputs = lambda add, traced, constants, logits: {},
) -> Any:
    """Returns the network as an ``onnx.ModelProto`` that maps images to probabilities.

    Its input ``images`` is uint8 [B, H, W, C] for any B, its output ``probabilities`` float32 [B, K], as in
    ``cnn.predict``; it computes in float32, for a bfloat16 model too. It declares the lowest opset that has all of its
    operators, with the lowest IR version of it. Its metadata has ``name`` and, as JSON, ``class_names``.

    Args:
      state: a state; its EMA is exported if it is kept.
      config: the run's configuration.
      first_opset: the lowest opset that is tried.
      more_outputs: adds outputs after ``probabilities``.

    Raises:
      UserError: the package onnx is missing, or a kind of layer is not supported.
    """
    onnx = import_extra("onnx")
    state = state.eval_state
    shapes = {row.name: row.output_shape for row in layer_table(state)}
    nodes, numbers = [], count()
    constants: dict[str, np.ndarray] = {}
    traced: list[Traced] = []

    def add(operator: str, *inputs: str | np.ndarray | np.float32, **attributes: Any) -> str:
        name = f"{operator}_{next(numbers)}"
        names = []
        for index, value in enumerate(inputs):
            if not isinstance(value, str):
                constants[f"{name}.{index}"] = np.asarray(value)
            names.append(value if isinstance(value, str) else f"{name}.{index}")
        nodes.append(onnx.helper.make_node(operator, names, [name], name, **attributes))
        return name

    def add_layer(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        """Adds a layer's nodes in place of its computation."""
        layer = context.module
        if len(layer.path) != 1 or context.method_name != "__call__":
            return call(*args, **kwargs)
        name, kind = layer.path[0], type(layer)
        if kind not in NODES:
            raise UserError(f"{name} is a {kind.__name__}, which the ONNX export does not support; export as stablehlo")
        variables = {**state.params.get(name, {}), **state.batch_stats.get(name, {})}
        leaves = {leaf: np.asarray(value) for leaf, value in variables.items()}
        output = Value(NODES[kind](add, layer, leaves, *args), shapes[name], name)
        traced.append(Traced(name, layer, leaves, args, output))
        return output

    pixels = add("Cast", "images", to=onnx.TensorProto.FLOAT)
    channels_first = add("Transpose", add("Div", pixels, np.float32(255)), perm=(0, 3, 1, 2))
    with intercept_methods(add_layer):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits: Any = state.spec.model.apply(
            variables, Value(channels_first, (None, *state.spec.image_shape)), train=False
        )
    nodes.append(onnx.helper.make_node("Softmax", [logits.name], ["probabilities"], axis=1))
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["batch", *state.spec.image_shape])
    classes = state.spec.model.config.classes
    outputs = [onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["batch", classes])]
    for name, (source, shape) in more_outputs(add, traced, constants, logits).items():
        nodes.append(onnx.helper.make_node("Identity", [source], [name], name))
        outputs.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, type(state.spec.model).__name__, [images], outputs, tensors)
    metadata = {"name": config.name, "class_names": json.dumps(model_class_names(config))}
    return _lowest_opset(onnx, graph, metadata, first_opset)


def _lowest_opset(onnx: Any, graph: Any, metadata: dict[str, str], first_opset: int) -> Any:
    """Returns the graph as a model of the lowest opset in which it is valid, for the oldest runtimes.

    The nodes are written such that they mean the same in every opset in which they are valid.
    """
    for opset in count(first_opset):
        opsets = [onnx.helper.make_opsetid("", opset)]
        ir_version = onnx.helper.find_min_ir_version_for(opsets)
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="fashion-cnn")
        onnx.helper.set_model_props(model, metadata)
        try:
            onnx.checker.check_model(model, full_check=True)
            return model
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
            if opset == onnx.defs.onnx_opset_version():
                raise
