"""A network for a page: ONNX with the outputs of every layer, its kernels and Grad-CAM, and the facts of each layer."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cnn.config import ExperimentConfig
from cnn.exchange.onnx_graph import Traced, make_graph
from cnn.exchange.onnx_layers import Add, Output, Value
from cnn.models import layers
from cnn.models.recurrent import Recurrent
from cnn.training.state import TrainState

ACTIVATIONS = {nn.relu: "relu", nn.swish: "swish", nn.gelu: "gelu", jax.nn.sigmoid: "sigmoid"}
"""The names of the activation functions that a layer may have."""


class WebGraph(NamedTuple):
    """What a page needs of a network."""

    model: Any
    """An ``onnx.ModelProto``: ``make_graph`` with further outputs.

    They are ``layers/L``, the output of each named layer after its activation, channels first; ``kernels/L`` and
    ``biases/L`` as in ``params``; and ``grad_cam`` [B, H', W'] of the predicted class, for the layer that is named.
    """
    layers: list[dict[str, Any]]
    """The facts of each layer for JSON, in the order of computation."""
    grad_cam: str | None
    """Name of the layer whose maps Grad-CAM weights; None if the graph has no Grad-CAM."""


def web_graph(state: TrainState, config: ExperimentConfig) -> WebGraph:
    """Returns a network for a page.

    Args:
      state: a state; its EMA is used if it is kept.
      config: the run's configuration.

    Raises:
      UserError: as in ``make_graph``.
    """
    layer_facts: list[dict[str, Any]] = []
    explained: list[str] = []

    def more_outputs(
        add: Add, traced: list[Traced], constants: dict[str, np.ndarray], logits: Value
    ) -> dict[str, Output]:
        by_name: dict[str, Traced] = {}
        for layer in traced:
            # Of a layer that is called twice, the first output, as in feature_maps.
            by_name.setdefault(layer.name, layer)
        layer_facts.extend(_facts(by_name))
        outputs = {f"layers/{name}": _output(layer.output) for name, layer in by_name.items()}
        for name, layer in by_name.items():
            for leaf, group in (("kernel", "kernels"), ("bias", "biases")):
                # A recurrent layer's gates are in another order in the graph.
                if "kernel" in layer.leaves and leaf in layer.leaves and not isinstance(layer.module, Recurrent):
                    outputs[f"{group}/{name}"] = _parameters(add, constants, layer.leaves[leaf])
        chain = _chain(by_name, logits) if len(by_name) == len(traced) else []
        if chain:
            explained.append(chain[0].inputs[0].layer or "")
            outputs["grad_cam"] = _grad_cam(add, constants, chain)
        return outputs

    model = make_graph(state, config, more_outputs=more_outputs)
    return WebGraph(model, layer_facts, explained[0] if explained else None)


def _output(value: Value) -> Output:
    _, *sizes = value.shape
    if len(sizes) == 3:
        sizes = sizes[2:] + sizes[:2]
    return Output(value.name, ("batch", *sizes))


def _constant(constants: dict[str, np.ndarray], leaf: np.ndarray) -> str:
    """The name of the constant that holds a parameter, in whatever layout."""
    return next(name for name, array in constants.items() if np.shares_memory(array, leaf))


def _parameters(add: Add, constants: dict[str, np.ndarray], leaf: np.ndarray) -> Output:
    """A parameter in the model's layout, of which the graph holds one copy."""
    name = _constant(constants, leaf)
    # Kernels of convolutions are [H, W, C, F] in the model, and [F, C, H, W] in the graph.
    return Output(add("Transpose", name, perm=(2, 3, 1, 0)) if leaf.ndim == 4 else name, leaf.shape)


