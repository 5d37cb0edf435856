"""Train image classifiers on Fashion-MNIST, and look inside them."""

from cnn.checkpoint import load_best
from cnn.config import DataConfig, ExperimentConfig, LogConfig, ModelConfig, OptimConfig, TrainConfig
from cnn.data import Split, Splits, class_names, load_data
from cnn.errors import ConfigError, DataError, RunDirError, UserError
from cnn.features import feature_maps
from cnn.metrics import Metrics
from cnn.seeds import SeedsResult, fit_seeds
from cnn.state import TrainState, create_state
from cnn.steps import Batch, eval_step, evaluate, predict, train_epoch, train_step
from cnn.summary import layer_table
from cnn.train import Result, fit, load_result

__all__ = [
    "Batch",
    "ConfigError",
    "DataConfig",
    "DataError",
    "ExperimentConfig",
    "LogConfig",
    "Metrics",
    "ModelConfig",
    "OptimConfig",
    "Result",
    "RunDirError",
    "SeedsResult",
    "Split",
    "Splits",
    "TrainConfig",
    "TrainState",
    "UserError",
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
    "predict",
    "train_epoch",
    "train_step",
]
