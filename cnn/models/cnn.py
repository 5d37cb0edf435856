"""The chapter's convolutional network: Conv-Pool-Conv-Pool-Dense-Dropout-Dense."""

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
from jax import Array

from cnn.models.family import Family
from cnn.models.layers import Conv, Dense, Dropout, Flatten, MaxPool
from cnn.rules import RATE, WIDTH


@dataclass(frozen=True)
class ModelConfig(Family):
    """The chapter's network: Conv-Pool-Conv-Pool-Dense-Dropout-Dense."""

    family = "cnn"
    smallest_side = 4

    conv1_features: Annotated[int, WIDTH] = 32
    """Kernels of the first convolution."""
    conv2_features: Annotated[int, WIDTH] = 64
    """Kernels of the second convolution."""
    dense_features: Annotated[int, WIDTH] = 100
    """Units of the hidden dense layer."""
    dropout_rate: Annotated[float, RATE] = 0.4
    """Dropout rate of the hidden units."""

    def module(self) -> nn.Module:
        """Returns the network."""
        return CNN(self)


class CNN(nn.Module):
    """Two convolutions with pooling, then two dense layers; 333,526 parameters for 28 x 28 x 1 images."""

    config: ModelConfig

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, *, train: bool) -> Array:
        """Returns logits [B, K], float32, of images scaled to 0..1; needs a "dropout" key if ``train``."""
        config = self.config
        x = Conv(config.conv1_features, name="conv1")(images_BxHxWxC.astype(config.dtype))
        x = MaxPool(name="pool1")(x)
        x = Conv(config.conv2_features, name="conv2")(x)
        x = MaxPool(name="pool2")(x)
        x = Flatten(name="flatten")(x)
        x = Dense(config.dense_features, name="dense")(x)
        x = Dropout(config.dropout_rate, name="dropout")(x, train=train)
        return Dense(config.classes, activation=None, name="logits")(x).astype("float32")
