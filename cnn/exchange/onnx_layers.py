"""The nodes of an ONNX graph for each kind of layer."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cnn.detection.boxes import centres
from cnn.errors import UserError
from cnn.models import layers
from cnn.models.recurrent import CELLS, Last, Recurrent, Rows
from cnn.models.yolo import Boxes


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


class Output(NamedTuple):
    """An output of a graph."""

    name: str
    """Of a node's output, or of a constant."""
    shape: tuple[Any, ...]
    """In the graph; the name of an axis of any size."""
    type: str = "FLOAT"
    """One of ``onnx.TensorProto``."""


Add = Callable[..., str]
"""Adds a node: operator, inputs by name or as a constant array, attributes; returns its output's name.

A second output that the operator always has is NAME:1. With ``output``, it is an output of the graph of that name.
"""


def array(*integers: int) -> np.ndarray:
    """Returns int64, as the operators take shapes and axes."""
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
        other = add("Slice", other, array(0, 0), array(end, end), array(2, 3), array(stride, stride))
        other = add("Pad", other, array(0, 0, 0, 0, 0, channels - input_channels, 0, 0))
    return _activated(add, layer.activation, add("Add", x.name, other))


def _global_average_pool(add: Add, layer: Any, leaves: dict, x: Value) -> str:
    channels_first = x.name if len(x.shape) == 4 else add("Transpose", x.name, perm=(0, 2, 1))
    return add("Flatten", add("GlobalAveragePool", channels_first), axis=1)


def _scale(add: Add, layer: Any, leaves: dict, images: Value, factors: Value) -> str:
    return add("Mul", images.name, add("Reshape", factors.name, array(0, -1, 1, 1)))


def _position_embedding(add: Add, layer: Any, leaves: dict, images: Value) -> str:
    tokens = add("Reshape", _channels_last(add, images), array(0, -1, images.shape[-1]))
    return add("Add", tokens, leaves["position"])


def _attention(add: Add, layer: Any, leaves: dict, x: Value) -> str:
    features = x.shape[-1] // (3 * layer.heads)
    # Queries, keys and values of all heads, each [B, heads, T, features].
    parts = add("Reshape", x.name, array(0, 0, 3 * layer.heads, features))
    parts = add("Transpose", parts, perm=(0, 2, 1, 3))
    queries, keys, values = (
        add("Slice", parts, array(first), array(first + layer.heads), array(1))
        for first in range(0, 3 * layer.heads, layer.heads)
    )
    products = add("MatMul", queries, add("Transpose", keys, perm=(0, 1, 3, 2)))
    shares = add("Softmax", add("Div", products, np.float32(math.sqrt(features))), axis=3)
    outputs = add("Transpose", add("MatMul", shares, values), perm=(0, 2, 1, 3))
    return add("Reshape", outputs, array(0, 0, layer.heads * features))


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
    return add("Reshape", add("Transpose", outputs, perm=(2, 0, 1, 3)), array(0, sequence.shape[1], layer.features))


def _rows(add: Add, layer: Any, leaves: dict, images: Value) -> str:
    _, height, width, channels = images.shape
    return add("Reshape", _channels_last(add, images), array(0, height, width * channels))


def _last(add: Add, layer: Any, leaves: dict, sequence: Value) -> str:
    return add("Gather", sequence.name, np.array(sequence.shape[1] - 1, np.int64), axis=1)


def _concatenate(add: Add, layer: Any, leaves: dict, *inputs: Value) -> str:
    shape = inputs[0].shape
    return add("Concat", *(value.name for value in inputs), axis=1 if len(shape) == 4 else len(shape) - 1)


def _boxes(add: Add, layer: Any, leaves: dict, outputs: Value) -> str:
    _, rows, columns, _ = outputs.shape
    cell = np.array([1 / columns, 1 / rows], np.float32)[:, None, None]
    first, last = (add("Slice", outputs.name, array(start), array(start + 2), array(1)) for start in (0, 2))
    offset = add("Mul", add("Tanh", first), 2 * cell)
    centre = add("Add", offset, np.asarray(centres(rows, columns)).transpose(2, 0, 1))
    bounded = add("Min", add("Max", last, np.float32(-6)), np.float32(6))
    half = add("Mul", add("Exp", bounded), cell)
    return add("Concat", add("Sub", centre, half), add("Add", centre, half), axis=1)


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
    layers.Concatenate: _concatenate,
    Boxes: _boxes,
    Recurrent: _recurrent,
    Rows: _rows,
    Last: _last,
}
"""By kind of layer: adds its nodes, given ``add``, the layer, its arrays by name and its inputs; returns its output."""
