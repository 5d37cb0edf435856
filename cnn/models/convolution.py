"""Convolution and max-pooling, formulated to stay fast inside XLA loops on CPU: pure functions with explicit gradients.

XLA's CPU compiler calls its fast library for a convolution only if the operands already have its layouts, NHWC and
HWIO. It rewrites other layouts, such as the two of a convolution's gradient, but never inside a loop body
(jax-ml/jax#12868): there they fall back to naive loops that are 6 to 20 times slower. As a whole epoch is one loop
here, the gradients are explicit: that of the images is a convolution in the fast layouts, that of the kernel is matrix
products. With few channels, the forward convolution is a sum of shifted images; where Winograd's algorithm applies, it
computes all three. On other platforms the plain formulation is the fast one; the choice is made when the program is
lowered, so that no code here asks where it runs. In shapes, h x w is a window and P x Q the size of the outputs.
"""

import math
from functools import partial, reduce
from typing import Literal, cast

import jax
import jax.numpy as jnp
from jax import Array, lax

from cnn.models import winograd

Padding = Literal["SAME", "VALID"]

_NHWC = ("NHWC", "HWIO", "NHWC")

FEW_CHANNELS = 4
"""Up to this many channels, images are cheap to transpose, and to copy for each position in the kernel."""

MAX_SHIFTS = 36
"""Longest sum of shifted images; XLA compiles longer ones badly: one of 75 was 15 times slower than a convolution."""


def _plain_conv(images_BxHxWxC: Array, kernel_hxwxCxF: Array, strides: tuple[int, int], padding: Padding) -> Array:
    return lax.conv_general_dilated(images_BxHxWxC, kernel_hxwxCxF, strides, padding, dimension_numbers=_NHWC)


