"""Dense networks; without hidden layers, softmax regression."""

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
from jax import Array

from cnn.models.family import Family
from cnn.models.layers import Dense, Dropout, Flatten
from cnn.rules import RATE, integers


@dataclass(frozen=True)
class DenseConfig(Family):
    """A dense network; without hidden layers, softmax regression."""

    family = "dense"

    features: Annotated[tuple[int, ...], integers(1, 65_536)] = (100,)
    """Units of each hidden layer."""
    dropout_rate: Annotated[float, RATE] = 0.0
    """Dropout rate of the last hidden layer's units."""

    def module(self) -> nn.Module:
        """Returns the network."""
        return DenseNetwork(self)


class DenseNetwork(nn.Module):
    """Hidden layers dense1, dense2 and so on, then the logits; 784-100-10 has 79,510 parameters, 784-10 has 7,850."""

    config: DenseConfig

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, *, train: bool) -> Array:
        """Returns logits [B, K], float32, of images scaled to 0..1; needs a "dropout" key if ``train``."""
        config = self.config
        x = Flatten(name="flatten")(images_BxHxWxC.astype(config.dtype))
        for number, features in enumerate(config.features, 1):
            x = Dense(features, name=f"dense{number}")(x)
        if config.dropout_rate:
            x = Dropout(config.dropout_rate, name="dropout")(x, train=train)
        return Dense(config.classes, activation=None, name="logits")(x).astype("float32")
