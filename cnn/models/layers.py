"""The named layers that models are built from: a module each, its parameters beside what it computes."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from cnn.models.convolution import Padding, conv, depthwise_conv, max_pool

Activation = Callable[[Array], Array]

zeros, ones = nn.initializers.zeros_init(), nn.initializers.ones_init()


def _parameters(layer: nn.Module, kernel_shape: tuple[int, ...], dtype: Any, bias: bool = True) -> tuple[Array, Any]:
    """A layer's kernel, kept in float32, as the inputs' type, in which it computes; and its bias, which stays float32.

    What is added to many numbers is added in float32, here and below: its gradient is the sum of theirs, and XLA's
    sum in bfloat16 comes to no more than 256 ones on a CPU.
    """
    kernel = layer.param("kernel", nn.initializers.glorot_uniform(), kernel_shape)
    return kernel.astype(dtype), layer.param("bias", zeros, kernel_shape[-1:]) if bias else 0


def _activated(outputs: Array, activation: Activation | None, dtype: Any) -> Array:
    """The outputs as the inputs' type, after the activation, if there is one.

    That is computed in float32: with the maximum in bfloat16, XLA's loop over convolution and pooling was so slow on a
    CPU that evaluation took three times as long.
    """
    outputs = outputs.astype(dtype)
    return activation(outputs.astype(jnp.promote_types(dtype, jnp.float32))).astype(dtype) if activation else outputs


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
        return _activated(outputs, self.activation, images_BxHxWxC.dtype)


class BatchNorm(nn.Module):
    """Each channel with mean 0 and variance 1, then scaled and shifted as is learned, then an activation.

    In training, mean and variance are those of the batch, and running averages of them are kept as ``batch_stats``,
    which evaluation takes. Source: S. Ioffe and C. Szegedy, arXiv:1502.03167, algorithm 1; running averages as the
    usual libraries keep them, of the variance with 1 / n.
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
        # In float32, as the difference of an image and its mean is small beside both.
        factor = scale / jnp.sqrt(variance + self.epsilon)
        outputs = (images_BxHxWxC.astype(jnp.float32) - mean) * factor + bias
        return _activated(outputs, self.activation, dtype)


def _mean_and_variance(images: Array, mask: Array | None) -> tuple[Array, Array]:
    """Of each channel, over the images that count and their pixels."""
    counts = jnp.ones(len(images)) if mask is None else mask.astype(jnp.float32)
    weights_B = counts / (counts.sum() * math.prod(images.shape[1:3]))
    # Not by matrix products, which some devices compute in fewer bits than float32 has.
    mean = (weights_B[:, None] * images.sum((1, 2))).sum(0)
    return mean, (weights_B[:, None] * ((images - mean) ** 2).sum((1, 2))).sum(0)


class Add(nn.Module):
    """The end of a residual block: what it computed and what went round it, added up, then the activation.

    Where the block halves the image and doubles the channels, the shortcut takes every other pixel, and zeros for the
    channels that it lacks: option A of K. He et al., arXiv:1512.03385, section 4.2, which has no parameters.
    """

    activation: Activation | None = nn.relu

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, shortcut: Array) -> Array:
        """Returns the shape of the first, whose channels the shortcut may have fewer of."""
        if shortcut.shape != images_BxHxWxC.shape:
            stride = -(-shortcut.shape[1] // images_BxHxWxC.shape[1])
            missing = images_BxHxWxC.shape[-1] - shortcut.shape[-1]
            shortcut = jnp.pad(shortcut[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, missing)))
        return _activated(images_BxHxWxC + shortcut, self.activation, images_BxHxWxC.dtype)


class GlobalAveragePool(nn.Module):
    """The mean of each channel over the whole image, or of each feature over the tokens."""

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Returns [B, C]."""
        # Without the barrier, jaxlib 0.12 makes one loop of the mean and the layers before it, which on CPUs gives NaN
        # for a ResNet in bfloat16.
        return lax.optimization_barrier(inputs).mean(tuple(range(1, inputs.ndim - 1)))


class DepthwiseConv(nn.Module):
    """A kernel for each channel, which sees that channel alone; no bias, as a normalization follows.

    Source: F. Chollet, Xception, arXiv:1610.02357, section 3.
    """

    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, H', W', C]."""
        shape = (*self.kernel_size, 1, images_BxHxWxC.shape[-1])
        kernel, _ = _parameters(self, shape, images_BxHxWxC.dtype, bias=False)
        return depthwise_conv(images_BxHxWxC, kernel, self.strides)


class Scale(nn.Module):
    """Each channel times its factor."""

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, factors_BxC: Array) -> Array:
        """Returns [B, H, W, C]."""
        factors = factors_BxC[:, None, None].astype(jnp.float32)
        return (images_BxHxWxC * factors).astype(images_BxHxWxC.dtype)


class LayerNorm(nn.Module):
    """Each token with mean 0 and variance 1, then scaled and shifted as is learned.

    Source: J. L. Ba et al., arXiv:1607.06450, section 3.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, tokens_BxTxD: Array) -> Array:
        """Returns [B, T, D]."""
        features, dtype = tokens_BxTxD.shape[-1:], tokens_BxTxD.dtype
        scale, bias = self.param("scale", ones, features), self.param("bias", zeros, features)
        tokens = tokens_BxTxD.astype(jnp.float32)
        centered = tokens - tokens.mean(-1, keepdims=True)
        variance = (centered**2).mean(-1, keepdims=True)
        return (centered * lax.rsqrt(variance + self.epsilon) * scale + bias).astype(dtype)


class PositionEmbedding(nn.Module):
    """The pixels in a row, each with what is learned of its place added."""

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, H * W, C]."""
        batch, height, width, channels = images_BxHxWxC.shape
        position = self.param("position", nn.initializers.normal(0.02), (height * width, channels))
        return (images_BxHxWxC.reshape(batch, -1, channels) + position).astype(images_BxHxWxC.dtype)


class Attention(nn.Module):
    """Each token takes of the values of all, in as many ways as there are heads.

    Source: A. Vaswani et al., arXiv:1706.03762, section 3.2.
    """

    heads: int

    @nn.compact
    def __call__(self, queries_keys_values_BxTx3D: Array) -> Array:
        """Returns [B, T, D]."""
        batch, tokens, features = queries_keys_values_BxTx3D.shape
        shape = (batch, tokens, 3 * self.heads, features // (3 * self.heads))
        queries, keys, values = jnp.split(queries_keys_values_BxTx3D.reshape(shape), 3, axis=2)
        return jax.nn.dot_product_attention(queries, keys, values).reshape(batch, tokens, -1)


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
        """Returns [B, features]; what axes lie between stay."""
        shape = (inputs_BxD.shape[-1], self.features)
        kernel, bias = _parameters(self, shape, inputs_BxD.dtype)
        return _activated(inputs_BxD @ kernel + bias, self.activation, inputs_BxD.dtype)


class Dropout(nn.Module):
    """Zeroes a share of the inputs in training and scales the others up, so that the mean stays."""

    rate: float

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Returns the inputs, changed only if ``train``."""
        return nn.Dropout(self.rate)(inputs, deterministic=not train)
