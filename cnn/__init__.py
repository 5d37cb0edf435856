"""Train image classifiers on Fashion-MNIST, and look inside them."""

import os

# Before JAX is loaded: jaxlib 0.10 takes a preference of its compiler for a feature that processors with AVX-512 lack,
# and would say so whenever it loads a program that it has kept.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cnn.checkpoint import load_best
from cnn.config import (
    AlexNetConfig,
    AugmentConfig,
    DataConfig,
    DenseConfig,
    EfficientNetConfig,
    ExperimentConfig,
    LogConfig,
    MeshConfig,
    ModelConfig,
    OptimConfig,
    ResNetConfig,
    TrainConfig,
    TransferConfig,
    ViTConfig,
)
from cnn.data import Split, Splits, class_names, load_data
from cnn.errors import ConfigError, DamagedError, DataError, RunDirError, Stopped, UserError
from cnn.export import load_safetensors
from cnn.features import feature_maps
from cnn.metrics import Metrics
from cnn.prediction import read_image
from cnn.result import Result, load_result
from cnn.seeds import SeedsResult, fit_seeds
from cnn.sharding import make_mesh
from cnn.state import TrainState, create_state
from cnn.steps import Batch, eval_step, evaluate, predict, train_epoch, train_step, train_steps
from cnn.summary import layer_table
from cnn.sweeps import sweep
from cnn.train import fit
from cnn.transfer import take_layers

__all__ = [
    "AlexNetConfig",
    "AugmentConfig",
    "Batch",
    "ConfigError",
    "DamagedError",
    "DataConfig",
    "DataError",
    "DenseConfig",
    "EfficientNetConfig",
    "ExperimentConfig",
    "LogConfig",
    "MeshConfig",
    "Metrics",
    "ModelConfig",
    "OptimConfig",
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
    "class_names",
    "create_state",
    "eval_step",
    "evaluate",
    "feature_maps",
    "fit",
    "fit_seeds",
    "layer_table",
    "load_best",
    "load_data",
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
