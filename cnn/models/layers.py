"""The named layers of the models, one module per layer. In shape suffixes, X is any number of axes."""

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
    """A layer's kernel, stored in float32 and cast to the type of the computation; and its bias, in float32.

    Biases are added in float32, here and below: their gradient sums over the batch and all pixels, and XLA's bfloat16
    accumulation on CPU saturates at 256.
    """
    kernel = layer.param("kernel", nn.initializers.glorot_uniform(), kernel_shape)
    return kernel.astype(dtype), layer.param("bias", zeros, kernel_shape[-1:]) if bias else 0


def _activated(outputs_BxX: Array, activation: Activation | None, dtype: Any) -> Array:
    """The outputs after the activation, if any, cast to the type of the inputs.

    The activation is computed in float32: with the maximum in bfloat16, XLA's loop over convolution and pooling was so
    slow on a CPU that evaluation took three times as long.
    """
    outputs = outputs_BxX.astype(dtype)
    return activation(outputs.astype(jnp.promote_types(dtype, jnp.float32))).astype(dtype) if activation else outputs


class Conv(nn.Module):
    """Convolution, bias and activation as one layer, so that its captured outputs are the inputs of the next layer."""

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "SAME"
    activation: Activation | None = nn.relu
    use_bias: bool = True
    """False before a normalization, which would subtract the bias again."""

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, P, Q, features], P x Q being the size of the outputs."""
        shape = (*self.kernel_size, images_BxHxWxC.shape[-1], self.features)
        kernel, bias = _parameters(self, shape, images_BxHxWxC.dtype, self.use_bias)
        outputs = conv(images_BxHxWxC, kernel, self.strides, self.padding) + bias
        return _activated(outputs, self.activation, images_BxHxWxC.dtype)


class BatchNorm(nn.Module):
    """Normalizes each channel to mean 0 and variance 1, then applies a learned scale and bias and an activation.

    In training, mean and variance are those of the batch, and running averages of them are kept as ``batch_stats``
    for evaluation. Source: S. Ioffe and C. Szegedy, arXiv:1502.03167, algorithm 1; running averages as in the
    usual libraries, of the variance with 1 / n.
    """

    activation: Activation | None = nn.relu
    momentum: float = 0.9
    """Decay of the running averages per step."""
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, *, train: bool, mask_B: Array | None = None) -> Array:
        """Returns [B, H, W, C]; images where the mask is False are ignored in the statistics."""
        dtype, channels = images_BxHxWxC.dtype, images_BxHxWxC.shape[-1:]
        scale, bias = self.param("scale", ones, channels), self.param("bias", zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, channels)
        mean, variance = running_mean.value, running_variance.value
        if train:
            mean, variance = _mean_and_variance(images_BxHxWxC.astype(jnp.float32), mask_B)
            for running, current in ((running_mean, mean), (running_variance, variance)):
                running.value = self.momentum * running.value + (1 - self.momentum) * current
        # In float32, as the difference of an image and its mean is small beside both.
        factor = scale / jnp.sqrt(variance + self.epsilon)
        outputs = (images_BxHxWxC.astype(jnp.float32) - mean) * factor + bias
        return _activated(outputs, self.activation, dtype)


def _mean_and_variance(images_BxHxWxC: Array, mask_B: Array | None) -> tuple[Array, Array]:
    """The mean and variance of each channel, [C], over the pixels of all images where the mask is True."""
    counts_B = jnp.ones(len(images_BxHxWxC)) if mask_B is None else mask_B.astype(jnp.float32)
    weights_B = counts_B / (counts_B.sum() * math.prod(images_BxHxWxC.shape[1:3]))
    # Not by matrix products, which some devices compute in fewer bits than float32 has.
    mean = (weights_B[:, None] * images_BxHxWxC.sum((1, 2))).sum(0)
    return mean, (weights_B[:, None] * ((images_BxHxWxC - mean) ** 2).sum((1, 2))).sum(0)


class Add(nn.Module):
    """The end of a residual block: the sum of its outputs and the shortcut, then the activation.

    Where the block halves the image size and doubles the channels, the shortcut takes every other pixel, and zeros
    for the missing channels: option A of K. He et al., arXiv:1512.03385, section 4.2, which has no parameters.
    """

    activation: Activation | None = nn.relu

    @nn.compact
    def __call__(self, outputs_BxX: Array, shortcut_BxX: Array) -> Array:
        """Returns the shape of the outputs; the shortcut may have more pixels and fewer channels."""
        outputs, shortcut = outputs_BxX, shortcut_BxX
        if shortcut.shape != outputs.shape:
            stride, missing = -(-shortcut.shape[1] // outputs.shape[1]), outputs.shape[-1] - shortcut.shape[-1]
            shortcut = jnp.pad(shortcut[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, missing)))
        return _activated(outputs + shortcut, self.activation, outputs.dtype)


class Concatenate(nn.Module):
    """The channels of several inputs, one after another."""

    @nn.compact
    def __call__(self, *inputs_BxX: Array) -> Array:
        """Returns [B, ..., the sum of the channels]."""
        return jnp.concatenate(inputs_BxX, -1)


class GlobalAveragePool(nn.Module):
    """The mean of each channel over all pixels, or of each feature over all tokens."""

    @nn.compact
    def __call__(self, inputs_BxXxC: Array) -> Array:
        """Returns [B, C]."""
        # Without the barrier, jaxlib 0.12 fuses the mean and the layers before it into one loop, which on CPUs gives
        # NaN for a ResNet in bfloat16.
        return lax.optimization_barrier(inputs_BxXxC).mean(tuple(range(1, inputs_BxXxC.ndim - 1)))


class DepthwiseConv(nn.Module):
    """Convolution of each channel with a kernel of its own; no bias, as a normalization follows.

    Source: F. Chollet, Xception, arXiv:1610.02357, section 3.
    """

    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, P, Q, C], P x Q being the size of the outputs."""
        shape = (*self.kernel_size, 1, images_BxHxWxC.shape[-1])
        kernel, _ = _parameters(self, shape, images_BxHxWxC.dtype, bias=False)
        return depthwise_conv(images_BxHxWxC, kernel, self.strides)


