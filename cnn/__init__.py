"""Train image classifiers on Fashion-MNIST, and look inside them."""

import os

# Before JAX is imported: jaxlib 0.10 mistakes a compiler preference for a feature that processors with AVX-512 lack,
# and would warn whenever it loads a cached program.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cnn.errors import jax_error

# Not used here: imported first, so that a setting that JAX refuses is one line.
try:
    import jax  # noqa: F401
except Exception as error:
    raise jax_error(error) from None

from cnn.config import (
    AugmentConfig,
    DataConfig,
    DistillConfig,
    ExperimentConfig,
    LogConfig,
    MeshConfig,
    OptimConfig,
    TrainConfig,
    TransferConfig,
)
from cnn.data.image_files import read_image
from cnn.data.splits import Split, Splits, load_data, load_images
from cnn.devices.sharding import make_mesh
from cnn.errors import ConfigError, DamagedError, DataError, RunDirError, Stopped, UserError
from cnn.exchange.exporting import load_pretrained, load_safetensors
from cnn.look.features import feature_maps
from cnn.models.alexnet import AlexNetConfig
from cnn.models.cnn import ModelConfig
from cnn.models.dense import DenseConfig
from cnn.models.efficientnet import EfficientNetConfig
from cnn.models.recurrent import RecurrentConfig
from cnn.models.resnet import ResNetConfig
from cnn.models.vit import ViTConfig
from cnn.models.yolo import YoloConfig
from cnn.resolution import class_names
from cnn.runs.checkpoint import load_best
from cnn.runs.fit import fit
from cnn.runs.result import Result, load_result
from cnn.runs.seeds import SeedsResult, fit_seeds
from cnn.runs.sweeps import sweep
from cnn.runs.transfer import take_layers
from cnn.training.border import detect, eval_step, evaluate, predict, train_epoch, train_step, train_steps
from cnn.training.metrics import Metrics
from cnn.training.state import TrainState, create_state
from cnn.training.summary import layer_table
from cnn.training.task import Batch

__all__ = [
    "AlexNetConfig",
    "AugmentConfig",
    "Batch",
    "ConfigError",
    "DamagedError",
    "DataConfig",
    "DataError",
    "DenseConfig",
    "DistillConfig",
    "EfficientNetConfig",
    "ExperimentConfig",
    "LogConfig",
    "MeshConfig",
    "Metrics",
    "ModelConfig",
    "OptimConfig",
    "RecurrentConfig",
    "ResNetConfig",
    "Result",
    "RunDirError",
    "SeedsResult",
    "Split",
    "Splits",
    "Stopped",
    "TrainConfig",
    "TrainState",
    "TransferConfig",
    "UserError",
    "ViTConfig",
    "YoloConfig",
    "class_names",
    "create_state",
    "detect",
    "eval_step",
    "evaluate",
    "feature_maps",
    "fit",
    "fit_seeds",
    "layer_table",
    "load_best",
    "load_data",
    "load_images",
    "load_pretrained",
    "load_result",
    "load_safetensors",
    "make_mesh",
    "predict",
    "read_image",
    "sweep",
    "take_layers",
    "train_epoch",
    "train_step",
    "train_steps",
]
