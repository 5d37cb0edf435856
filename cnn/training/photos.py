"""Augmentation for photographs inside the compiled step: pure functions of a random key and a batch.

Images are float32 from 0 to 1, and so are the results; each image draws its own values, and a strength of 0 changes no
bit. Pixels between pixels are interpolated bilinearly by JAX's own functions. Nothing here branches on what was drawn:
a branch of a batch computes all its cases anyway.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.scipy.ndimage import map_coordinates

LARGEST_RATIO = 4 / 3
"""Largest change of height over width by a random resized crop; the smallest is its inverse."""

HUE_TURNS = 1 / 4
"""Turns of the hue for a colour strength of 1."""

YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""Luma, and the two axes of chrominance, in which hue is an angle, of red, green and blue: the standard of NTSC."""

TRIVIAL = (
    *("identity", "rotate", "shear_x", "shear_y", "translate_x", "translate_y", "brightness", "contrast", "colour"),
    *("sharpness", "posterize", "solarize", "autocontrast", "equalize"),
)
"""Operations of TrivialAugment."""

LARGEST = {"rotate": np.deg2rad(135), "shear_x": 0.99, "shear_y": 0.99, "enhance": 0.99, "translate": 32, "bits": 6}
"""Strengths of TrivialAugment at most, of its space "wide": radians, slopes, changes of a factor, pixels, bits."""


def crop(key: Array, images_BxHxWxC: Array, smallest: float) -> Array:
    """Returns a random part of each image, resized to the image's size: a random resized crop.

    The part's share of the area is uniform from ``smallest`` to 1; the logarithm of its height over width, relative to
    the image's, is uniform between those of 3/4 and 4/3, or closer to 0 where the part would not fit.

    C. Szegedy et al., Going Deeper with Convolutions, arXiv:1409.4842, section 6.
    """
    (batch, *size, _), (area_key, ratio_key, start_key) = images_BxHxWxC.shape, random.split(key, 3)
    areas_B = random.uniform(area_key, (batch,), minval=smallest, maxval=1)
    log_ratios_B = jnp.minimum(jnp.log(LARGEST_RATIO), -jnp.log(areas_B))
    ratios_B = jnp.exp(random.uniform(ratio_key, (batch,), minval=-1, maxval=1) * log_ratios_B)
    shares_Bx2 = jnp.minimum(jnp.sqrt(jnp.stack([areas_B * ratios_B, areas_B / ratios_B], 1)), 1)
    starts_Bx2 = random.uniform(start_key, (batch, 2)) * (1 - shares_Bx2) * jnp.asarray(size)

    def resize(image_HxWxC, share_2, start_2):
        scale_2, shape = 1 / share_2, image_HxWxC.shape
        # A part is never larger than the image, so that nothing shrinks that would have to be smoothed.
        return jax.image.scale_and_translate(
            image_HxWxC, shape, (0, 1), scale_2, -start_2 * scale_2, "linear", antialias=False
        )

    return jnp.clip(jax.vmap(resize)(images_BxHxWxC, shares_Bx2, starts_Bx2), 0, 1)


def warp(images_BxHxWxC: Array, matrices_Bx2x2: Array, shifts_Bx2: Array) -> Array:
    """Returns images whose pixels come from where matrix and shift put them, seen from the center; 0 from outside."""
    size = images_BxHxWxC.shape[1:3]
    center_2 = (jnp.asarray(size) - 1) / 2
    offsets_HxWx2 = jnp.stack(jnp.indices(size), -1) - center_2
    moved_BxHxWx2 = jnp.einsum("hwi,bji->bhwj", offsets_HxWx2, matrices_Bx2x2, precision="highest")
    sources_BxHxWx2 = moved_BxHxWx2 + shifts_Bx2[:, None, None] + center_2

    def sample(channel_HxW, sources_HxWx2):
        return map_coordinates(channel_HxW, [sources_HxWx2[..., 0], sources_HxWx2[..., 1]], order=1, mode="constant")

    warped = jax.vmap(jax.vmap(sample, (2, None), 2))(images_BxHxWxC, sources_BxHxWx2)
    return jnp.clip(warped, 0, 1)


def rotations(radians_B: Array) -> Array:
    """Returns matrices of rotations [B, 2, 2], rows and columns by rows and columns."""
    cos_B, sin_B = jnp.cos(radians_B), jnp.sin(radians_B)
    return jnp.stack([jnp.stack([cos_B, -sin_B], 1), jnp.stack([sin_B, cos_B], 1)], 1)


