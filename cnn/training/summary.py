"""The layer table: what each layer takes, gives, holds and costs."""

from math import prod
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.training.state import TrainState
from cnn.training.steps import apply_model


class LayerRow(NamedTuple):
    """A layer; None in a shape is the batch."""

    name: str
    kind: str
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    parameters: int
    """Number of trainable values."""
    flops: int
    """Floating-point operations of the forward pass of one image: a multiplication and an addition are two."""


def _flops(kind: str, layer_params: dict, output_shape: tuple[int, ...]) -> int:
    """Products with the kernel, and of tokens with each other; all else in these networks is small beside them.

    Each output value sums over all of the kernel but its last axis, and adds a bias.
    """
    if kind == "Attention":
        return 4 * output_shape[1] * prod(output_shape[1:])
    if "kernel" not in layer_params:
        return 0
    terms = prod(layer_params["kernel"].shape[:-1])
    return prod(output_shape[1:]) * (2 * terms + ("bias" in layer_params))


def layer_table(state: TrainState) -> list[LayerRow]:
    """Returns a row per named layer, in the order in which they are computed; nothing is computed to find out."""
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

    with nn.intercept_methods(record):
        images = jax.ShapeDtypeStruct((1, *state.spec.image_shape), jnp.float32)
        jax.eval_shape(lambda state, images: apply_model(state, state.params, images), state, images)
    return rows


def first_convolution(rows: list[LayerRow]) -> str | None:
    """Returns the name of the first layer whose kernels see pixels, or None if there is none."""
    return next((row.name for row in rows if row.kind == "Conv"), None)


def flattened_pixels(rows: list[LayerRow]) -> tuple[str, tuple[int, int, int]] | None:
    """Returns the name of the layer whose kernel sees pixels in a row, and their height, width and channels."""
    after_flatten = iter(rows)
    for row in after_flatten:
        if row.kind == "Flatten":
            shape: Any = row.input_shape[1:]
            return next(after.name for after in after_flatten if after.parameters), shape
    return None


def last_hidden_layer(rows: list[LayerRow]) -> str:
    """Returns the name of the layer whose outputs the logits are made of, which dropout leaves as they are."""
    return [row.name for row in rows[:-1] if row.kind != "Dropout"][-1]


def format_table(rows: list[LayerRow], title: str) -> str:
    """Returns the table as text, as Keras' ``summary()`` prints it, with the FLOPs added."""
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