class Scale(nn.Module):
    """Multiplies each channel by its factor."""

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, factors_BxC: Array) -> Array:
        """Returns [B, H, W, C]."""
        factors = factors_BxC[:, None, None].astype(jnp.float32)
        return (images_BxHxWxC * factors).astype(images_BxHxWxC.dtype)


class LayerNorm(nn.Module):
    """Normalizes each token to mean 0 and variance 1, then applies a learned scale and bias.

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
    """Flattens the pixels to tokens and adds a learned embedding of each position."""

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, H * W, C]."""
        batch, height, width, channels = images_BxHxWxC.shape
        position = self.param("position", nn.initializers.normal(0.02), (height * width, channels))
        return (images_BxHxWxC.reshape(batch, -1, channels) + position).astype(images_BxHxWxC.dtype)


def queries_keys_values(features_BxTx3D: Array, heads: int) -> list[Array]:
    """Returns the queries, keys and values of each head, [B, T, heads, D / heads] each."""
    batch, tokens, features = features_BxTx3D.shape
    return jnp.split(features_BxTx3D.reshape(batch, tokens, 3 * heads, features // (3 * heads)), 3, axis=2)


class Attention(nn.Module):
    """Multi-head self-attention.

    Source: A. Vaswani et al., arXiv:1706.03762, section 3.2.
    """

    heads: int

    @nn.compact
    def __call__(self, queries_keys_values_BxTx3D: Array) -> Array:
        """Returns [B, T, D]."""
        batch, tokens, _ = queries_keys_values_BxTx3D.shape
        queries, keys, values = queries_keys_values(queries_keys_values_BxTx3D, self.heads)
        return jax.nn.dot_product_attention(queries, keys, values).reshape(batch, tokens, -1)


class MaxPool(nn.Module):
    """Max-pooling, by default of 2 x 2 pixels without overlap; leftover rows and columns are dropped."""

    window: tuple[int, int] = (2, 2)

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, H // h, W // w, C]."""
        return max_pool(images_BxHxWxC, self.window)


class Flatten(nn.Module):
    """Flattens all axes but the first."""

    @nn.compact
    def __call__(self, inputs_BxX: Array) -> Array:
        """Returns [B, D], D being the product of the sizes of the other axes."""
        return inputs_BxX.reshape(inputs_BxX.shape[0], math.prod(inputs_BxX.shape[1:]))


class Dense(nn.Module):
    """Matrix product, bias and activation as one layer."""

    features: int
    activation: Activation | None = nn.relu

    @nn.compact
    def __call__(self, inputs_BxXxD: Array) -> Array:
        """Returns [B, X, features]."""
        kernel, bias = _parameters(self, (inputs_BxXxD.shape[-1], self.features), inputs_BxXxD.dtype)
        return _activated(inputs_BxXxD @ kernel + bias, self.activation, inputs_BxXxD.dtype)


class Dropout(nn.Module):
    """Zeroes a random share of the inputs in training and scales up the others to keep the mean."""

    rate: float

    @nn.compact
    def __call__(self, inputs_BxX: Array, *, train: bool) -> Array:
        """Returns [B, X]; the inputs themselves unless ``train``."""
        return nn.Dropout(self.rate)(inputs_BxX, deterministic=not train)