def rotate(key: Array, images_BxHxWxC: Array, degrees: float) -> Array:
    """Returns images, each rotated about its center by up to ``degrees`` in either direction and filled with zeros."""
    radians_B = random.uniform(key, (len(images_BxHxWxC),), minval=-1, maxval=1) * np.deg2rad(degrees)
    return warp(images_BxHxWxC, rotations(radians_B), jnp.zeros((len(images_BxHxWxC), 2)))


def _grey(images_BxHxWxC: Array) -> Array:
    """Luma of colours, and otherwise the mean of the channels: [B, H, W, 1]."""
    channels = images_BxHxWxC.shape[-1]
    weights_C = jnp.asarray(YIQ[0] if channels == 3 else np.full(channels, 1 / channels), jnp.float32)
    return (images_BxHxWxC * weights_C).sum(-1, keepdims=True)


def _recolour(images_BxHxWxC: Array, turns_B: Array, saturation_B: Array) -> Array:
    """Images of red, green and blue with the hue turned and the saturation multiplied; luma stays."""
    to_yiq_3x3, from_yiq_3x3 = YIQ.T, np.linalg.inv(YIQ.T)
    # A rotation by an angle is 1 + sin J + (1 - cos) J J, with J that by a right angle: no bit changes for angle 0.
    quarter_3x3 = to_yiq_3x3 @ np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ from_yiq_3x3
    sin_Bx1x1, cos_Bx1x1 = jnp.sin(2 * np.pi * turns_B)[:, None, None], jnp.cos(2 * np.pi * turns_B)[:, None, None]
    hue_Bx3x3 = jnp.eye(3) + sin_Bx1x1 * quarter_3x3 + (1 - cos_Bx1x1) * (quarter_3x3 @ quarter_3x3)
    saturation_Bx1x1, luma_3x3 = saturation_B[:, None, None], np.repeat(YIQ[0][:, None], 3, 1)
    matrices_Bx3x3 = saturation_Bx1x1 * hue_Bx3x3 + (1 - saturation_Bx1x1) * luma_3x3
    return jnp.einsum("bhwc,bcd->bhwd", images_BxHxWxC, matrices_Bx3x3, precision="highest")


def colour(key: Array, images_BxHxWxC: Array, strength: float) -> Array:
    """Returns images, each with another brightness, contrast and, of three channels, saturation and hue.

    Three factors are uniform from 1 - ``strength`` to 1 + ``strength``; the hue turns by up to a quarter of it.

    T. Chen et al., A Simple Framework for Contrastive Learning, arXiv:2002.05709, appendix A, whose ratios these are;
    one matrix an image, and one clipping to 0..1, in place of four steps in random order.
    """
    draws_Bx4 = strength * random.uniform(key, (len(images_BxHxWxC), 4), minval=-1, maxval=1)
    brightness, contrast = (1 + draws_Bx4[:, i, None, None, None] for i in (0, 1))
    means_Bx1x1x1 = _grey(images_BxHxWxC).mean((1, 2), keepdims=True)
    if images_BxHxWxC.shape[-1] == 3:
        images_BxHxWxC = _recolour(images_BxHxWxC, HUE_TURNS * draws_Bx4[:, 3], 1 + draws_Bx4[:, 2])
    return jnp.clip(brightness * (contrast * images_BxHxWxC + (1 - contrast) * means_Bx1x1x1), 0, 1)


def _smooth(images_BxHxWxC: Array) -> Array:
    """Weighted means of 3 x 3 pixels, the one in the middle counted five times; the pixels of the edge stay."""
    _, height, width, _ = images_BxHxWxC.shape
    sums = 4 * images_BxHxWxC[:, 1:-1, 1:-1] + sum(
        images_BxHxWxC[:, top : height - 2 + top, left : width - 2 + left] for top in range(3) for left in range(3)
    )
    return images_BxHxWxC.at[:, 1:-1, 1:-1].set(sums / 13)


