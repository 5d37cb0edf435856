"""Attribution: where in an image a network sees a class, by four methods.

Integrated gradients and occlusion measure what pixels contribute relative to black ones.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cnn.errors import ConfigError
from cnn.look.features import feature_maps
from cnn.training.border import predict
from cnn.training.state import TrainState
from cnn.training.steps import apply_model
from cnn.training.summary import intercept_methods
from cnn.training.task import check_images, scale

INTEGRATION_STEPS = 32
"""Steps from black to the image; the paper takes 20 to 300."""

SAMPLES, NOISE = 25, 0.15
"""Number of noisy images of SmoothGrad, and their noise's standard deviation as a share of the image's range of values;
the paper takes 10 to 20 % and sees little change beyond 50 images."""

NOISE_SEED = 0
"""Seed of the noise, so that an image has one explanation."""

WINDOWS_PER_SIDE = 4
"""Occlusion's window has a side of the image's divided by this; the stride is half of the window."""


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

    def offset_logits(offsets_BxHxWxC):
        """The sum of the classes' logits after offsets are added to the layer's output."""

        def add_offsets(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            outputs = call(*args, **kwargs)
            is_layer = context.module.path == (layer,) and context.method_name == "__call__"
            return outputs + offsets_BxHxWxC.astype(outputs.dtype) if is_layer else outputs

        with intercept_methods(add_offsets):
            return _class_logits(state, labels_B, inputs_BxHxWxC)

    weights_BxC = jax.grad(offset_logits)(jnp.zeros_like(maps_BxHxWxC)).mean((1, 2))
    return jax.nn.relu((maps_BxHxWxC * weights_BxC[:, None, None]).sum(-1))


def integrated_gradients(state: TrainState, images_BxHxWxC: Array | np.ndarray, labels_B: Array | np.ndarray) -> Array:
    """Returns each pixel's contribution to a class's logit, relative to a black image, float32 [B, H, W, C].

    Source: M. Sundararajan et al., Axiomatic Attribution for Deep Networks, arXiv:1703.01365, section 3; an image's
    values sum to the difference of the two logits.

    Args:
      state: a trained state.
      images_BxHxWxC: uint8.
      labels_B: the class to explain in each image, integers.
    """
    return scale(images_BxHxWxC) * _mean_gradient(state, images_BxHxWxC, labels_B, INTEGRATION_STEPS, 0.0)


def smooth_grad(state: TrainState, images_BxHxWxC: Array | np.ndarray, labels_B: Array | np.ndarray) -> Array:
    """Returns the gradient of a class's logit, averaged over noisy copies of the image, float32 [B, H, W, C].

    Source: D. Smilkov et al., SmoothGrad, arXiv:1706.03825, section 3. The noise is the same for all images of a batch.

    Args:
      state: a trained state.
      images_BxHxWxC: uint8.
      labels_B: the class to explain in each image, integers.
    """
    return _mean_gradient(state, images_BxHxWxC, labels_B, SAMPLES, NOISE)


@jax.jit
def _mean_gradient(state, images_BxHxWxC, labels_B, count, noise):
    """The gradients of the classes' logits, averaged over inputs between black and the image, or with noise if not 0.

    One function, as its program takes seconds to compile.
    """
    check_images(state.spec, images_BxHxWxC)
    inputs_BxHxWxC, key = scale(images_BxHxWxC), jax.random.key(NOISE_SEED)
    extremes = (extreme(inputs_BxHxWxC, (1, 2, 3), keepdims=True) for extreme in (jnp.max, jnp.min))
    deviation_Bx1x1x1 = noise * jnp.subtract(*extremes)
    gradient = jax.grad(partial(_class_logits, state.eval_state, labels_B))

    def add(step, total_BxHxWxC):
        share = jnp.where(noise > 0, 1.0, (step + 0.5) / count)
        noise_HxWxC = jax.random.normal(jax.random.fold_in(key, step), inputs_BxHxWxC.shape[1:])
        return total_BxHxWxC + gradient(share * inputs_BxHxWxC + deviation_Bx1x1x1 * noise_HxWxC)

    return lax.fori_loop(0, count, add, jnp.zeros_like(inputs_BxHxWxC)) / count


def _class_logits(state: TrainState, labels_B: Array | np.ndarray, inputs_BxHxWxC: Array) -> Array:
    """The sum of the classes' logits, one of each image, whose gradient by an image is that of its own."""
    logits_BxK, _ = apply_model(state, state.params, inputs_BxHxWxC)
    return jnp.take_along_axis(logits_BxK, jnp.asarray(labels_B)[:, None], 1).sum()


