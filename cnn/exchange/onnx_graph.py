"""A network -> an ONNX graph: nodes for each kind of layer, connected by running the model's own code."""

import json
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from cnn.config import ExperimentConfig
from cnn.errors import UserError, import_extra
from cnn.exchange.onnx_detection import detections
from cnn.exchange.onnx_layers import NODES, Add, Output, Value
from cnn.resolution import model_class_names
from cnn.training.state import Spec, TrainState
from cnn.training.summary import intercept_methods, layer_table

FIRST_OPSET = 9
"""The lowest version of ONNX's operators that is tried; in the files of older ones, all constants are inputs."""


class Traced(NamedTuple):
    """A named layer, as the model's code has called it."""

    name: str
    module: Any
    leaves: dict[str, np.ndarray]
    """Its parameters and statistics by name."""
    inputs: tuple[Value, ...]
    output: Value


MoreOutputs = Callable[[Add, list[Traced], dict[str, np.ndarray], Value], dict[str, Output]]
"""Adds nodes after those of the layers, given the graph's constants by name and the logits; returns outputs by name."""


Head = Callable[[Add, Value, Spec], dict[str, Output]]
"""Adds nodes after those of the layers, given the network's output and a state's spec; returns outputs by name."""


def _probabilities(add: Add, logits: Value, spec: Spec) -> dict[str, Output]:
    name = add("Softmax", logits.name, axis=1, output="probabilities")
    return {name: Output(name, ("batch", spec.model.config.classes))}


HEADS: dict[str, Head] = {"classification": _probabilities, "detection": detections}
"""By task, what a graph gives unless it is told."""


def make_add(nodes: list[Any], constants: dict[str, np.ndarray]) -> Add:
    """Returns what adds nodes to a list, and their constants by name."""
    onnx = import_extra("onnx")
    numbers = count()

    def add(operator: str, *inputs: str | np.ndarray | np.generic, output: str = "", **attributes: Any) -> str:
        name = output or f"{operator}_{next(numbers)}"
        names = []
        for index, value in enumerate(inputs):
            if not isinstance(value, str):
                constants[f"{name}.{index}"] = np.asarray(value)
            names.append(value if isinstance(value, str) else f"{name}.{index}")
        more = [f"{name}:{index}" for index in range(1, onnx.defs.get_schema(operator).min_output)]
        nodes.append(onnx.helper.make_node(operator, names, [name, *more], "" if output else name, **attributes))
        return name

    return add


def make_graph(
    state: TrainState,
    config: ExperimentConfig,
    first_opset: int = FIRST_OPSET,
    more_outputs: MoreOutputs = lambda add, traced, constants, logits: {},
    head: Head | None = None,
) -> Any:
    """Returns the network as an ``onnx.ModelProto`` that maps images to probabilities, or to what a detector finds.

    Its input ``images`` is uint8 [B, H, W, C] for any B, its output ``probabilities`` float32 [B, K], as in
    ``cnn.predict``; a detector's are ``boxes``, ``scores`` and ``classes``, as in ``cnn.detect``. It computes in
    float32, for a bfloat16 model too. It declares the lowest opset that has all of its operators, with the lowest IR
    version of it. Its metadata has ``name`` and, as JSON, ``class_names``.

    Args:
      state: a state; its EMA is exported if it is kept.
      config: the run's configuration.
      first_opset: the lowest opset that is tried.
      more_outputs: adds outputs after those.
      head: adds those; None for the one of the network's task.

    Raises:
      UserError: the package onnx is missing, a kind of layer is not supported, or one's own network computes outside
        of its layers.
    """
    onnx = import_extra("onnx")
    state = state.eval_state
    shapes = {row.name: row.output_shape for row in layer_table(state)}
    nodes, constants = [], {}
    add = make_add(nodes, constants)
    traced: list[Traced] = []

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
        variables, given = {"params": state.params, "batch_stats": state.batch_stats}, state.spec.image_shape
        output = _apply(state.spec.model, variables, Value(channels_first, (None, *given)))
    outputs = (head or HEADS[state.spec.task.name])(add, output, state.spec)
    outputs |= more_outputs(add, traced, constants, output)
    for name, (source, _, _) in outputs.items():
        if source != name:
            nodes.append(onnx.helper.make_node("Identity", [source], [name], name))
    described = [
        onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, type), shape)
        for name, (_, shape, type) in outputs.items()
    ]
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["batch", *state.spec.image_shape])
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, type(state.spec.model).__name__, [images], described, tensors)
    metadata = {"name": config.name, "class_names": json.dumps(model_class_names(config))}
    return _lowest_opset(onnx, graph, metadata, first_opset)


def _apply(model: Any, variables: Any, images: Value) -> Value:
    """What a network's own code returns for a value in place of images; a user's may compute outside of its layers."""
    why: Exception | None = None
    try:
        if isinstance(output := model.apply(variables, images, train=False), Value):
            return output
    except (AttributeError, TypeError) as error:
        why = error
    raise UserError(
        f"{type(model).__name__} computes outside of its named layers, which the ONNX export does not support; use "
        "those of cnn.models.layers, such as Flatten, Add and Concatenate, or export as stablehlo"
    ) from why


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
