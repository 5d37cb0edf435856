"""Where in an image a class is seen: Grad-CAM and integrated gradients."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cnn.errors import ConfigError
from cnn.look.features import feature_maps
from cnn.training.state import TrainState
from cnn.training.steps import apply_model, check_images, scale

INTEGRATION_STEPS = 64
"""On the way from black to the image; the paper takes 20 to 300."""


@partial(jax.jit, static_argnames="layer")
def grad_cam(state: TrainState, images: Array | np.ndarray, layer: str, labels: Array | np.ndarray) -> Array:
    """Returns how much each place of a layer's maps speaks for a class, at least 0, float32 [B, H', W'].

    Source: R. R. Selvaraju et al., Grad-CAM, arXiv:1610.02391, section 3: the maps, weighted by the mean gradients of
    the class's logit, added up, and what speaks against the class left out.

    Args:
      state: a trained state.
      images: uint8 [B, H, W, C].
      layer: name of a layer whose output has pixels, such as "conv2".
      labels: the class that is asked for, of each image, integers [B].

    Raises:
      ConfigError: there is no such layer, or it has no pixels.
    """
    maps = feature_maps(state, images)
    with_pixels = [name for name, outputs in maps.items() if outputs.ndim == 4]
    if layer not in with_pixels:
        raise ConfigError(f"--layer is {layer!r}, but must be one of {', '.join(with_pixels)}, which have pixels")
    state, inputs = state.eval_state, scale(images)

    def score(added):
        """The logits of the classes if something were added to what the layer puts out."""

        def add(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            outputs = call(*args, **kwargs)
            here = context.module.path == (layer,) and context.method_name == "__call__"
            return outputs + added.astype(outputs.dtype) if here else outputs

        with nn.intercept_methods(add):
            logits, _ = apply_model(state, state.params, inputs)
        return jnp.take_along_axis(logits, jnp.asarray(labels)[:, None], 1).sum()

    weights_BxC = jax.grad(score)(jnp.zeros_like(maps[layer])).mean((1, 2))
    return jax.nn.relu((maps[layer] * weights_BxC[:, None, None]).sum(-1))


@jax.jit
def integrated_gradients(state: TrainState, images: Array | np.ndarray, labels: Array | np.ndarray) -> Array:
    """Returns what each pixel adds to a class's logit, beside a black image, float32 [B, H, W, C].

    Source: M. Sundararajan et al., Axiomatic Attribution for Deep Networks, arXiv:1703.01365, section 3; all of an
    image's values add up to the difference of the two logits.

    Args:
      state: a trained state.
      images: uint8 [B, H, W, C].
      labels: the class that is asked for, of each image, integers [B].
    """
    check_images(state, images)
    state, inputs = state.eval_state, scale(images)

    def score(inputs):
        logits, _ = apply_model(state, state.params, inputs)
        return jnp.take_along_axis(logits, jnp.asarray(labels)[:, None], 1).sum()

    def add(total, step):
        return total + jax.grad(score)(inputs * (step + 0.5) / INTEGRATION_STEPS), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(inputs), jnp.arange(INTEGRATION_STEPS))
    return inputs * total / INTEGRATION_STEPS
