"""The layer table: shapes, parameters and FLOPs of each layer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.rules import checked, instance
from cnn.training.state import TrainState
from cnn.training.steps import apply_model


class LayerRow(NamedTuple):
    """One layer; None in a shape is the batch size."""

    name: str
    kind: str
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    parameters: int
    """Number of trainable parameters."""
    flops: int
    """Floating-point operations of the forward pass of one image; a multiplication and an addition are two."""


def _flops(kind: str, layer_params: dict, output_shape: tuple[int, ...]) -> int:
    """FLOPs of the products with the kernel and between tokens; all others in these networks are few in comparison.

    Each output value is a sum over all axes of the kernel but the last, plus a bias.
    """
    if kind == "Attention":
        return 4 * output_shape[1] * prod(output_shape[1:])
    if kind == "Recurrent":
        return 2 * output_shape[1] * sum(layer_params[name].size for name in ("kernel", "recurrent_kernel"))
    if "kernel" not in layer_params:
        return 0
    terms = prod(layer_params["kernel"].shape[:-1])
    return prod(output_shape[1:]) * (2 * terms + ("bias" in layer_params))


@contextmanager
def intercept_methods(interceptor: Callable[..., Any]) -> Iterator[None]:
    """Within the block, calls Flax's methods through a function, as ``nn.intercept_methods`` does.

    Flax removes its interceptor in an assert statement, which ``python -O`` leaves out; this one does nothing then.
    """
    active = True

    def intercepted(call, args, kwargs, context):
        return interceptor(call, args, kwargs, context) if active else call(*args, **kwargs)

    with nn.intercept_methods(intercepted):
        try:
            yield
        finally:
            active = False


@checked(state=instance(TrainState))
def layer_table(state: TrainState) -> list[LayerRow]:
    """Returns a row per named layer, in the order of computation; the network is traced, but not run."""
    rows = []

    def record(call, args, kwargs, context):
        outputs = call(*args, **kwargs)
        if context.method_name == "__call__" and len(context.module.path) == 1:
            name, kind = context.module.path[0], type(context.module).__name__
            layer_params = state.params.get(name, {})
            rows.append(
                LayerRow(
                    name,
                    kind,
                    (None, *args[0].shape[1:]),
                    (None, *outputs.shape[1:]),
                    sum(leaf.size for leaf in jax.tree.leaves(layer_params)),
                    _flops(kind, layer_params, outputs.shape),
                )
            )
        return outputs

    with intercept_methods(record):
        inputs = jax.ShapeDtypeStruct((1, *state.spec.image_shape), jnp.float32)
        jax.eval_shape(lambda state, inputs_BxHxWxC: apply_model(state, state.params, inputs_BxHxWxC), state, inputs)
    return rows


def first_convolution(rows: list[LayerRow]) -> str | None:
    """Returns the name of the first convolution, or None without convolutions."""
    return next((row.name for row in rows if row.kind == "Conv"), None)


def flattened_pixels(rows: list[LayerRow]) -> tuple[str, tuple[int, int, int]] | None:
    """Returns the name of the dense layer after the flattening, and the height, width and channels that it flattens."""
    after_flatten = iter(rows)
    for row in after_flatten:
        if row.kind == "Flatten":
            shape: Any = row.input_shape[1:]
            return next(after.name for after in after_flatten if after.parameters), shape
    return None


def last_hidden_layer(rows: list[LayerRow]) -> str:
    """Returns the name of the last hidden layer (the input of the logits, before dropout), or of the only layer."""
    return next((row.name for row in reversed(rows[:-1]) if row.kind != "Dropout"), rows[-1].name)


def format_table(rows: list[LayerRow], title: str) -> str:
    """Returns the table as text, like Keras' ``summary()``, with a column of FLOPs."""
    cells = [("Layer (type)", "Output shape", "Parameters", "FLOPs")]
    cells += [
        (f"{row.name} ({row.kind})", str(row.output_shape), f"{row.parameters:,}", f"{row.flops:,}") for row in rows
    ]
    parameters, flops = sum(row.parameters for row in rows), sum(row.flops for row in rows)
    cells.append(("Total", "", f"{parameters:,}", f"{flops:,}"))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in cells]
    rule = "─" * len(lines[0])
    megabytes = parameters * 4 / 2**20
    closing = f"{parameters:,} parameters, {megabytes:.2f} MiB; FLOPs of the forward pass, per image"
    return "\n".join([title, rule, lines[0], rule, *lines[1:-1], rule, lines[-1], rule, closing, ""])
