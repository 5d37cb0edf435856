"""Convolution and max-pooling as XLA likes them, and the named layers that models are built from.

XLA's CPU compiler hands a convolution to its fast library only when the operands already lie as it wants them (NHWC,
HWIO). It rewrites other layouts, the two of a convolution's gradient among them, but never inside a loop body
(jax-ml/jax#12868): there they fall to naive loops that are 6 to 20 times slower. As a whole epoch is one loop here,
the gradients are written out: the images' as a convolution in the wanted layout, the kernel's as matrix products. On
other platforms the plain formulation is the fast one; which is taken is decided when the program is lowered, so that
nothing here asks where it runs.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

Padding = Literal["SAME", "VALID"]

_NHWC = ("NHWC", "HWIO", "NHWC")


def _plain_conv(images: Array, kernel: Array, strides: tuple[int, int], padding: Padding) -> Array:
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_NHWC)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(images, kernel, strides, padding):
    return _plain_conv(images, kernel, strides, padding)


def _conv_forward(images, kernel, strides, padding):
    return _plain_conv(images, kernel, strides, padding), (images, kernel)


def _conv_backward(strides, padding, residuals, grads):
    images, kernel = residuals

    def plain(images, kernel, grads):
        return jax.vjp(lambda x, k: _plain_conv(x, k, strides, padding), images, kernel)[1](grads)

    def written_out(images, kernel, grads):
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


def _images_gradient(shape, kernel, grads, strides, padding):
    """The output gradients, spread by the strides, convolved with the flipped kernel, its C and F swapped."""
    low = [pad[0] for pad in _pads(shape, kernel.shape, strides, padding)]
    pads = [
        (kernel.shape[i] - 1 - low[i], shape[i + 1] + low[i] - (grads.shape[i + 1] - 1) * strides[i] - 1)
        for i in (0, 1)
    ]
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(grads, flipped, (1, 1), pads, lhs_dilation=strides, dimension_numbers=_NHWC)


def _kernel_gradient(images, kernel_shape, grads, strides, padding):
    """Matrix products of the images' patches with the output gradients.

    A convolution with kernels of the images' size would do it as well, and is slower. A product takes a row of the
    kernel at a time, as all its rows at once (im2col) would write h times as much to memory; only where the channels
    are so few that this is little, one product is faster.
    """
    height, width, channels, _ = kernel_shape
    pads = _pads(images.shape, kernel_shape, strides, padding)
    windows = _windows(images, (height, width), grads.shape[1:3], strides, pads, 0)
    step = width if channels > 4 else height * width
    patches = [jnp.concatenate(windows[i : i + step], axis=-1) for i in range(0, len(windows), step)]
    products = [jnp.einsum("bhwp,bhwf->pf", patch, grads) for patch in patches]
    return jnp.concatenate(products).reshape(kernel_shape)


def _windows(images, window, out_sizes, strides, pads, fill):
    """The h * w shifted and strided views [B, H', W', C] of the padded images, row by row of the window."""
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)), constant_values=fill)
    (height, width), (down, right) = out_sizes, strides
    return [
        padded[:, top : top + (height - 1) * down + 1 : down, left : left + (width - 1) * right + 1 : right]
        for top in range(window[0])
        for left in range(window[1])
    ]


def max_pool(
    images: Array, window: tuple[int, int] = (2, 2), strides: tuple[int, int] = (2, 2), padding: Padding = "VALID"
) -> Array:
    """Returns the maximum [B, H', W', C] of each window of images [B, H, W, C].

    Equals ``lax.reduce_window``. The gradient goes to the maximum; among equal maxima, the CPU's formulation shares it
    where ``reduce_window`` gives it to the first.
    """
    dims, steps = (1, *window, 1), (1, *strides, 1)
    pads = lax.padtype_to_pads(images.shape, dims, steps, padding)
    out_sizes = [
        (size + sum(pad) - k) // stride + 1
        for size, pad, k, stride in zip(images.shape, pads, dims, steps, strict=True)
    ][1:3]

    def plain(images):
        return lax.reduce_window(images, -jnp.inf, lax.max, dims, steps, padding)

    def strided(images):
        return reduce(jnp.maximum, _windows(images, window, out_sizes, strides, pads[1:3], -jnp.inf))

    return lax.platform_dependent(images, cpu=strided, default=plain)


Activation = Callable[[Array], Array]


class Conv(nn.Module):
    """Convolution, bias and activation as one layer, so that what is captured is what the next layer sees."""

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "SAME"
    activation: Activation | None = nn.relu

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, H', W', features]."""
        shape = (*self.kernel_size, images_BxHxWxC.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        outputs = conv(images_BxHxWxC, kernel, self.strides, self.padding) + bias
        return self.activation(outputs) if self.activation else outputs


class MaxPool(nn.Module):
    """Max-pooling, by default of 2 x 2 pixels without overlap; a row or column that is left over is dropped."""

    window: tuple[int, int] = (2, 2)

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, H // h, W // w, C]."""
        return max_pool(images_BxHxWxC, self.window, self.window)


class Flatten(nn.Module):
    """All axes but the first become one."""

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Returns [B, everything else]."""
        return inputs.reshape(inputs.shape[0], -1)


class Dense(nn.Module):
    """Matrix product, bias and activation as one layer."""

    features: int
    activation: Activation | None = nn.relu

    @nn.compact
    def __call__(self, inputs_BxD: Array) -> Array:
        """Returns [B, features]."""
        shape = (inputs_BxD.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        outputs = inputs_BxD @ kernel + bias
        return self.activation(outputs) if self.activation else outputs


class Dropout(nn.Module):
    """Zeroes a share of the inputs in training and scales the others up, so that the mean stays."""

    rate: float

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Returns the inputs, changed only if ``train``."""
        return nn.Dropout(self.rate)(inputs, deterministic=not train)
