"""What JPEG compression loses, on the device: the discrete cosine transform of 8 x 8 pixels, rounded by a table.

The lossless part, which changes no pixel, is left out, and colours keep their full resolution (4:4:4).
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((8, 8), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
"""Steps of the coefficients by vertical and horizontal frequency, at quality 50: ITU-T T.81, annex K.1."""

_FREQUENCIES, _PIXELS = np.indices((8, 8))
DCT = np.cos((2 * _PIXELS + 1) * _FREQUENCIES * np.pi / 16) * np.where(_FREQUENCIES, 1 / 2, np.sqrt(1 / 8))
"""The orthonormal cosine transform, frequencies by pixels: T.81, annex A.3.3."""

YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""Luma, and the differences of blue and red from it, of red, green and blue: ITU-T T.871, section 7."""


def jpeg(images_BxHxWxC: Array, quality: Array | int) -> Array:
    """Returns images as they are after JPEG compression; three channels are colours, others each a grey image.

    ITU-T T.81 (1992), baseline, with libjpeg's scaling of its tables, which Pillow and most programs use.

    Args:
      images_BxHxWxC: from 0 to 1, of any size: blocks that are not full are padded with the last pixels.
      quality: integer from 1 to 100.
    """
    is_colour = images_BxHxWxC.shape[-1] == 3
    levels_BxHxWxC = jnp.round(images_BxHxWxC * 255)
    if is_colour:
        levels_BxHxWxC = jnp.round(jnp.einsum("bhwc,dc->bhwd", levels_BxHxWxC, YCBCR, precision="highest"))
        tables = np.stack([LUMINANCE, CHROMINANCE, CHROMINANCE], -1)
        # Grey is 0 in the two differences, and 128 in luma.
        offsets = np.array([128, 0, 0])
    else:
        tables, offsets = LUMINANCE[..., None], np.array([128])
    levels_BxHxWxC = jnp.round(_quantized(levels_BxHxWxC - offsets, _scaled(tables, quality))) + offsets
    if is_colour:
        levels_BxHxWxC = jnp.clip(levels_BxHxWxC, offsets - 128, offsets + 127)
        levels_BxHxWxC = jnp.einsum("bhwc,dc->bhwd", levels_BxHxWxC, np.linalg.inv(YCBCR), precision="highest")
    return jnp.clip(jnp.round(levels_BxHxWxC), 0, 255) / 255


def _scaled(tables_8x8xC: np.ndarray, quality: Array | int) -> Array:
    """The steps of the coefficients at a quality, in integers as libjpeg computes them: 8-bit, of at least 1."""
    quality = jnp.asarray(quality, int)
    percent = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return jnp.clip((jnp.asarray(tables_8x8xC, int) * percent + 50) // 100, 1, 255)


def _quantized(levels_BxHxWxC: Array, steps_8x8xC: Array) -> Array:
    """Levels, of which the coefficients of each block are rounded to whole steps."""
    batch, height, width, channels = levels_BxHxWxC.shape
    padding = ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0))
    padded = jnp.pad(levels_BxHxWxC, padding, mode="edge")
    blocks = padded.reshape(batch, padded.shape[1] // 8, 8, padded.shape[2] // 8, 8, channels)
    coefficients = jnp.einsum("ux,bhxwyc,vy->bhuwvc", DCT, blocks, DCT, precision="highest")
    steps_8x1x8xC = steps_8x8xC[:, None]
    # libjpeg's coefficients are whole eighths, of which a step has often an odd multiple of half: away from zero then.
    coefficients = jnp.floor(8 * coefficients + 0.5) / 8
    whole = jnp.sign(coefficients) * jnp.floor(jnp.abs(coefficients) / steps_8x1x8xC + 0.5)
    blocks = jnp.einsum("ux,bhuwvc,vy->bhxwyc", DCT, whole * steps_8x1x8xC, DCT, precision="highest")
    return blocks.reshape(padded.shape)[:, :height, :width]
