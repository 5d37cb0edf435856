"""AlexNet for small images: A. Krizhevsky et al., ImageNet Classification with Deep CNNs, NeurIPS 2012, section 3."""

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
from jax import Array

from cnn.models.family import Family
from cnn.models.layers import Conv, Dense, Dropout, Flatten, MaxPool
from cnn.rules import RATE, WIDTH, integer


@dataclass(frozen=True)
class AlexNetConfig(Family):
    """Five convolutions and three dense layers."""

    family = "alexnet"
    smallest_side = 8

    features: Annotated[int, integer(3, 24_576)] = 24
    """Kernels of the first convolution; the others have 8/3, 4, 4 and 8/3 times as many, as in the paper."""
    dense_features: Annotated[int, WIDTH] = 256
    """Units of each of the two hidden dense layers."""
    dropout_rate: Annotated[float, RATE] = 0.5
    """Dropout rate of the hidden units."""

    def module(self) -> nn.Module:
        """Returns the network."""
        return AlexNet(self)


class AlexNet(nn.Module):
    """Five convolutions, three dense layers; 424,378 parameters for 28 x 28 x 1.

    Changed from the paper: a quarter of the kernels and a sixteenth of the units, as there are 10 classes; smaller
    kernels without strides and pooling without overlap, as an image is 8 times smaller; no response normalization,
    which its successors dropped as well; no halves on two devices.
    """

    config: AlexNetConfig

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, *, train: bool) -> Array:
        """Returns logits [B, K], float32, of images scaled to 0..1; needs a "dropout" key if ``train``."""
        config = self.config
        first, second, third = config.features, config.features * 8 // 3, config.features * 4
        x = Conv(first, (5, 5), name="conv1")(images_BxHxWxC.astype(config.dtype))
        x = MaxPool(name="pool1")(x)
        x = Conv(second, name="conv2")(x)
        x = MaxPool(name="pool2")(x)
        x = Conv(third, name="conv3")(x)
        x = Conv(third, name="conv4")(x)
        x = Conv(second, name="conv5")(x)
        x = MaxPool(name="pool5")(x)
        x = Flatten(name="flatten")(x)
        for number in (1, 2):
            x = Dense(config.dense_features, name=f"dense{number}")(x)
            x = Dropout(config.dropout_rate, name=f"dropout{number}")(x, train=train)
        return Dense(config.classes, activation=None, name="logits")(x).astype("float32")