def _facts(by_name: dict[str, Traced]) -> list[dict[str, Any]]:
    """What ``network.json`` says of each layer."""
    grids: dict[str, list[int] | None] = {}
    facts = []
    for name, (_, module, leaves, inputs, output) in by_name.items():
        kernel, channels = leaves.get("kernel"), inputs[0].shape[-1]
        if isinstance(module, Recurrent):
            kernel = None
        if isinstance(module, layers.PositionEmbedding):
            grids[name] = list(inputs[0].shape[1:3])
        else:
            # As many tokens as those of the embedding, in its order.
            grids[name] = grids.get(inputs[0].layer or "") if len(output.shape) == 3 else None
        fact = {
            "name": name,
            "kind": type(module).__name__,
            "shape": list(output.shape[1:]),
            "inputs": [value.layer for value in inputs],
            "grid": grids[name],
            "kernel": None if kernel is None else list(kernel.shape),
            # Not that of a normalization.
            "bias": kernel is not None and "bias" in leaves,
            "activation": ACTIVATIONS.get(getattr(module, "activation", None)),
        }
        if isinstance(module, layers.Conv | layers.DepthwiseConv):
            assert kernel is not None
            padding, groups = getattr(module, "padding", "SAME"), channels // kernel.shape[2]
            fact |= {"strides": list(module.strides), "padding": padding, "groups": groups}
        if isinstance(module, layers.MaxPool):
            fact["window"] = list(module.window)
        facts.append(fact)
    return facts


def _chain(by_name: dict[str, Traced], logits: Value) -> list[Traced]:
    """The layers from the last one with pixels, without it, to the logits, each fed by the one before.

    [] if another layer is among them than those whose gradient ``_grad_cam`` writes.
    """
    last = by_name.get(logits.layer or "")
    if not last or last.output.name != logits.name:
        return []
    chain = [last]
    if not isinstance(last.module, layers.Dense) or last.module.activation is not None:
        return []
    while True:
        layer = chain[0]
        before = layer.inputs[0]
        pools = isinstance(layer.module, layers.Flatten | layers.GlobalAveragePool)
        if before.layer not in by_name or (pools and len(before.shape) != 4):
            return []
        if pools:
            return chain
        is_relu = isinstance(layer.module, layers.Dense) and layer.module.activation in (None, nn.relu)
        if len(before.shape) != 2 or not (is_relu or isinstance(layer.module, layers.Dropout)):
            return []
        chain.insert(0, by_name[before.layer])


def _grad_cam(add: Add, constants: dict[str, np.ndarray], chain: list[Traced]) -> Output:
    """Adds Grad-CAM of the predicted class: ``cnn.look.attribution.grad_cam`` with the gradient written as nodes.

    Args:
      add: adds a node.
      constants: of the graph, by name.
      chain: the layers from the maps to the logits.
    """
    pool, *hidden, logits = chain
    kernel_FxK = _constant(constants, logits.leaves["kernel"])
    predicted_B = add("ArgMax", logits.output.name, axis=1, keepdims=0)
    gradient_BxF = add("Transpose", add("Gather", kernel_FxK, predicted_B, axis=1), perm=(1, 0))
    for layer in reversed(hidden):
        if "kernel" in layer.leaves:
            if layer.module.activation is not None:
                is_active = add("Greater", layer.output.name, np.float32(0))
                gradient_BxF = add("Where", is_active, gradient_BxF, np.float32(0))
            kernel = _constant(constants, layer.leaves["kernel"])
            gradient_BxF = add("Gemm", gradient_BxF, kernel, np.float32(0), transB=1)
    maps = pool.inputs[0]
    _, height, width, channels = maps.shape
    if isinstance(pool.module, layers.Flatten):
        gradient_BxHxWxC = add("Reshape", gradient_BxF, np.array([0, height, width, channels]))
        gradient_BxCxHxW = add("Transpose", gradient_BxHxWxC, perm=(0, 3, 1, 2))
        weights_BxC = add("Flatten", add("GlobalAveragePool", gradient_BxCxHxW), axis=1)
    else:
        weights_BxC = add("Div", gradient_BxF, np.float32(height * width))
    weights_Bx1xC = add("Reshape", weights_BxC, np.array([0, 1, channels]))
    maps_BxCxP = add("Reshape", maps.name, np.array([0, 0, height * width]))
    sums_BxHxW = add("Reshape", add("MatMul", weights_Bx1xC, maps_BxCxP), np.array([0, height, width]))
    return Output(add("Relu", sums_BxHxW), ("batch", height, width))
