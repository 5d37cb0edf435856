"""Layer activations by name."""

from collections import OrderedDict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cnn.look.batches import by_batches
from cnn.training.border import Jitted, call_padded, is_on_host, power_of_two
from cnn.training.state import TrainState
from cnn.training.task import check_images, scale


def _layers(module, method_name: str) -> bool:
    """Selects the named layers, neither their submodules nor the model around them."""
    return method_name == "__call__" and len(module.path) == 1


@jax.jit
def _feature_maps(state: TrainState, images: Array | np.ndarray) -> OrderedDict[str, Array]:
    """Returns every layer's output by name, after its activation function, in the order of computation.

    Args:
      state: a trained or untrained state.
      images: uint8 [B, H, W, C].

    Returns:
      ``{"conv1": [B, 28, 28, 32], "pool1": [B, 14, 14, 32], "conv2": [B, 14, 14, 64], ...}``, float32.
    """
    return _logits_and_maps(state, images)[1]


def _logits_and_maps(state: TrainState, images: Array | np.ndarray) -> tuple[Array, OrderedDict[str, Array]]:
    """The logits [B, K], and every layer's output as of ``_feature_maps``."""
    check_images(state.spec, images)
    state = state.eval_state
    captured: Any = state.spec.model.apply(
        {"params": state.params, "batch_stats": state.batch_stats},
        scale(images),
        train=False,
        capture_intermediates=_layers,
        mutable="intermediates",
    )
    # An OrderedDict, as jit would sort a dict's keys.
    return captured[0], OrderedDict(
        (name, _as_float32(outputs["__call__"][0])) for name, outputs in captured[1]["intermediates"].items()
    )


def _as_float32(outputs: Array) -> Array:
    """The outputs in float32; within a program, XLA may leave out their rounding to bfloat16 (jax-ml/jax#23007)."""
    dtype = jnp.finfo(outputs.dtype)
    return lax.reduce_precision(outputs.astype(jnp.float32), dtype.nexp, dtype.nmant)


def _padded_maps(state: TrainState, images: Array | np.ndarray) -> OrderedDict[str, Array]:
    check_images(state.spec, images)
    if not is_on_host(state, images):
        return _feature_maps(state, images)
    return call_padded(_feature_maps, state, images, power_of_two(len(images)))


feature_maps = Jitted(_feature_maps, _padded_maps)


@partial(jax.jit, static_argnames="layer")
def layer_outputs(state: TrainState, images_BxHxWxC: Array | np.ndarray, layer: str) -> Array:
    """Returns one layer's output as ``feature_maps`` does, for many images: the others are not kept in memory."""
    return feature_maps(state, images_BxHxWxC)[layer]


POOLED_PIXELS = 2048 * 28 * 28
"""Maximum number of pixels of the images whose pooled outputs are computed at a time."""


@partial(jax.jit, static_argnames="layers")
def _pooled_outputs(state: TrainState, images_BxHxWxC: Any, layers: tuple[str, ...]) -> tuple[Array, dict[str, Array]]:
    logits_BxK, maps = _logits_and_maps(state, images_BxHxWxC)
    # The mean over pixels, or tokens; a layer without them has only the axis of its units.
    return logits_BxK, {name: maps[name].mean(tuple(range(1, maps[name].ndim - 1))) for name in layers}


def pooled_outputs(
    state: TrainState, images_NxHxWxC: np.ndarray, layers: tuple[str, ...]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the logits [N, K] of any number of images, and by name the channel means [N, F] of some layers' outputs.

    One pass computes both. A handful of programs serve all numbers of images: the last batch is padded.
    """
    count, height, width = images_NxHxWxC.shape[:3]
    largest = power_of_two(max(1, POOLED_PIXELS // (height * width)) + 1) // 2
    size = min(power_of_two(count), largest)

    def outputs(images_BxHxWxC):
        return jax.device_get(call_padded(partial(_pooled_outputs, layers=layers), state, images_BxHxWxC, size))

    return by_batches(outputs, size * height * width, images_NxHxWxC)
