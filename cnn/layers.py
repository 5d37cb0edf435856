"""The named layers that models are built from: a module each, its parameters beside what it computes."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cnn.convolution import Padding, conv, max_pool

Activation = Callable[[Array], Array]

zeros, ones = nn.initializers.zeros_init(), nn.initializers.ones_init()


def _parameters(layer: nn.Module, kernel_shape: tuple[int, ...], dtype: Any, bias: bool = True) -> tuple[Array, Any]:
    """A layer's kernel and bias, kept in float32, as the inputs' type: a layer computes in what it is given."""
    kernel = layer.param("kernel", nn.initializers.glorot_uniform(), kernel_shape)
    return kernel.astype(dtype), layer.param("bias", zeros, kernel_shape[-1:]).astype(dtype) if bias else 0


class Conv(nn.Module):
    """Convolution, bias and activation as one layer, so that what is captured is what the next layer sees."""

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "SAME"
    activation: Activation | None = nn.relu
    use_bias: bool = True
    """False where a normalization follows, which would take it away again."""

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, H', W', features]."""
        shape = (*self.kernel_size, images_BxHxWxC.shape[-1], self.features)
        kernel, bias = _parameters(self, shape, images_BxHxWxC.dtype, self.use_bias)
        outputs = conv(images_BxHxWxC, kernel, self.strides, self.padding) + bias
        return self.activation(outputs) if self.activation else outputs


class BatchNorm(nn.Module):
    """Each channel with mean 0 and variance 1, then scaled and shifted as is learned, then an activation.

    In training, mean and variance are those of the batch, and running averages of them are kept as ``batch_stats``,
    which evaluation takes. Source: S. Ioffe and C. Szegedy, arXiv:1502.03167, algorithm 1.
    """

    activation: Activation | None = nn.relu
    momentum: float = 0.9
    """Share of the running averages that stays in each step."""
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, *, train: bool, mask: Array | None = None) -> Array:
        """Returns the same shape; images whose mask, bool [B], is False count for nothing in the statistics."""
        dtype, channels = images_BxHxWxC.dtype, images_BxHxWxC.shape[-1:]
        scale, bias = self.param("scale", ones, channels), self.param("bias", zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, channels)
        mean, variance = running_mean.value, running_variance.value
        if train:
            mean, variance = _mean_and_variance(images_BxHxWxC.astype(jnp.float32), mask)
            for running, of_batch in ((running_mean, mean), (running_variance, variance)):
                running.value = self.momentum * running.value + (1 - self.momentum) * of_batch
        factor = scale / jnp.sqrt(variance + self.epsilon)
        outputs = images_BxHxWxC * factor.astype(dtype) + (bias - mean * factor).astype(dtype)
        return self.activation(outputs) if self.activation else outputs


def _mean_and_variance(images: Array, mask: Array | None) -> tuple[Array, Array]:
    """Of each channel, over the images that count and their pixels."""
    counts = jnp.ones(len(images)) if mask is None else mask.astype(jnp.float32)
    weights_B = counts / (counts.sum() * math.prod(images.shape[1:3]))
    mean = weights_B @ images.sum((1, 2))
    return mean, weights_B @ ((images - mean) ** 2).sum((1, 2))


class Add(nn.Module):
    """The end of a residual block: what it computed and what went round it, added up, then the activation.

    Where the block halves the image and doubles the channels, the shortcut takes every other pixel, and zeros for the
    channels that it lacks: option A of K. He et al., arXiv:1512.03385, section 4.2, which has no parameters.
    """

    activation: Activation | None = nn.relu

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, shortcut: Array) -> Array:
        """Returns the shape of the first, whose channels the shortcut may have fewer of."""
        stride, missing = -(-shortcut.shape[1] // images_BxHxWxC.shape[1]), images_BxHxWxC.shape[-1] - shortcut.shape[-1]
        outputs = images_BxHxWxC + jnp.pad(shortcut[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, missing)))
        return self.activation(outputs) if self.activation else outputs


class MeanPool(nn.Module):
    """The mean of each channel over the whole image."""

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, C]."""
        return images_BxHxWxC.mean((1, 2))


class MaxPool(nn.Module):
    """Max-pooling, by default of 2 x 2 pixels without overlap; a row or column that is left over is dropped."""

    window: tuple[int, int] = (2, 2)

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, H // h, W // w, C]."""
        return max_pool(images_BxHxWxC, self.window)


class Flatten(nn.Module):
    """All axes but the first become one."""

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Returns [B, everything else]."""
        return inputs.reshape(inputs.shape[0], math.prod(inputs.shape[1:]))


class Dense(nn.Module):
    """Matrix product, bias and activation as one layer."""

    features: int
    activation: Activation | None = nn.relu

    @nn.compact
    def __call__(self, inputs_BxD: Array) -> Array:
        """Returns [B, features]."""
        shape = (inputs_BxD.shape[-1], self.features)
        kernel, bias = _parameters(self, shape, inputs_BxD.dtype)
        outputs = inputs_BxD @ kernel + bias
        return self.activation(outputs) if self.activation else outputs


class Dropout(nn.Module):
    """Zeroes a share of the inputs in training and scales the others up, so that the mean stays."""

    rate: float

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Returns the inputs, changed only if ``train``."""
        return nn.Dropout(self.rate)(inputs, deterministic=not train)
