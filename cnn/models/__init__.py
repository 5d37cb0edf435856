"""One file a family of models; every layer is named."""

import flax.linen as nn

from cnn.config import AnyModelConfig, DenseConfig, ModelConfig, ResNetConfig
from cnn.models.cnn import CNN
from cnn.models.dense import DenseNetwork
from cnn.models.resnet import ResNet

FAMILIES = {ModelConfig: CNN, DenseConfig: DenseNetwork, ResNetConfig: ResNet}
"""The module of each family, by its configuration."""


def make_model(config: AnyModelConfig) -> nn.Module:
    """Returns the module that a configuration describes: images [B, H, W, C] from 0 to 1 -> logits [B, K]."""
    return FAMILIES[type(config)](config)
