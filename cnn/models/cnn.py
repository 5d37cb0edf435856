"""The chapter's convolutional network: Conv-Pool-Conv-Pool-Dense-Dropout-Dense."""

import flax.linen as nn
from jax import Array

from cnn.config import ModelConfig
from cnn.models.layers import Conv, Dense, Dropout, Flatten, MaxPool


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
