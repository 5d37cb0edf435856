"""Convolution and max-pooling as XLA likes them: pure functions, their gradients written out.

XLA's CPU compiler hands a convolution to its fast library only when the operands already lie as it wants them (NHWC,
HWIO). It rewrites other layouts, the two of a convolution's gradient among them, but never inside a loop body
(jax-ml/jax#12868): there they fall to naive loops that are 6 to 20 times slower. As a whole epoch is one loop here,
the gradients are written out: the images' as a convolution in the wanted layout, the kernel's as matrix products. Where
the channels are few, the forward convolution is a sum of shifted images; where Winograd's algorithm suits one, it takes
all three. On other platforms the plain formulation is the fast one; which is taken is decided when the program is
lowered, so that nothing here asks where it runs.
"""

import math
from functools import partial, reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from cnn.models import winograd

Padding = Literal["SAME", "VALID"]

_NHWC = ("NHWC", "HWIO", "NHWC")

FEW_CHANNELS = 4
"""So many images' channels are cheap to move, and to copy for each place of the kernel."""

MAX_SHIFTS = 36
"""A longer sum of shifted images is one that XLA compiles badly: of 75, it was 15 times slower than a convolution."""


def _plain_conv(images: Array, kernel: Array, strides: tuple[int, int], padding: Padding) -> Array:
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_NHWC)


