"""Residual networks for small images: K. He et al., Deep Residual Learning, arXiv:1512.03385, section 4.2."""

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
from jax import Array

from cnn.models.family import Family
from cnn.models.layers import Add, BatchNorm, Conv, Dense, GlobalAveragePool
from cnn.rules import integer, integers


@dataclass(frozen=True)
class ResNetConfig(Family):
    """A residual network; each stage after the first halves the image size and doubles the features."""

    family = "resnet"

    blocks: Annotated[tuple[int, ...], integers(1, 200, 1, 8)] = (3, 3, 3)
    """Blocks of two convolutions in each stage; (n, n, n) gives a ResNet of 6 n + 2 layers."""
    features: Annotated[int, integer(1, 512)] = 16
    """Kernels of each convolution in the first stage."""

    def module(self) -> nn.Module:
        """Returns the network."""
        return ResNet(self)


class ResNet(nn.Module):
    """Stages of blocks of two convolutions and a shortcut; ResNet-20, of three, has 269,434 parameters for 28 x 28 x 1.

    Changed from the paper: images of 28 x 28 x 1, so that the stages see 28, 14 and 7 pixels instead of 32, 16 and 8;
    Glorot's random kernels instead of He's, which normalization makes the same.
    """

    config: ResNetConfig

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, *, train: bool, mask_B: Array | None = None) -> Array:
        """Returns logits [B, K], float32, of images scaled to 0..1; BatchNorm ignores images whose mask is False."""
        config = self.config

        def conv_norm(x_BxHxWxC, names, features, stride=1, activation=nn.relu):
            conv, norm = names
            x = Conv(features, strides=(stride, stride), activation=None, use_bias=False, name=conv)(x_BxHxWxC)
            return BatchNorm(activation, name=norm)(x, train=train, mask_B=mask_B)

        x = conv_norm(images_BxHxWxC.astype(config.dtype), ("conv", "norm"), config.features)
        positions = [(stage, index) for stage, blocks in enumerate(config.blocks) for index in range(blocks)]
        for number, (stage, index) in enumerate(positions, 1):
            features, stride = config.features * 2**stage, 2 if stage and not index else 1
            block, shortcut = f"block{number}", x
            x = conv_norm(x, (f"{block}_conv1", f"{block}_norm1"), features, stride)
            x = conv_norm(x, (f"{block}_conv2", f"{block}_norm2"), features, activation=None)
            x = Add(name=block)(x, shortcut)
        x = GlobalAveragePool(name="pool")(x)
        return Dense(config.classes, activation=None, name="logits")(x).astype("float32")
