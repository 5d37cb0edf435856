"""Attribution: where in an image a network sees a class, by Grad-CAM and integrated gradients."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cnn.errors import ConfigError
from cnn.look.features import feature_maps
from cnn.training.state import TrainState
from cnn.training.steps import apply_model, check_images, scale
from cnn.training.summary import intercept_methods

INTEGRATION_STEPS = 64
"""Steps from black to the image; the paper takes 20 to 300."""


@partial(jax.jit, static_argnames="layer")
def grad_cam(state: TrainState, images_BxHxWxC: Array | np.ndarray, layer: str, labels_B: Array | np.ndarray) -> Array:
    """Returns the evidence for a class at each pixel of a layer's maps, at least 0, float32 [B, H', W'].

    Source: R. R. Selvaraju et al., Grad-CAM, arXiv:1610.02391, section 3: the sum of the maps, weighted by the mean
    gradients of the class's logit, with evidence against the class set to 0.

    Args:
      state: a trained state.
      images_BxHxWxC: uint8.
      layer: name of a layer whose output has pixels, such as "conv2".
      labels_B: the class to explain in each image, integers.

    Raises:
      ConfigError: there is no such layer, or its output has no pixels.
    """
    maps = feature_maps(state, images_BxHxWxC)
    with_pixels = [name for name, outputs in maps.items() if outputs.ndim == 4]
    if layer not in with_pixels:
        raise ConfigError(f"--layer is {layer!r}, but must be one of {', '.join(with_pixels)}, which have pixels")
    maps_BxHxWxC, state, inputs_BxHxWxC = maps[layer], state.eval_state, scale(images_BxHxWxC)

    def class_logits(offsets_BxHxWxC):
        """The sum of the classes' logits after offsets are added to the layer's output."""

        def add_offsets(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            outputs = call(*args, **kwargs)
            is_layer = context.module.path == (layer,) and context.method_name == "__call__"
            return outputs + offsets_BxHxWxC.astype(outputs.dtype) if is_layer else outputs

        with intercept_methods(add_offsets):
            logits_BxK, _ = apply_model(state, state.params, inputs_BxHxWxC)
        return jnp.take_along_axis(logits_BxK, jnp.asarray(labels_B)[:, None], 1).sum()

    weights_BxC = jax.grad(class_logits)(jnp.zeros_like(maps_BxHxWxC)).mean((1, 2))
    return jax.nn.relu((maps_BxHxWxC * weights_BxC[:, None, None]).sum(-1))


@jax.jit
def integrated_gradients(state: TrainState, images_BxHxWxC: Array | np.ndarray, labels_B: Array | np.ndarray) -> Array:
    """Returns each pixel's contribution to a class's logit, relative to a black image, float32 [B, H, W, C].

    Source: M. Sundararajan et al., Axiomatic Attribution for Deep Networks, arXiv:1703.01365, section 3; an image's
    values sum to the difference of the two logits.

    Args:
      state: a trained state.
      images_BxHxWxC: uint8.
      labels_B: the class to explain in each image, integers.
    """
    check_images(state, images_BxHxWxC)
    state, inputs_BxHxWxC = state.eval_state, scale(images_BxHxWxC)

    def class_logits(inputs_BxHxWxC):
        logits_BxK, _ = apply_model(state, state.params, inputs_BxHxWxC)
        return jnp.take_along_axis(logits_BxK, jnp.asarray(labels_B)[:, None], 1).sum()

    def add(total_BxHxWxC, step):
        return total_BxHxWxC + jax.grad(class_logits)(inputs_BxHxWxC * (step + 0.5) / INTEGRATION_STEPS), None

    total_BxHxWxC, _ = jax.lax.scan(add, jnp.zeros_like(inputs_BxHxWxC), jnp.arange(INTEGRATION_STEPS))
    return inputs_BxHxWxC * total_BxHxWxC / INTEGRATION_STEPS