def _sum_of_shifts(images, kernel, strides, padding):
    """The shifted images, each times its row of the kernel, added up in one loop, vectorised over the features."""
    pads = _pads(images.shape, kernel.shape, strides, padding)
    sizes = [(images.shape[i + 1] + sum(pads[i]) - kernel.shape[i]) // strides[i] + 1 for i in (0, 1)]
    windows = _windows(images.transpose(3, 0, 1, 2), kernel.shape[:2], sizes, strides, pads)
    # A sum in bfloat16 would round at every term.
    dtype = jnp.promote_types(images.dtype, jnp.float32)
    pixels = [channel[..., None].astype(dtype) for window in windows for channel in window]
    rows = kernel.reshape(len(pixels), -1)
    return reduce(jnp.add, map(jnp.multiply, pixels, rows)).astype(images.dtype)


def _takes_winograd(images_shape, kernel, strides, padding):
    # In bfloat16, the transforms would round too much.
    return kernel.dtype == jnp.float32 and winograd.suits(images_shape, kernel.shape, strides, padding)


def _by_platform(images, kernel, on_cpu, plain):
    """One of two formulations, by the platform that the program is lowered for.

    An exported network takes batches of any size, which could not be cut into chunks: it is the plain one everywhere.
    """
    if not isinstance(images.shape[0], int):
        return plain(images, kernel)
    return lax.platform_dependent(images, kernel, cpu=on_cpu, default=plain)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(images, kernel, strides, padding):
    plain = partial(_plain_conv, strides=strides, padding=padding)
    if kernel.shape[2] <= FEW_CHANNELS and math.prod(kernel.shape[:3]) <= MAX_SHIFTS:
        on_cpu = partial(_sum_of_shifts, strides=strides, padding=padding)
    elif _takes_winograd(images.shape, kernel, strides, padding):
        on_cpu = winograd.conv
    else:
        return plain(images, kernel)
    return _by_platform(images, kernel, on_cpu, plain)


def _conv_forward(images, kernel, strides, padding):
    return _conv(images, kernel, strides, padding), (images, kernel)


def _conv_backward(strides, padding, residuals, grads):
    images, kernel = residuals

    def plain(images, kernel, grads):
        return jax.vjp(lambda x, k: _plain_conv(x, k, strides, padding), images, kernel)[1](grads)

    def written_out(images, kernel, grads):
        if _takes_winograd(images.shape, kernel, strides, padding):
            return winograd.conv(grads, _flipped(kernel)), winograd.kernel_gradient(images, grads)
        return (
            _images_gradient(images.shape, kernel, grads, strides, padding),
            _kernel_gradient(images, kernel.shape, grads, strides, padding),
        )

    return lax.platform_dependent(images, kernel, grads, cpu=written_out, default=plain)


_conv.defvjp(_conv_forward, _conv_backward)


def conv(images: Array, kernel: Array, strides: tuple[int, int] = (1, 1), padding: Padding = "SAME") -> Array:
    """Returns the cross-correlation [B, H', W', F] of images [B, H, W, C] with a kernel [h, w, C, F].

    Equals ``lax.conv_general_dilated``, and so do its gradients; those are formulated to be fast inside a loop.

    Args:
      images: [B, H, W, C], floating point.
      kernel: [h, w, C, F], of the same dtype.
      strides: steps of the window, vertical and horizontal.
      padding: "SAME" or "VALID".
    """
    outputs: Any = _conv(images, kernel, strides, padding)
    return outputs


def _pads(shape, kernel_shape, strides, padding):
    """Rows and columns that the forward convolution adds before and after."""
    return lax.padtype_to_pads(shape[1:3], kernel_shape[:2], strides, padding)


def _flipped(kernel):
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _images_gradient(shape, kernel, grads, strides, padding):
    """The output gradients, spread by the strides, convolved with the flipped kernel, its C and F swapped."""
    low = [pad[0] for pad in _pads(shape, kernel.shape, strides, padding)]
    pads = [
        (kernel.shape[i] - 1 - low[i], shape[i + 1] + low[i] - (grads.shape[i + 1] - 1) * strides[i] - 1)
        for i in (0, 1)
    ]
    return lax.conv_general_dilated(
        grads, _flipped(kernel), (1, 1), pads, lhs_dilation=strides, dimension_numbers=_NHWC
    )


def _kernel_gradient(images, kernel_shape, grads, strides, padding):
    """Matrix products of the images' patches with the output gradients.

    A convolution with kernels of the images' size would do it as well, and is slower. The channels come first in the
    patches, as a product wants them; behind the pixels, they would have to be moved once for each product. A product
    takes a row of the kernel at a time, as all its rows at once (im2col) would write h times as much to memory; only
    where the channels are so few that this is little, one product is faster.
    """
    height, width, channels, features = kernel_shape
    pads = _pads(images.shape, kernel_shape, strides, padding)
    windows = _windows(images.transpose(3, 0, 1, 2), (height, width), grads.shape[1:3], strides, pads)
    step = height * width if channels <= FEW_CHANNELS else width
    pixels_by_features = grads.reshape(-1, features)
    products = [
        jnp.concatenate(windows[i : i + step]).reshape(-1, len(pixels_by_features)) @ pixels_by_features
        for i in range(0, len(windows), step)
    ]
    return jnp.concatenate(products).reshape(kernel_shape)


def _windows(images, window, out_sizes, strides, pads, axis=2):
    """The h * w shifted and strided views of padded images, whose height is the given axis, row by row of the window.

    By default the channels come first: [C, B, H, W] -> [C, B, H', W'].
    """
    # Written to memory once, or XLA would move the channels to the front again for each product.
    padded = lax.optimization_barrier(jnp.pad(images, (*[(0, 0)] * axis, *pads, *[(0, 0)] * (2 - axis))))
    (height, width), (down, right), before = out_sizes, strides, (slice(None),) * axis
    return [
        padded[*before, top : top + (height - 1) * down + 1 : down, left : left + (width - 1) * right + 1 : right]
        for top in range(window[0])
        for left in range(window[1])
    ]


def _plain_depthwise(images, kernel, strides):
    return lax.conv_general_dilated(
        images, kernel, strides, "SAME", dimension_numbers=_NHWC, feature_group_count=images.shape[-1]
    )


def _depthwise_windows(images, kernel_shape, strides):
    pads = _pads(images.shape, kernel_shape, strides, "SAME")
    sizes = [-(-images.shape[i + 1] // strides[i]) for i in (0, 1)]
    return _windows(images, kernel_shape[:2], sizes, strides, pads, axis=1)


def _depthwise_sum_of_shifts(images, kernel, strides):
    # A sum in bfloat16 would round at every term.
    dtype = jnp.promote_types(images.dtype, jnp.float32)
    windows = _depthwise_windows(images.astype(dtype), kernel.shape, strides)
    rows = kernel.astype(dtype).reshape(-1, kernel.shape[-1])
    return reduce(jnp.add, map(jnp.multiply, windows, rows)).astype(images.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise_conv(images, kernel, strides):
    on_cpu, plain = (partial(f, strides=strides) for f in (_depthwise_sum_of_shifts, _plain_depthwise))
    return _by_platform(images, kernel, on_cpu, plain)


def _depthwise_forward(images, kernel, strides):
    return _depthwise_conv(images, kernel, strides), (images, kernel)


def _depthwise_backward(strides, residuals, grads):
    def plain(images, kernel, grads):
        return jax.vjp(partial(_plain_depthwise, strides=strides), images, kernel)[1](grads)

    def written_out(images, kernel, grads):
        # Image by image and pixel by pixel: a sum over all of them at once is one that XLA does not vectorise.
        def add(totals, image_and_grads):
            image, grads = image_and_grads
            windows = _depthwise_windows(image[None].astype(dtype), kernel.shape, strides)
            return [total + window[0] * grads for total, window in zip(totals, windows, strict=True)], None

        dtype = jnp.promote_types(grads.dtype, jnp.float32)
        totals = [jnp.zeros(grads.shape[1:], dtype)] * math.prod(kernel.shape[:2])
        totals, _ = lax.scan(add, totals, (images, grads))
        kernel_gradient = jnp.stack([total.sum((0, 1)) for total in totals]).reshape(kernel.shape).astype(kernel.dtype)
        of_images = jax.vjp(lambda images: _depthwise_sum_of_shifts(images, kernel, strides), images)[1]
        return *of_images(grads), kernel_gradient

    return lax.platform_dependent(*residuals, grads, cpu=written_out, default=plain)


_depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)


def depthwise_conv(images: Array, kernel: Array, strides: tuple[int, int] = (1, 1)) -> Array:
    """Returns the "SAME" cross-correlation [B, H', W', C] of each channel of images [B, H, W, C] with its own kernel.

    Args:
      images: [B, H, W, C], floating point.
      kernel: [h, w, 1, C], of the same dtype.
      strides: steps of the window, vertical and horizontal.
    """
    outputs: Any = _depthwise_conv(images, kernel, strides)
    return outputs


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(images, window):
    return _max_pool_forward(images, window)[0]


def _max_pool_forward(images, window):
    down, right = window
    # Exact, and on a CPU three times as fast as comparing bfloat16.
    compared = images.astype(jnp.float32) if images.dtype == jnp.bfloat16 else images
    places = [compared[:, top::down, left::right] for top in range(down) for left in range(right)]
    maxima = reduce(jnp.maximum, places)
    winner = jnp.zeros(maxima.shape, jnp.int8 if len(places) <= 128 else jnp.int32)
    for index in reversed(range(len(places))):
        winner = jnp.where(places[index] == maxima, winner.dtype.type(index), winner)
    # Both are written to memory: XLA would rather compute the maxima anew for each pixel of the gradient.
    return lax.optimization_barrier((maxima.astype(images.dtype), winner))


def _max_pool_backward(window, winner, grads):
    batch, height, width, channels = grads.shape
    place = jnp.arange(math.prod(window), dtype=winner.dtype).reshape(1, 1, window[0], 1, window[1], 1)
    to_winner = jnp.where(winner[:, :, None, :, None] == place, grads[:, :, None, :, None], 0)
    return (to_winner.reshape(batch, height * window[0], width * window[1], channels),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def max_pool(images: Array, window: tuple[int, int] = (2, 2)) -> Array:
    """Returns the maximum [B, H // h, W // w, C] of each h x w window of images [B, H, W, C].

    Equals ``lax.reduce_window`` with strides as large as the window, and so does its gradient, which goes to the
    first of equal maxima; a row or column that is left over is dropped.
    """
    height, width = (size - size % step for size, step in zip(images.shape[1:3], window, strict=True))
    outputs: Any = _max_pool(images[:, :height, :width], window)
    return outputs