def _equalize(channel_HxW: Array) -> Array:
    """One channel, with about the same number of pixels at each of 256 levels, as Pillow does it."""
    levels_HxW = jnp.round(channel_HxW * 255).astype(int)
    counts_256 = jnp.zeros(256, int).at[levels_HxW].add(1, mode="promise_in_bounds")
    step = (levels_HxW.size - counts_256[levels_HxW.max()]) // 255
    table_256 = jnp.minimum((jnp.cumsum(counts_256) - counts_256 + step // 2) // jnp.maximum(step, 1), 255) / 255
    # As below: otherwise divided again for each pixel.
    table_256 = jax.lax.optimization_barrier(table_256)
    return jnp.where(step > 0, table_256.at[levels_HxW].get(mode="promise_in_bounds"), channel_HxW)


def apply_operations(images_BxHxWxC: Array, operations_B: Array, strengths_B: Array) -> Array:
    """Returns images, each after one operation of ``TRIVIAL``, by its index, with a strength from -1 to 1.

    Where a strength has no direction, its size counts; autocontrast, equalize and identity have none.
    """
    size = images_BxHxWxC.shape[1:3]

    def is_drawn(name):
        return operations_B == TRIVIAL.index(name)

    def drawn(name, largest):
        return jnp.where(is_drawn(name), strengths_B * largest, 0)

    # One sampling for all operations that move pixels; for the others it is the identity.
    zeros_B = jnp.zeros(len(strengths_B))
    shear_y_B, shear_x_B = (drawn(name, LARGEST[name]) for name in ("shear_y", "shear_x"))
    slopes_Bx2x2 = jnp.stack([jnp.stack([zeros_B, shear_y_B], 1), jnp.stack([shear_x_B, zeros_B], 1)], 1)
    names = ("translate_y", "translate_x")
    shifts = [drawn(name, min(LARGEST["translate"], side)) for name, side in zip(names, size, strict=True)]
    rotations_Bx2x2 = rotations(drawn("rotate", LARGEST["rotate"]))
    signed = strengths_B[:, None, None, None]
    factor, strength = 1 + LARGEST["enhance"] * signed, jnp.abs(signed)
    # XLA would sample and raise to powers again for each pixel that uses the result: twice the time on a CPU.
    images_BxHxWxC, step = jax.lax.optimization_barrier(
        (
            warp(images_BxHxWxC, rotations_Bx2x2 + slopes_Bx2x2, jnp.stack(shifts, 1)),
            2 ** jnp.round(strength * LARGEST["bits"]),
        )
    )
    grey_BxHxWx1 = _grey(images_BxHxWxC)
    low, high = (bound((1, 2), keepdims=True) for bound in (images_BxHxWxC.min, images_BxHxWxC.max))
    # To whole levels of 0..255: what is divided by 255 is not always exactly a level.
    levels = jnp.round(images_BxHxWxC * 255)
    without = {
        "brightness": jnp.zeros_like(grey_BxHxWx1),
        "contrast": grey_BxHxWx1.mean((1, 2), keepdims=True),
        "colour": grey_BxHxWx1 if images_BxHxWxC.shape[-1] == 3 else images_BxHxWxC,
        "sharpness": _smooth(images_BxHxWxC),
    }
    results = {name: factor * images_BxHxWxC + (1 - factor) * values for name, values in without.items()} | {
        "posterize": images_BxHxWxC - (levels - jnp.floor(levels / step) * step) / 255,
        "solarize": jnp.where(levels < 256 * (1 - strength), images_BxHxWxC, 1 - images_BxHxWxC),
        # An image of one level stays, as there is nothing to stretch.
        "autocontrast": jnp.where(
            high - low < 1 / 255, images_BxHxWxC, (images_BxHxWxC - low) / jnp.maximum(high - low, 1 / 255)
        ),
        "equalize": jax.vmap(jax.vmap(_equalize, 2, 2))(images_BxHxWxC),
    }
    for name, result in results.items():
        images_BxHxWxC = jnp.where(is_drawn(name)[:, None, None, None], result, images_BxHxWxC)
    return jnp.clip(images_BxHxWxC, 0, 1)


def trivial(key: Array, images_BxHxWxC: Array) -> Array:
    """Returns images, each after one operation drawn at random, with a strength drawn at random.

    S. G. Müller and F. Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, arXiv:2103.10158,
    section 3, with the strengths of its space "wide"; pixels are interpolated, and grey images have no colour.
    """
    operation_key, strength_key, sign_key = random.split(key, 3)
    batch = (len(images_BxHxWxC),)
    operations_B = random.randint(operation_key, batch, 0, len(TRIVIAL))
    signs_B = random.rademacher(sign_key, batch, jnp.float32)
    return apply_operations(images_BxHxWxC, operations_B, signs_B * random.randint(strength_key, batch, 0, 31) / 30)
