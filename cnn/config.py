"""Everything that defines a run: frozen dataclasses, checked when they are made, that round trip through JSON.

Make variants with ``dataclasses.replace``; every field is an option of the command line: ``--optim.batch_size 64``.
"""

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from cnn.errors import ConfigError


class Dataset(NamedTuple):
    """What is known of a data set before it is loaded."""

    image_shape: tuple[int, int, int]
    """Height, width and channels."""
    train_images: int
    """Number of published training images, which the validation images are taken from."""


DatasetName = Literal["fashion_mnist", "mnist", "kmnist", "cifar10"]

DATASETS: dict[DatasetName, Dataset] = {
    "fashion_mnist": Dataset((28, 28, 1), 60_000),
    "mnist": Dataset((28, 28, 1), 60_000),
    "kmnist": Dataset((28, 28, 1), 60_000),
    "cifar10": Dataset((32, 32, 3), 50_000),
}
"""The data sets that can be named, all with 10 classes."""


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"--{name} is {value!r}, but must be {allowed}")


def _is_int(value: object, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are split."""

    name: DatasetName = "fashion_mnist"
    """Data set, by its name in TensorFlow Datasets."""
    source: str | None = None
    """Directory with the published files (for Fashion-MNIST, the four idx files); else they are found or fetched."""
    val_fraction: float = 0.2
    """Share of the training images that is held out for validation."""
    split_seed: int = 42
    """Seed of the permutation that picks the validation images."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        _require(self.name in DATASETS, "data.name", self.name, f"one of {', '.join(DATASETS)}")
        source = self.source
        _require(source is None or isinstance(source, str), "data.source", source, "the path of a directory")
        fraction = self.val_fraction
        _require(_is_real(fraction) and 0 < fraction < 1, "data.val_fraction", fraction, "between 0 and 1, exclusive")
        seed = self.split_seed
        _require(_is_int(seed, 0) and seed < 2**32, "data.split_seed", seed, "an integer from 0 to 2**32 - 1")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return DATASETS[self.name].image_shape

    @property
    def val_images(self) -> int:
        """Number of validation images, rounded up as scikit-learn does."""
        return math.ceil(DATASETS[self.name].train_images * self.val_fraction)

    @property
    def train_images(self) -> int:
        """Number of images that are left to train on."""
        return DATASETS[self.name].train_images - self.val_images


@dataclass(frozen=True)
class ModelConfig:
    """Conv-Pool-Conv-Pool-Dense-Dropout-Dense."""

    conv1_features: int = 32
    """Kernels of the first convolution."""
    conv2_features: int = 64
    """Kernels of the second convolution."""
    dense_features: int = 100
    """Units of the hidden dense layer."""
    dropout_rate: float = 0.4
    """Share of the hidden units that is dropped in training."""
    classes: int = 10
    """Number of classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the layers compute in; parameters, optimizer and loss are float32 in any case."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        for name in ("conv1_features", "conv2_features", "dense_features"):
            value = getattr(self, name)
            _require(_is_int(value, 1), f"model.{name}", value, "an integer of at least 1")
        rate = self.dropout_rate
        _require(_is_real(rate) and 0 <= rate < 1, "model.dropout_rate", rate, "at least 0 and below 1")
        _require(_is_int(self.classes, 2), "model.classes", self.classes, "an integer of at least 2")
        _require(self.dtype in ("float32", "bfloat16"), "model.dtype", self.dtype, "one of float32, bfloat16")


@dataclass(frozen=True)
class OptimConfig:
    """How the parameters are updated."""

    name: Literal["adam", "sgd", "muon"] = "adam"
    """Optimizer; muon is for the kernels of hidden layers, and leaves biases and the last layer to Adam."""
    learning_rate: float = 1e-3
    """Learning rate; with a schedule, its highest value."""
    adam_learning_rate: float = 4e-3
    """Learning rate of what muon leaves to Adam."""
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    """Learning rate over the steps; cosine falls to zero at the last step of the last epoch, one_cycle rises first."""
    warmup: float = 0.15
    """Share of the steps in which one_cycle rises."""
    weight_decay: float = 0.0
    """Share of the kernels, times the learning rate, that each step takes away; with muon, not of the last layer's."""
    batch_size: int = 32
    """Images a step."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        names, schedules = ("adam", "sgd", "muon"), ("constant", "cosine", "one_cycle")
        _require(self.name in names, "optim.name", self.name, f"one of {', '.join(names)}")
        for name in ("learning_rate", "adam_learning_rate"):
            rate = getattr(self, name)
            _require(_is_real(rate) and rate > 0, f"optim.{name}", rate, "a finite number above 0")
        _require(self.schedule in schedules, "optim.schedule", self.schedule, f"one of {', '.join(schedules)}")
        _require(
            _is_real(self.warmup) and 0 < self.warmup < 1, "optim.warmup", self.warmup, "between 0 and 1, exclusive"
        )
        decay = self.weight_decay
        _require(_is_real(decay) and decay >= 0, "optim.weight_decay", decay, "a finite number of at least 0")
        _require(_is_int(self.batch_size, 1), "optim.batch_size", self.batch_size, "an integer of at least 1")


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, from which seed, on which device."""

    epochs: int = 20
    """At most this many passes over the training images."""
    patience: int = 2
    """Stop when the validation loss has not improved for this many epochs."""
    seed: int = 0
    """Seed of the initial parameters, the order of the images, and dropout."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Kind of device; auto takes the fastest that is there."""
    checkpoint_steps: int = 0
    """Save after every so many steps of an epoch, too, so that less is lost; 0 saves at its end alone."""
    nan_policy: Literal["stop", "skip"] = "stop"
    """When a loss is no longer a number: stop and say where, or skip the update, ten times in a row at most."""
    fused: bool = False
    """Make the whole run one call of XLA's, for accelerators; nothing is reported or saved before its end."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        _require(_is_int(self.epochs, 1), "train.epochs", self.epochs, "an integer of at least 1")
        _require(_is_int(self.patience, 0), "train.patience", self.patience, "an integer of at least 0")
        seed = self.seed
        _require(_is_int(seed, 0) and seed < 2**32, "train.seed", seed, "an integer from 0 to 2**32 - 1")
        devices = ("auto", "cpu", "gpu", "tpu")
        _require(self.device in devices, "train.device", self.device, f"one of {', '.join(devices)}")
        steps, policy = self.checkpoint_steps, self.nan_policy
        _require(_is_int(steps, 0), "train.checkpoint_steps", steps, "an integer of at least 0")
        _require(policy in ("stop", "skip"), "train.nan_policy", policy, "one of stop, skip")
        _require(isinstance(self.fused, bool), "train.fused", self.fused, "true or false")
        _require(not (self.fused and steps), "train.checkpoint_steps", steps, "0 with --train.fused")


@dataclass(frozen=True)
class MeshConfig:
    """How many devices, and what they share out; the devices are those of all processes."""

    data: int = 0
    """Parts that a batch is split into, each for other devices; 0 takes as many as there are devices for."""
    model: int = 1
    """Parts that parameters and optimizer state are split into by features, for models that are wide."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        _require(_is_int(self.data, 0), "mesh.data", self.data, "an integer of at least 0")
        _require(_is_int(self.model, 1), "mesh.model", self.model, "an integer of at least 1")


@dataclass(frozen=True)
class LogConfig:
    """What is written besides numbers."""

    figures: bool = True
    """Draw figures/*.png at the end."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        _require(isinstance(self.figures, bool), "log.figures", self.figures, "true or false")


@dataclass(frozen=True)
class ExperimentConfig:
    """One experiment. Raises ConfigError, when made, for a value that is not allowed."""

    name: str = "fashion_cnn"
    """Name of the experiment; its runs lie in runs/<name>/."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        plain = isinstance(self.name, str) and self.name.replace("_", "").replace("-", "").isalnum()
        _require(plain, "name", self.name, "letters, digits, - and _")
        for group in dataclasses.fields(self)[1:]:
            value = getattr(self, group.name)
            _require(
                isinstance(value, _field_type(type(self), group.name)),
                group.name,
                value,
                f"a {_field_type(type(self), group.name).__name__}",
            )


def _field_type(cls: type, name: str) -> Any:
    return typing.get_type_hints(cls)[name]


def to_dict(config: Any) -> dict[str, Any]:
    """Returns the configuration as nested dicts of plain values, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: Any, cls: Any = ExperimentConfig, prefix: str = "") -> Any:
    """Returns the configuration that ``to_dict`` wrote; fields that are left out take their defaults.

    Args:
      values: what ``to_dict`` returned, perhaps through JSON.
      cls: the dataclass to make.
      prefix: where ``values`` lies in the whole, for messages.

    Raises:
      ConfigError: a field is unknown, or its value is not allowed.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{prefix or 'the configuration'} is {values!r}, but must be an object with named fields")
    names = [f.name for f in dataclasses.fields(cls)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ConfigError(f"unknown field {prefix}{unknown[0]}; the fields are {', '.join(names)}")
    made = {}
    for name, value in values.items():
        kind = _field_type(cls, name)
        made[name] = from_dict(value, kind, f"{prefix}{name}.") if dataclasses.is_dataclass(kind) else value
    return cls(**made)


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Returns ``"optim.batch_size 32 -> 64"`` for each field in which two configurations differ."""
    found = []
    for f in dataclasses.fields(old):
        before, after = getattr(old, f.name), getattr(new, f.name)
        if dataclasses.is_dataclass(before):
            found += differences(before, after, f"{prefix}{f.name}.")
        elif before != after:
            found.append(f"{prefix}{f.name} {before} -> {after}")
    return found
