"""Vision transformer for small images: A. Dosovitskiy et al., An Image is Worth 16x16 Words, arXiv:2010.11929."""

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
from jax import Array

from cnn.models.family import Family
from cnn.models.layers import Add, Attention, Conv, Dense, Dropout, GlobalAveragePool, LayerNorm, PositionEmbedding
from cnn.rules import BLOCKS, RATE, WIDTH, integer, require


@dataclass(frozen=True)
class ViTConfig(Family):
    """A vision transformer: self-attention between the patches of an image."""

    family = "vit"

    patch_size: Annotated[int, integer(1, 4096)] = 4
    """Side of a patch, in pixels; leftover rows and columns are dropped."""
    features: Annotated[int, WIDTH] = 64
    """Features of a token; a multiple of ``heads``."""
    blocks: Annotated[int, BLOCKS] = 6
    """Number of blocks of attention and two dense layers."""
    heads: Annotated[int, WIDTH] = 4
    """Number of attention heads."""
    expansion: Annotated[int, integer(1, 64)] = 2
    """Ratio of the hidden units of a block's dense layers to ``features``."""
    dropout_rate: Annotated[float, RATE] = 0.1
    """Dropout rate of the outputs of attention and dense layers, before the shortcut is added."""

    def module(self) -> nn.Module:
        """Returns the network."""
        return ViT(self)

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        require(self.features % self.heads == 0, "model.features", self.features, f"a multiple of {self.heads} heads")

    def check_images(self, image_shape: tuple[int, int, int]) -> None:
        """Raises ConfigError if an image is smaller than a patch."""
        shortest = min(image_shape[:2])
        fits = self.patch_size <= shortest
        require(fits, "model.patch_size", self.patch_size, f"at most {shortest}, the images' side")


class ViT(nn.Module):
    """Patches as tokens, blocks of attention and two dense layers, each with a shortcut.

    Changed from the paper: patches of 4 x 4 and few, narrow blocks, as an image is 8 times smaller; hidden layers twice
    as wide as a token instead of four times; dropout only before a shortcut is added; the mean of the tokens instead
    of a class token, as L. Beyer et al. found better, arXiv:2205.01580.
    """

    config: ViTConfig

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, *, train: bool) -> Array:
        """Returns logits [B, K], float32, of images scaled to 0..1; needs a "dropout" key if ``train``."""
        config = self.config
        size = (config.patch_size, config.patch_size)

        def add(x_BxTxD, shortcut_BxTxD, name):
            x = Dropout(config.dropout_rate, name=f"{name}_dropout")(x_BxTxD, train=train)
            return Add(activation=None, name=name)(x, shortcut_BxTxD)

        images = images_BxHxWxC.astype(config.dtype)
        x = Conv(config.features, size, size, "VALID", activation=None, name="patches")(images)
        x = PositionEmbedding(name="tokens")(x)
        for block in (f"block{number}" for number in range(1, config.blocks + 1)):
            shortcut = x
            x = LayerNorm(name=f"{block}_norm1")(x)
            x = Dense(3 * config.features, activation=None, name=f"{block}_queries_keys_values")(x)
            x = Attention(config.heads, name=f"{block}_attention")(x)
            x = Dense(config.features, activation=None, name=f"{block}_project")(x)
            x = shortcut = add(x, shortcut, f"{block}_attended")
            x = LayerNorm(name=f"{block}_norm2")(x)
            x = Dense(config.expansion * config.features, nn.gelu, name=f"{block}_dense1")(x)
            x = Dense(config.features, activation=None, name=f"{block}_dense2")(x)
            x = add(x, shortcut, block)
        x = LayerNorm(name="norm")(x)
        x = GlobalAveragePool(name="pool")(x)
        return Dense(config.classes, activation=None, name="logits")(x).astype("float32")
