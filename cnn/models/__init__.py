"""Networks, one file per family with its configuration; layers; convolutions. Imports detection, rules, errors."""

from cnn.models.alexnet import AlexNetConfig
from cnn.models.cnn import ModelConfig
from cnn.models.dense import DenseConfig
from cnn.models.efficientnet import EfficientNetConfig
from cnn.models.recurrent import RecurrentConfig
from cnn.models.resnet import ResNetConfig
from cnn.models.vit import ViTConfig
from cnn.models.yolo import YoloConfig

SHIPPED = (
    *(ModelConfig, DenseConfig, AlexNetConfig, ResNetConfig, EfficientNetConfig, ViTConfig, RecurrentConfig),
    YoloConfig,
)
"""The configurations of the model families; one's own need no entry anywhere."""
