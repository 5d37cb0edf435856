"""Attention of a vision transformer: which tokens each head of each block looks at."""

import math
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cnn.models.layers import Attention, queries_keys_values
from cnn.training.state import TrainState
from cnn.training.steps import apply_model
from cnn.training.summary import intercept_methods
from cnn.training.task import check_images, scale


@jax.jit
def attention_maps(state: TrainState, images_BxHxWxC: Array | np.ndarray) -> OrderedDict[str, Array]:
    """Returns the attention of each token to each other one, by block, in the order of computation.

    Args:
      state: a trained or untrained state.
      images_BxHxWxC: uint8.

    Returns:
      ``{"block1": [B, heads, T, T], ...}``, float32; each row sums to 1, over the tokens that are attended to. {} for
      a network without attention.
    """
    return _attention(state, images_BxHxWxC, lambda attention_BxHxTxT: attention_BxHxTxT)


@jax.jit
def received_attention(state: TrainState, images_BxHxWxC: Array | np.ndarray) -> OrderedDict[str, Array]:
    """Returns the attention to each token, averaged over all tokens as queries: those whose mean is classified.

    Args:
      state: a trained or untrained state.
      images_BxHxWxC: uint8.

    Returns:
      ``{"block1": [B, heads, T], ...}``, float32; each row sums to 1. {} for a network without attention.
    """
    return _attention(state, images_BxHxWxC, lambda attention_BxHxTxT: attention_BxHxTxT.mean(2))


def _attention(state, images_BxHxWxC, keep):
    """What ``keep`` returns of each attention layer's probabilities, which no layer returns, by name of its block."""
    check_images(state.spec, images_BxHxWxC)
    state, kept = state.eval_state, OrderedDict()

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if isinstance(layer, Attention) and context.method_name == "__call__":
            queries, keys, _ = queries_keys_values(args[0], layer.heads)
            products = jnp.einsum("bthd,bshd->bhts", queries, keys, preferred_element_type=jnp.float32)
            attention_BxHxTxT = jax.nn.softmax(products / math.sqrt(queries.shape[-1]))
            kept["/".join(layer.path).removesuffix("_attention")] = keep(attention_BxHxTxT)
        return call(*args, **kwargs)

    with intercept_methods(record):
        apply_model(state, state.params, scale(images_BxHxWxC))
    return kept
