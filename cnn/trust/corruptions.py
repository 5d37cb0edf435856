"""Corruptions of images at five severities, on the device: what a camera, a scanner or a hand does to a picture.

The idea, and some of the strengths, are those of ImageNet-C: D. Hendrycks and T. Dietterich, Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations, arXiv:1903.12261, section 4. Strengths that are lengths are
shares of the image's side, so that a severity means the same for 28 and for 224 pixels; what is moved is filled with
black.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from cnn.errors import DataError
from cnn.rules import Rule, checked, one_of
from cnn.training.augment import rectangles
from cnn.training.photos import rotations, warp
from cnn.trust.jpeg import jpeg


class Corruption(NamedTuple):
    """A function of images from 0 to 1, its strength and a key, and its strengths by severity."""

    function: Callable[[Array, Array, Array], Array]
    strengths: tuple[float, ...]
    """From severity 1; of one that is not a matter of degree, only one."""


def noise(images_BxHxWxC: Array, strength: Array, key: Array) -> Array:
    """Returns images with Gaussian noise; the strength is its standard deviation."""
    return images_BxHxWxC + strength * random.normal(key, images_BxHxWxC.shape)


def blur(images_BxHxWxC: Array, strength: Array, key: Array) -> Array:
    """Returns images smoothed by a Gaussian, without what is outside; its standard deviation is a share of the side."""
    _, height, width, _ = images_BxHxWxC.shape
    sigma = strength * min(height, width)

    def weights(size):
        offsets = jnp.arange(size)[:, None] - jnp.arange(size)
        weights = jnp.exp(-((offsets / sigma) ** 2) / 2)
        return weights / weights.sum(1, keepdims=True)

    return jnp.einsum("hi,bijc,wj->bhwc", weights(height), images_BxHxWxC, weights(width), precision="highest")


def contrast(images_BxHxWxC: Array, strength: Array, key: Array) -> Array:
    """Returns images nearer to the mean of each channel; the strength is the share of the contrast that is left."""
    means = images_BxHxWxC.mean((1, 2), keepdims=True)
    return means + strength * (images_BxHxWxC - means)


def brightness(images_BxHxWxC: Array, strength: Array, key: Array) -> Array:
    """Returns brighter images; the strength is added."""
    return images_BxHxWxC + strength


def _moved(images_BxHxWxC: Array, matrices_Bx2x2: Array, shifts_Bx2: Array | None = None) -> Array:
    shifts = jnp.zeros((len(images_BxHxWxC), 2)) if shifts_Bx2 is None else shifts_Bx2
    return warp(images_BxHxWxC, matrices_Bx2x2, shifts)


def shift(images_BxHxWxC: Array, strength: Array, key: Array) -> Array:
    """Returns images moved up or down, and left or right, by a share of height and width, in whole pixels."""
    batch, *size, _ = images_BxHxWxC.shape
    signs_Bx2 = random.rademacher(key, (batch, 2), jnp.float32)
    pixels_2 = jnp.round(strength * np.array(size))
    return _moved(images_BxHxWxC, jnp.tile(jnp.eye(2), (batch, 1, 1)), signs_Bx2 * pixels_2)


def rotation(images_BxHxWxC: Array, strength: Array, key: Array) -> Array:
    """Returns images rotated about their centers by a number of degrees, in either direction."""
    signs_B = random.rademacher(key, (len(images_BxHxWxC),), jnp.float32)
    return _moved(images_BxHxWxC, rotations(signs_B * jnp.deg2rad(strength)))


def scale(images_BxHxWxC: Array, strength: Array, key: Array) -> Array:
    """Returns images enlarged about their centers by a factor, or reduced by it."""
    signs_B = random.rademacher(key, (len(images_BxHxWxC),), jnp.float32)
    return _moved(images_BxHxWxC, strength ** signs_B[:, None, None] * jnp.eye(2))


def occlusion(images_BxHxWxC: Array, strength: Array, key: Array) -> Array:
    """Returns images with a grey rectangle somewhere inside; the strength is its share of height and of width."""
    batch, *size, _ = images_BxHxWxC.shape
    sizes_2 = jnp.round(strength * np.array(size)).astype(int)
    top_left_Bx2 = (random.uniform(key, (batch, 2)) * (np.array(size) - sizes_2 + 1)).astype(int)
    return jnp.where(rectangles(images_BxHxWxC.shape, top_left_Bx2, jnp.tile(sizes_2, (batch, 1))), 0.5, images_BxHxWxC)


def compression(images_BxHxWxC: Array, strength: Array, key: Array) -> Array:
    """Returns images after JPEG compression; the strength is the quality."""
    return jpeg(images_BxHxWxC, strength.astype(int))


def mirror(images_BxHxWxC: Array, strength: Array, key: Array) -> Array:
    """Returns images mirrored left to right."""
    return images_BxHxWxC[:, :, ::-1]


def inversion(images_BxHxWxC: Array, strength: Array, key: Array) -> Array:
    """Returns images with dark and light exchanged."""
    return 1 - images_BxHxWxC


SEVERITIES = 5

CORRUPTIONS = {
    "noise": Corruption(noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "blur": Corruption(blur, (0.015, 0.025, 0.035, 0.045, 0.06)),
    "contrast": Corruption(contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": Corruption(brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "shift": Corruption(shift, (0.04, 0.07, 0.11, 0.14, 0.18)),
    "rotation": Corruption(rotation, (5, 10, 15, 20, 30)),
    "scale": Corruption(scale, (1.1, 1.2, 1.3, 1.5, 1.75)),
    "occlusion": Corruption(occlusion, (0.2, 0.3, 0.4, 0.5, 0.6)),
    "jpeg": Corruption(compression, (25, 18, 15, 10, 7)),
    "mirror": Corruption(mirror, (1,)),
    "inversion": Corruption(inversion, (1,)),
}
"""By name. Noise, contrast, brightness and JPEG have ImageNet-C's strengths, the others this project's own.

