"""One file a family of models; every layer is named."""

import flax.linen as nn

from cnn.config import (
    AlexNetConfig,
    AnyModelConfig,
    DenseConfig,
    EfficientNetConfig,
    ModelConfig,
    ResNetConfig,
    ViTConfig,
)
from cnn.models.alexnet import AlexNet
from cnn.models.cnn import CNN
from cnn.models.dense import DenseNetwork
from cnn.models.efficientnet import EfficientNet
from cnn.models.resnet import ResNet
from cnn.models.vit import ViT

FAMILIES = {
    ModelConfig: CNN,
    DenseConfig: DenseNetwork,
    AlexNetConfig: AlexNet,
    ResNetConfig: ResNet,
    EfficientNetConfig: EfficientNet,
    ViTConfig: ViT,
}
"""The module of each family, by its configuration."""


def make_model(config: AnyModelConfig) -> nn.Module:
    """Returns the module that a configuration describes: images [B, H, W, C] from 0 to 1 -> logits [B, K]."""
    return FAMILIES[type(config)](config)