def _sum_of_shifts(images_BxHxWxC, kernel_hxwxCxF, strides, padding):
    """The sum of the shifted images, each times its row of the kernel, in one loop that is vectorized over features."""
    images, kernel = images_BxHxWxC, kernel_hxwxCxF
    pads = _pads(images.shape, kernel.shape, strides, padding)
    sizes = [(images.shape[i + 1] + sum(pads[i]) - kernel.shape[i]) // strides[i] + 1 for i in (0, 1)]
    windows = _windows(images.transpose(3, 0, 1, 2), kernel.shape[:2], sizes, strides, pads)
    # A sum in bfloat16 would round at every term.
    dtype = jnp.promote_types(images.dtype, jnp.float32)
    pixels = [channel[..., None].astype(dtype) for window in windows for channel in window]
    rows = kernel.reshape(len(pixels), -1)
    return reduce(jnp.add, map(jnp.multiply, pixels, rows)).astype(images.dtype)


def _winograd_fits(images_shape, kernel_hxwxCxF, strides, padding):
    # In bfloat16, the transforms would round too much.
    return kernel_hxwxCxF.dtype == jnp.float32 and winograd.fits(images_shape, kernel_hxwxCxF.shape, strides, padding)


def _by_platform(images_BxHxWxC, kernel_hxwxCxF, on_cpu, plain):
    """One of two formulations, chosen by the platform for which the program is lowered.

    An exported network takes batches of any size, which cannot be split into chunks: it is the plain one everywhere.
    """
    if not isinstance(images_BxHxWxC.shape[0], int):
        return plain(images_BxHxWxC, kernel_hxwxCxF)
    return lax.platform_dependent(images_BxHxWxC, kernel_hxwxCxF, cpu=on_cpu, default=plain)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(images_BxHxWxC, kernel_hxwxCxF, strides, padding):
    images, kernel = images_BxHxWxC, kernel_hxwxCxF
    plain = partial(_plain_conv, strides=strides, padding=padding)
    if kernel.shape[2] <= FEW_CHANNELS and math.prod(kernel.shape[:3]) <= MAX_SHIFTS:
        on_cpu = partial(_sum_of_shifts, strides=strides, padding=padding)
    elif _winograd_fits(images.shape, kernel, strides, padding):
        on_cpu = winograd.conv
    else:
        return plain(images, kernel)
    return _by_platform(images, kernel, on_cpu, plain)


def _conv_forward(images_BxHxWxC, kernel_hxwxCxF, strides, padding):
    return _conv(images_BxHxWxC, kernel_hxwxCxF, strides, padding), (images_BxHxWxC, kernel_hxwxCxF)


def _conv_backward(strides, padding, residuals, grads_BxPxQxF):
    def plain(images_BxHxWxC, kernel_hxwxCxF, grads_BxPxQxF):
        convolve = partial(_plain_conv, strides=strides, padding=padding)
        return jax.vjp(convolve, images_BxHxWxC, kernel_hxwxCxF)[1](grads_BxPxQxF)

    def explicit(images_BxHxWxC, kernel_hxwxCxF, grads_BxPxQxF):
        images, kernel, grads = images_BxHxWxC, kernel_hxwxCxF, grads_BxPxQxF
        if _winograd_fits(images.shape, kernel, strides, padding):
            return winograd.conv(grads, _flipped(kernel)), winograd.kernel_gradient(images, grads)
        return (
            _images_gradient(images.shape, kernel, grads, strides, padding),
            _kernel_gradient(images, kernel.shape, grads, strides, padding),
        )

    return lax.platform_dependent(*residuals, grads_BxPxQxF, cpu=explicit, default=plain)


_conv.defvjp(_conv_forward, _conv_backward)


def conv(
    images_BxHxWxC: Array, kernel_hxwxCxF: Array, strides: tuple[int, int] = (1, 1), padding: Padding = "SAME"
) -> Array:
    """Returns the cross-correlation [B, P, Q, F] of floating-point images with a kernel of the same dtype.

    Equals ``lax.conv_general_dilated``, and so do its gradients; those are formulated to be fast inside a loop.

    Args:
      images_BxHxWxC: floating point.
      kernel_hxwxCxF: of the same dtype.
      strides: vertical and horizontal step of the window.
      padding: as in ``lax.conv_general_dilated``.
    """
    return cast(Array, _conv(images_BxHxWxC, kernel_hxwxCxF, strides, padding))


def _pads(shape, kernel_shape, strides, padding):
    """Rows and columns that the forward convolution adds before and after."""
    return lax.padtype_to_pads(shape[1:3], kernel_shape[:2], strides, padding)


def _flipped(kernel_hxwxCxF):
    return kernel_hxwxCxF[::-1, ::-1].swapaxes(2, 3)


def _images_gradient(shape, kernel_hxwxCxF, grads_BxPxQxF, strides, padding):
    """The output gradients, dilated by the strides, convolved with the flipped kernel, its C and F swapped."""
    kernel, grads = kernel_hxwxCxF, grads_BxPxQxF
    pads = _gradient_pads(shape, kernel.shape, grads.shape, strides, padding)
    return lax.conv_general_dilated(
        grads, _flipped(kernel), (1, 1), pads, lhs_dilation=strides, dimension_numbers=_NHWC
    )


def _gradient_pads(shape, kernel_shape, grads_shape, strides, padding):
    """Rows and columns to add before and after the dilated output gradients, for the gradient of the images."""
    low = [pad[0] for pad in _pads(shape, kernel_shape, strides, padding)]
    return [
        (kernel_shape[i] - 1 - low[i], shape[i + 1] + low[i] - (grads_shape[i + 1] - 1) * strides[i] - 1)
        for i in (0, 1)
    ]


def _kernel_gradient(images_BxHxWxC, kernel_shape, grads_BxPxQxF, strides, padding):
    """Matrix products of the images' patches with the output gradients.

    A convolution with kernels of the images' size gives the same, and is slower. The channels come first in the
    patches, as a product needs them; after the pixels, they would have to be moved for each product. A product takes
    one row of the kernel, as all rows at once (im2col) would write h times as much to memory; only with so few
    channels that this is little, one product is faster.
    """
    height, width, channels, features = kernel_shape
    pads = _pads(images_BxHxWxC.shape, kernel_shape, strides, padding)
    windows = _windows(images_BxHxWxC.transpose(3, 0, 1, 2), (height, width), grads_BxPxQxF.shape[1:3], strides, pads)
    step = height * width if channels <= FEW_CHANNELS else width
    pixels_by_features = grads_BxPxQxF.reshape(-1, features)
    products = [
        jnp.concatenate(windows[i : i + step]).reshape(-1, len(pixels_by_features)) @ pixels_by_features
        for i in range(0, len(windows), step)
    ]
    return jnp.concatenate(products).reshape(kernel_shape)


def _windows(images_XxHxWxX, window, out_sizes, strides, pads, axis=2):
    """The h * w shifted and strided views of padded images, whose height is the given axis, row by row of the window.

    By default the channels come first: [C, B, H, W] -> [C, B, P, Q].
    """
    # Written to memory once, or XLA would move the channels to the front again for each product.
    padded = lax.optimization_barrier(jnp.pad(images_XxHxWxX, (*[(0, 0)] * axis, *pads, *[(0, 0)] * (2 - axis))))
    (height, width), (down, right), before = out_sizes, strides, (slice(None),) * axis
    return [
        padded[*before, top : top + (height - 1) * down + 1 : down, left : left + (width - 1) * right + 1 : right]
        for top in range(window[0])
        for left in range(window[1])
    ]


def _plain_depthwise(images_BxHxWxC, kernel_hxwx1xC, strides):
    channels = images_BxHxWxC.shape[-1]
    return lax.conv_general_dilated(
        images_BxHxWxC, kernel_hxwx1xC, strides, "SAME", dimension_numbers=_NHWC, feature_group_count=channels
    )


def _depthwise_windows(images_BxHxWxC, kernel_shape, strides):
    pads = _pads(images_BxHxWxC.shape, kernel_shape, strides, "SAME")
    sizes = [-(-images_BxHxWxC.shape[i + 1] // strides[i]) for i in (0, 1)]
    return _windows(images_BxHxWxC, kernel_shape[:2], sizes, strides, pads, axis=1)


def _depthwise_sum_of_shifts(images_BxHxWxC, kernel_hxwx1xC, strides):
    # A sum in bfloat16 would round at every term.
    dtype = jnp.promote_types(images_BxHxWxC.dtype, jnp.float32)
    windows = _depthwise_windows(images_BxHxWxC.astype(dtype), kernel_hxwx1xC.shape, strides)
    return _weighted_sum(windows, kernel_hxwx1xC.astype(dtype)).astype(images_BxHxWxC.dtype)


def _weighted_sum(windows, kernel_hxwx1xC):
    """The sum of the h * w windows, each times its row of the kernel."""
    return reduce(jnp.add, map(jnp.multiply, windows, kernel_hxwx1xC.reshape(-1, kernel_hxwx1xC.shape[-1])))


def _depthwise_images_gradient(images_BxHxWxC, kernel_hxwx1xC, grads_BxPxQxC, strides):
    """The output gradients, dilated by the strides, as a sum of shifts with the flipped kernel.

    Differentiating the forward sum gives one padded addition to the whole image for each of its terms.
    """
    images, kernel, grads = images_BxHxWxC, kernel_hxwx1xC, grads_BxPxQxC
    dtype = jnp.promote_types(grads.dtype, jnp.float32)
    pads = _gradient_pads(images.shape, kernel.shape, grads.shape, strides, "SAME")
    dilation = [(0, 0, 0), *((*pad, stride - 1) for pad, stride in zip(pads, strides, strict=True)), (0, 0, 0)]
    padded = lax.pad(grads.astype(dtype), jnp.zeros((), dtype), dilation)
    windows = _windows(padded, kernel.shape[:2], images.shape[1:3], (1, 1), ((0, 0), (0, 0)), axis=1)
    return _weighted_sum(windows, kernel[::-1, ::-1].astype(dtype)).astype(images.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise_conv(images_BxHxWxC, kernel_hxwx1xC, strides):
    on_cpu, plain = (partial(f, strides=strides) for f in (_depthwise_sum_of_shifts, _plain_depthwise))
    return _by_platform(images_BxHxWxC, kernel_hxwx1xC, on_cpu, plain)


def _depthwise_forward(images_BxHxWxC, kernel_hxwx1xC, strides):
    return _depthwise_conv(images_BxHxWxC, kernel_hxwx1xC, strides), (images_BxHxWxC, kernel_hxwx1xC)


def _depthwise_backward(strides, residuals, grads_BxPxQxC):
    def plain(images_BxHxWxC, kernel_hxwx1xC, grads_BxPxQxC):
        return jax.vjp(partial(_plain_depthwise, strides=strides), images_BxHxWxC, kernel_hxwx1xC)[1](grads_BxPxQxC)

    def explicit(images_BxHxWxC, kernel_hxwx1xC, grads_BxPxQxC):
        # Image by image and pixel by pixel: a sum over all of them at once is one that XLA does not vectorize.
        def add(totals, image_and_grads):
            image_HxWxC, grads_PxQxC = image_and_grads
            windows = _depthwise_windows(image_HxWxC[None].astype(dtype), shape, strides)
            return [total + window[0] * grads_PxQxC for total, window in zip(totals, windows, strict=True)], None

        shape, dtype = kernel_hxwx1xC.shape, jnp.promote_types(grads_BxPxQxC.dtype, jnp.float32)
        totals = [jnp.zeros(grads_BxPxQxC.shape[1:], dtype)] * math.prod(shape[:2])
        totals, _ = lax.scan(add, totals, (images_BxHxWxC, grads_BxPxQxC))
        kernel_gradient = jnp.stack([total.sum((0, 1)) for total in totals]).reshape(shape).astype(kernel_hxwx1xC.dtype)
        return _depthwise_images_gradient(images_BxHxWxC, kernel_hxwx1xC, grads_BxPxQxC, strides), kernel_gradient

    return lax.platform_dependent(*residuals, grads_BxPxQxC, cpu=explicit, default=plain)


_depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)


def depthwise_conv(images_BxHxWxC: Array, kernel_hxwx1xC: Array, strides: tuple[int, int] = (1, 1)) -> Array:
    """Returns the "SAME" cross-correlation [B, P, Q, C] of each channel of the images with its own kernel.

    The arguments are those of ``conv``.
    """
    return cast(Array, _depthwise_conv(images_BxHxWxC, kernel_hxwx1xC, strides))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(images_BxHxWxC, window):
    return _max_pool_forward(images_BxHxWxC, window)[0]


def _max_pool_forward(images_BxHxWxC, window):
    images, (down, right) = images_BxHxWxC, window
    # Exact, and on a CPU three times as fast as comparing bfloat16.
    compared = images.astype(jnp.float32) if images.dtype == jnp.bfloat16 else images
    pixels = [compared[:, top::down, left::right] for top in range(down) for left in range(right)]
    maxima = reduce(jnp.maximum, pixels)
    winner = jnp.zeros(maxima.shape, jnp.int8 if len(pixels) <= 128 else jnp.int32)
    for index in reversed(range(len(pixels))):
        winner = jnp.where(pixels[index] == maxima, winner.dtype.type(index), winner)
    # Both are written to memory, or XLA would compute the maxima again for each pixel of the gradient.
    return lax.optimization_barrier((maxima.astype(images.dtype), winner))


def _max_pool_backward(window, winner_BxPxQxC, grads_BxPxQxC):
    batch, height, width, channels = grads_BxPxQxC.shape
    index = jnp.arange(math.prod(window), dtype=winner_BxPxQxC.dtype).reshape(1, 1, window[0], 1, window[1], 1)
    to_winner = jnp.where(winner_BxPxQxC[:, :, None, :, None] == index, grads_BxPxQxC[:, :, None, :, None], 0)
    return (to_winner.reshape(batch, height * window[0], width * window[1], channels),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def max_pool(images_BxHxWxC: Array, window: tuple[int, int] = (2, 2)) -> Array:
    """Returns the maximum [B, H // h, W // w, C] of each h x w window of the images.

    Equals ``lax.reduce_window`` with strides as large as the window, and so does its gradient, which goes to the
    first of equal maxima; leftover rows and columns are dropped.
    """
    height, width = (size - size % step for size, step in zip(images_BxHxWxC.shape[1:3], window, strict=True))
    return cast(Array, _max_pool(images_BxHxWxC[:, :height, :width], window))