An image is mirrored or inverted or it is not, so that these two have one severity.
"""

_SEVERITY = Rule(
    lambda value: not isinstance(value, (bool, int, float, str)) or (type(value) is int and 0 <= value <= SEVERITIES),
    f"an integer from 0 to {SEVERITIES}",
)


@checked(severity=_SEVERITY, name=one_of(tuple(CORRUPTIONS)))
@partial(jax.jit, static_argnames="name")
def corrupt(images_BxHxWxC: Any, severity: Any, key: Array, *, name: str) -> Array:
    """Returns corrupted images, uint8 [B, H, W, C]; one program serves all severities.

    Args:
      images_BxHxWxC: uint8, or floating-point from 0 to 1; of any size, with any number of channels.
      severity: integer from 0, which leaves images as they are, to 5; beyond a corruption's last it is the last.
      key: what is drawn, such as the direction of a shift, is a function of it, the same at each severity.
      name: of one of ``CORRUPTIONS``.

    Raises:
      ConfigError: there is no such corruption or severity.
      DataError: the images have another type or number of axes.
    """
    images = jnp.asarray(images_BxHxWxC)
    if images.ndim != 4 or not (images.dtype == jnp.uint8 or jnp.issubdtype(images.dtype, jnp.floating)):
        raise DataError(
            f"images are {images.dtype} {list(images.shape)}, but must be uint8, or float from 0 to 1, [N, H, W, C]"
        )
    inputs = images / 255 if images.dtype == jnp.uint8 else images.astype(jnp.float32)
    function, strengths = CORRUPTIONS[name]
    index = jnp.clip(severity, 1, len(strengths)) - 1
    changed = function(inputs, jnp.asarray(strengths, jnp.float32)[index], key)
    chosen = jnp.where(severity > 0, changed, inputs)
    return jnp.round(jnp.clip(chosen, 0, 1) * 255).astype(jnp.uint8)