def occlusion(state: TrainState, images_BxHxWxC: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
    """Returns how much a class's probability falls when a black window covers a pixel, float32 [B, H, W].

    That is the mean over the positions of the window that cover the pixel. Windows overlap by half, and the last ones
    end at the edges.

    Source: M. D. Zeiler and R. Fergus, arXiv:1311.2901, section 4.2, where the window is grey.

    Args:
      state: a trained state.
      images_BxHxWxC: uint8.
      labels_B: the class to explain in each image, integers.
    """
    rows_PxH, columns_QxW = map(_windows, images_BxHxWxC.shape[1:3])
    uncovered = ~(rows_PxH[:, None, :, None] & columns_QxW[None, :, None, :]).reshape(-1, 1, *images_BxHxWxC.shape[1:3])
    kept = np.concatenate([np.ones_like(uncovered[:1]), uncovered])
    whole_1xB, covered = np.split(probabilities_with(state, images_BxHxWxC, labels_B, kept), [1])
    falls_PxQxB = (whole_1xB - covered).reshape(len(rows_PxH), len(columns_QxW), -1)
    sums_BxHxW = np.einsum("pqb,ph,qw->bhw", falls_PxQxB, rows_PxH, columns_QxW)
    return sums_BxHxW / np.float32(rows_PxH.sum(0)[:, None] * columns_QxW.sum(0))


def _windows(side: int) -> np.ndarray:
    """The positions of occlusion's window along a side of an image: rows that are True where it covers, [P, side]."""
    window = max(1, round(side / WINDOWS_PER_SIDE))
    stride = max(1, window // 2)
    starts = np.minimum(np.arange(0, side - window + stride, stride), side - window)
    pixels = np.arange(side) - starts[:, None]
    return (pixels >= 0) & (pixels < window)


def probabilities_with(
    state: TrainState, images_BxHxWxC: np.ndarray, labels_B: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    """Returns a class's probability in images of which some pixels are black, float32 [N, B].

    Args:
      state: a trained state.
      images_BxHxWxC: uint8.
      labels_B: the class in each image, integers.
      kept: N times the pixels that are not black, of each image or of all, bool [N, B or 1, H, W].
    """
    masked = (images_BxHxWxC * kept[..., None]).reshape(-1, *images_BxHxWxC.shape[1:])
    probabilities = np.asarray(predict(state, masked)).reshape(len(kept), len(labels_B), -1)
    return np.take_along_axis(probabilities, np.asarray(labels_B)[None, :, None], 2)[..., 0]


def explanations(
    state: TrainState, images_BxHxWxC: np.ndarray, labels_B: np.ndarray, layer: str | None
) -> dict[str, np.ndarray]:
    """Returns, by method, how much each pixel matters for a class, float32 [B, H, W].

    Grad-CAM is resized to the image. The contributions of a pixel's channels are summed; of SmoothGrad, which says how
    sensitive the logit is, it is their magnitudes, as in its paper.

    Args:
      state: a trained state.
      images_BxHxWxC: uint8.
      labels_B: the class to explain in each image, integers.
      layer: for Grad-CAM; left out if None.

    Raises:
      ConfigError: there is no such layer, or its output has no pixels.
    """
    arguments = state, images_BxHxWxC, labels_B
    maps: dict[str, Any] = {}
    if layer:
        cam = grad_cam(state, images_BxHxWxC, layer, labels_B)
        maps["Grad-CAM"] = jax.image.resize(cam, images_BxHxWxC.shape[:3], "linear")
    maps["Integrated gradients"] = integrated_gradients(*arguments).sum(-1)
    maps["SmoothGrad"] = jnp.abs(smooth_grad(*arguments)).sum(-1)
    maps["Occlusion"] = occlusion(*arguments)
    return {name: np.asarray(values) for name, values in maps.items()}
