"""Scenes of small images, such as garments, with the boxes around them: a pure function of a key and the images.

Everything is in integers, so that a scene has the same bits on every machine.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

OBJECTS = 6
"""Maximum number of objects in a scene."""

SIDES = 16, 48
"""Smallest and largest side, in pixels, that an image is resized to."""

CLUTTER = 8
"""Rectangles and ellipses in the background."""

DARK = 16
"""Pixels below this grey level are not the object's own: the images are light on black."""

NOISE = 24
"""Grey levels that noise adds or takes away at most."""

_UNITS = 16
"""Weights of an interpolation, in units of 1/16 each; sums of products of two and a pixel are exact in float32."""


def _integers(key: Array, shape: tuple[int, ...], limits: Array | int) -> Array:
    """Random integers from 0 to below the limits, int32, as remainders of 32 bits, whose bias is below 1/40,000."""
    return (jax.random.bits(key, shape, jnp.uint32) % jnp.asarray(limits, jnp.uint32)).astype(jnp.int32)


def _resizing(size_M: Array, start_M: Array, flip_M: Array, source: int, side: int) -> Array:
    """Weights [M, side, source] of linear interpolation: of ``size`` pixels of a scene from ``start`` on."""
    pixel_MxP = jnp.arange(side) - start_M[:, None]
    inside_MxP = (pixel_MxP >= 0) & (pixel_MxP < size_M[:, None])
    pixel_MxP = jnp.where(flip_M[:, None], size_M[:, None] - 1 - pixel_MxP, pixel_MxP)
    # The centre of the pixel, from the centre of the first one of the source.
    at_MxP = (2 * pixel_MxP + 1) * (source * _UNITS // 2) // size_M[:, None] - _UNITS // 2
    at_MxP = jnp.clip(at_MxP, 0, (source - 1) * _UNITS)
    distance_MxPxQ = jnp.abs(at_MxP[..., None] - jnp.arange(source) * _UNITS)
    weights_MxPxQ = jnp.where(inside_MxP[..., None], jnp.maximum(_UNITS - distance_MxPxQ, 0), 0)
    return weights_MxPxQ.astype(jnp.float32)


def _background(key: Array, side: int, channels: int) -> Array:
    """A slope of brightness with rectangles and ellipses, int32 [C, side, side]."""
    shapes_key, grey_key = jax.random.split(key)
    grey_KxC = _integers(grey_key, (CLUTTER + 1, channels), 256)
    draws_Kx5 = _integers(shapes_key, (CLUTTER + 1, 5), jnp.array([side, side, side // 8, side // 8, 3]))
    y, x = jnp.arange(side)[:, None], jnp.arange(side)[None]
    rise_y, rise_x = draws_Kx5[-1, :2] * 128 // side - 64
    slope = (rise_y * (2 * y - side) + rise_x * (2 * x - side)) // (2 * side)
    level_C = grey_KxC[-1] // 2 + 64

    def draw(scene_CxPxQ, shape):
        (centre_y, centre_x, height, width, kind), grey_C = shape
        dy, dx = jnp.abs(y - centre_y), jnp.abs(x - centre_x)
        rectangle = (dy <= height) & (dx <= width)
        # Within the rectangle the products fit into int32.
        ellipse = rectangle & ((dy * width) ** 2 + (dx * height) ** 2 <= (height * width) ** 2)
        # A third of them each; the last third is not drawn.
        is_drawn = (rectangle & (kind == 0)) | (ellipse & (kind == 1))
        return jnp.where(is_drawn, grey_C[:, None, None], scene_CxPxQ), None

    return lax.scan(draw, level_C[:, None, None] + slope, (draws_Kx5[:-1], grey_KxC[:-1]))[0]


def _scene(key: Array, images_NxHxWxC: Array, labels_N: Array, count: Any, side: int) -> tuple[Array, Array]:
    objects_key, background_key, noise_key = jax.random.split(key, 3)
    height, width, channels = images_NxHxWxC.shape[1:]
    limits = jnp.array([count, SIDES[1] + 1 - SIDES[0], 2**20, 2**20, 2, NOISE * (OBJECTS + 1)])
    index_M, size_M, y_M, x_M, flip_M, drawn_M = _integers(objects_key, (OBJECTS, 6), limits).T
    size_M, (number, strength) = size_M + SIDES[0], divmod(drawn_M[0], NOISE)
    top_M, left_M = ((place_M * (side + 1 - size_M)) >> 20 for place_M in (y_M, x_M))
    rows_MxPxH = _resizing(size_M, top_M, jnp.zeros(OBJECTS, bool), height, side)
    columns_MxPxW = _resizing(size_M, left_M, flip_M == 1, width, side)
    # Channel by channel, and the pixels that are the object's own as one more: rows of pixels are contiguous.
    images_MxCxHxW = jnp.moveaxis(images_NxHxWxC[index_M], -1, 1).astype(jnp.float32)
    own_Mx1xHxW = (images_MxCxHxW >= DARK).any(1, keepdims=True)
    parts = jnp.concatenate([images_MxCxHxW * own_Mx1xHxW, own_Mx1xHxW], 1)
    highest = lax.Precision.HIGHEST
    parts = jnp.einsum("mph,mchw->mcpw", rows_MxPxH, parts, precision=highest)
    parts = jnp.einsum("mqw,mcpw->mcpq", columns_MxPxW, parts, precision=highest).astype(jnp.int32)

    def place(carry, part):
        (scene_CxPxQ, open_PxQ), (is_drawn, part_DxPxQ, label) = carry, part
        image, cover = (part_DxPxQ[:-1] + 128) >> 8, part_DxPxQ[-1]
        is_own, is_visible = cover >= 128, (cover >= 128) & (open_PxQ >= 128)
        # An object of which less than half could be seen is left out.
        kept = is_drawn & (2 * is_visible.sum() >= is_own.sum()) & is_visible.any()
        seen = open_PxQ * kept
        (top, bottom), (left, right) = (_extent(is_visible.any(axis)) for axis in (1, 0))
        row = jnp.stack([left, top, right, bottom, label]).astype(jnp.float32)
        row = jnp.where(kept, row, jnp.array([0, 0, 0, 0, -1.0]))
        return (scene_CxPxQ + ((seen * image + 128) >> 8), open_PxQ - ((seen * cover + 128) >> 8)), row

    # From the front to the back: what is left to see through, in units of 1/256.
    empty = jnp.zeros((channels, side, side), jnp.int32), jnp.full((side, side), 256)
    drawn = jnp.arange(OBJECTS) < number, parts, labels_N[index_M].astype(jnp.int32)
    (scene, open_PxQ), labels_Mx5 = lax.scan(place, empty, drawn)
    scene = scene + ((open_PxQ * _background(background_key, side, channels) + 128) >> 8)
    noise = jax.random.bits(noise_key, scene.shape, jnp.uint8).astype(jnp.int32) - 128
    scene = jnp.clip(scene + ((noise * strength) >> 7), 0, 255).astype(jnp.uint8)
    return jnp.moveaxis(scene, 0, -1), labels_Mx5


def _extent(is_own_P: Array) -> tuple[Array, Array]:
    """The first pixel of an object along an axis, and the one after its last."""
    return jnp.argmax(is_own_P), len(is_own_P) - jnp.argmax(is_own_P[::-1])


@partial(jax.jit, static_argnames=("scenes", "side"))
def compose(
    key: Array, images_NxHxWxC: Array, labels_N: Array, count: Any, *, scenes: int, side: int
) -> tuple[Array, Array]:
    """Returns scenes, uint8 [S, side, side, C], and the boxes in them, float32 [S, 6, 5].

    A scene has up to six of the images, light on black, mirrored or not, in random sizes and places, on a background
    with clutter, and noise over all. One that others hide by more than half is left out. A box is tight around the
    pixels of its object that can be seen: x_min, y_min, x_max, y_max, in pixels from the upper left corner of the
    scene, and the object's label; -1 where there is no object.

    Args:
      key: of all scenes.
      images_NxHxWxC: uint8.
      labels_N: integers.
      count: number of the first images that may be drawn; the others are padding.
      scenes: number of scenes.
      side: height and width of a scene in pixels, at least 48.
    """
    return jax.vmap(lambda key: _scene(key, images_NxHxWxC, labels_N, count, side))(jax.random.split(key, scenes))
