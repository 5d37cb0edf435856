"""EfficientNet for small images: M. Tan and Q. V. Le, EfficientNet, arXiv:1905.11946, section 4."""

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
import jax
from jax import Array

from cnn.models.family import Family
from cnn.models.layers import Add, BatchNorm, Conv, Dense, DepthwiseConv, Dropout, GlobalAveragePool, Scale
from cnn.rules import BLOCKS, RATE, integer, integers

# Squeeze and excitation reduces the channels between blocks to a quarter.
SQUEEZE = 4


@dataclass(frozen=True)
class EfficientNetConfig(Family):
    """Inverted residual blocks with depthwise convolutions, and with squeeze and excitation."""

    family = "efficientnet"

    features: Annotated[tuple[int, ...], integers(1, 65_536, 1, 8)] = (16, 24, 40, 80)
    """Channels between the blocks of each stage; each stage after the first halves the image size."""
    blocks: Annotated[int, BLOCKS] = 2
    """Blocks of each stage after the first, which has one."""
    expansion: Annotated[int, integer(1, 64)] = 4
    """Expansion ratio of the inverted residual blocks after the first."""
    dropout_rate: Annotated[float, RATE] = 0.2
    """Dropout rate of the last layer's inputs."""

    def module(self) -> nn.Module:
        """Returns the network."""
        return EfficientNet(self)


class EfficientNet(nn.Module):
    """Inverted residual blocks with squeeze and excitation and the swish activation.

    Changed from the paper's B0: only the first four stages of blocks, and no stride in the first convolution, as an
    image is 8 times smaller; there 16 kernels instead of 32, and 320 at the head instead of 1,280; two blocks in each
    stage but the first; only kernels of 3 x 3; an expansion of 4 instead of 6; no stochastic depth.
    """

    config: EfficientNetConfig

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, *, train: bool, mask_B: Array | None = None) -> Array:
        """Returns logits [B, K], float32, of images scaled to 0..1; BatchNorm ignores images whose mask is False."""
        config = self.config

        def norm(x_BxHxWxC, name, activation=nn.swish):
            return BatchNorm(activation, name=name)(x_BxHxWxC, train=train, mask_B=mask_B)

        def conv(x_BxHxWxC, name, features, size=1):
            return Conv(features, (size, size), activation=None, use_bias=False, name=name)(x_BxHxWxC)

        x = norm(conv(images_BxHxWxC.astype(config.dtype), "conv", config.features[0], size=3), "norm")
        # Features, expansion and stride of each block.
        stages = [(config.features[0], 1, 1)]
        for features in config.features[1:]:
            stages += [(features, config.expansion, 2 if not index else 1) for index in range(config.blocks)]
        for number, (features, expansion, stride) in enumerate(stages, 1):
            block, shortcut = f"block{number}", x
            if expansion > 1:
                x = norm(conv(x, f"{block}_expand", x.shape[-1] * expansion), f"{block}_norm1")
            x = DepthwiseConv(strides=(stride, stride), name=f"{block}_depthwise")(x)
            x = norm(x, f"{block}_norm2")
            factors_BxC = GlobalAveragePool(name=f"{block}_squeeze")(x)
            factors_BxC = Dense(max(shortcut.shape[-1] // SQUEEZE, 1), nn.swish, name=f"{block}_reduce")(factors_BxC)
            factors_BxC = Dense(x.shape[-1], jax.nn.sigmoid, name=f"{block}_excite")(factors_BxC)
            x = Scale(name=f"{block}_scale")(x, factors_BxC)
            x = conv(x, f"{block}_project", features)
            x = norm(x, f"{block}_norm3", activation=None)
            if x.shape == shortcut.shape:
                x = Add(activation=None, name=block)(x, shortcut)
        x = norm(conv(x, "head", config.expansion * config.features[-1]), "head_norm")
        x = GlobalAveragePool(name="pool")(x)
        x = Dropout(config.dropout_rate, name="dropout")(x, train=train)
        return Dense(config.classes, activation=None, name="logits")(x).astype("float32")
