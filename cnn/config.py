"""The configuration of a run: frozen dataclasses, validated on construction, that round-trip through JSON.

Make variants with ``dataclasses.replace``; every field is a command-line option: ``--optim.batch_size 64``.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cnn.datasets import DATASETS, DatasetName
from cnn.errors import ConfigError
from cnn.models import AnyModelConfig
from cnn.models.cnn import ModelConfig
from cnn.rules import (
    FRACTION,
    MULTIPLIERS,
    NAMES,
    NOT_NEGATIVE,
    PATH,
    POSITIVE,
    PROBABILITY,
    RATE,
    SEED,
    Checked,
    integer,
    require,
)


@dataclass(frozen=True)
class DataConfig(Checked):
    """Data set, and its split into training and validation images."""

    group = "data"

    name: DatasetName = "fashion_mnist"
    """Data set, by its name in TensorFlow Datasets."""
    source: Annotated[str | None, PATH] = None
    """Directory with the published files (for Fashion-MNIST, the four idx files); else found or downloaded."""
    val_fraction: Annotated[float, FRACTION] = 0.2
    """Fraction of the training images held out for validation."""
    split_seed: Annotated[int, SEED] = 42
    """Seed of the permutation that selects the validation images."""

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
        """Number of images left for training."""
        return DATASETS[self.name].train_images - self.val_images


@dataclass(frozen=True)
class OptimConfig(Checked):
    """Optimizer, learning rate and batch size."""

    group = "optim"

    name: Literal["adam", "sgd", "muon"] = "adam"
    """Optimizer; muon updates the kernels of hidden layers, and Adam all other parameters."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Learning rate; the peak value of a schedule."""
    adam_learning_rate: Annotated[float, POSITIVE] = 4e-3
    """Learning rate of the parameters that muon leaves to Adam."""
    schedule: Literal["constant", "cosine", "warmup_cosine", "one_cycle"] = "constant"
    """Learning-rate schedule; cosine and warmup_cosine decay to 0, one_cycle to a thousandth of the peak."""
    warmup: Annotated[float, FRACTION] = 0.15
    """Fraction of the steps in which warmup_cosine and one_cycle warm up."""
    learning_rate_multipliers: Annotated[tuple[str, ...], MULTIPLIERS] = ()
    """Factors by layer name or pattern, such as "conv*=0.1"; 0 freezes the parameters; the first match applies."""
    accumulate_steps: Annotated[int, integer(1)] = 1
    """Gradient accumulation steps per optimizer update; every micro-batch has equal weight, a partial one too."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    """Weight decay of the kernels, scaled by the learning rate; with muon, the last layer has none."""
    momentum: Annotated[float, RATE] = 0.0
    """Nesterov momentum of sgd."""
    clip_norm: Annotated[float, NOT_NEGATIVE] = 0.0
    """Clip gradients to this global norm; 0 disables clipping."""
    label_smoothing: Annotated[float, RATE] = 0.0
    """Fraction of each target distributed evenly over all classes."""
    average_decay: Annotated[float, RATE] = 0.0
    """Decay of the exponential moving average (EMA) of the parameters used for evaluation; 0 disables it."""
    batch_size: Annotated[int, integer(1)] = 32
    """Images per step."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        sgd, momentum = self.name == "sgd", self.momentum
        require(sgd or not momentum, "optim.momentum", momentum, f"0 with {self.name}; name sgd, or leave it out")


@dataclass(frozen=True)
class AugmentConfig(Checked):
    """Augmentation of the training images; ``cnn/training/augment.py`` describes and cites each method."""

    group = "augment"

    shift: Annotated[int, integer(0)] = 0
    """Shift by up to this many pixels in each direction."""
    flip: bool = False
    """Mirror each image left to right with probability 1/2."""
    cutout: Annotated[int, integer(0)] = 0
    """Side of the square that is set to zero, in pixels."""
    erase: Annotated[float, PROBABILITY] = 0.0
    """Probability that a rectangle of an image is replaced by noise."""
    mixup: Annotated[float, NOT_NEGATIVE] = 0.0
    """Blend each image with another by a weight drawn from Beta(mixup, mixup); 0 disables it."""
    cutmix: Annotated[float, NOT_NEGATIVE] = 0.0
    """Paste a rectangle of another image, its share of the area drawn from Beta(cutmix, cutmix); 0 disables it."""

    test_time: bool = False
    """Test-time augmentation: also report the result of the mean prediction over flipped and shifted test images."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        varied = self.flip or self.shift
        require(bool(varied or not self.test_time), "augment.test_time", self.test_time, "false without flip or shift")


@dataclass(frozen=True)
class TransferConfig(Checked):
    """Initial parameters from another run, in place of random ones."""

    group = "transfer"

    source: Annotated[str | None, PATH] = None
    """Run directory whose best parameters initialize the layers."""
    layers: Annotated[tuple[str, ...], NAMES] = ("*",)
    """Names or patterns of the layers to transfer; each must exist in the source with the same shapes."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        named = self.source is not None or self.layers == ("*",)
        require(named, "transfer.layers", self.layers, "left out without --transfer.source")


@dataclass(frozen=True)
class TrainConfig(Checked):
    """How long to train, from which seed, on which device."""

    group = "train"

    epochs: Annotated[int, integer(1)] = 20
    """Maximum number of epochs."""
    patience: Annotated[int, integer(0)] = 2
    """Stop when the validation loss has not improved for this many epochs."""
    seed: Annotated[int, SEED] = 0
    """Seed of the initial parameters, the order of the images, and dropout."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Kind of device; auto selects the fastest available."""
    checkpoint_steps: Annotated[int, integer(0)] = 0
    """Also save a checkpoint every N steps within an epoch, so that less is lost; 0 saves only at its end."""
    nan_policy: Literal["stop", "skip"] = "stop"
    """On a non-finite loss: stop with an error that names step and images, or skip the update, at most 10 in a row."""
    fused: bool = False
    """Run all epochs in one XLA call, for accelerators; nothing is reported or saved before the end."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        steps = self.checkpoint_steps
        require(not (self.fused and steps), "train.checkpoint_steps", steps, "0 with --train.fused")


@dataclass(frozen=True)
class MeshConfig(Checked):
    """Mesh of the devices of all processes: data and model parallelism."""

    group = "mesh"

    data: Annotated[int, integer(0)] = 0
    """Number of shards of a batch (data parallelism); 0 uses all devices."""
    model: Annotated[int, integer(1)] = 1
    """Number of shards of parameters and optimizer state, by features (model parallelism), for wide models."""


@dataclass(frozen=True)
class LogConfig(Checked):
    """Figures, report and tracker."""

    group = "log"

    figures: bool = True
    """Draw figures/*.png and write report.html at the end."""
    tracker: Literal["none", "tensorboard", "mlflow"] = "none"
    """Also log each epoch's metrics, weights and images, in tensorboard/ or mlflow/ of the run directory."""


@dataclass(frozen=True)
class ExperimentConfig:
    """One experiment. Raises ConfigError on construction for a value that is not allowed."""

    name: str = "fashion_cnn"
    """Name of the experiment; its runs are in runs/<name>/."""
    data: DataConfig = field(default_factory=DataConfig)
    model: AnyModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        plain = isinstance(self.name, str) and self.name.replace("_", "").replace("-", "").isalnum()
        require(plain, "name", self.name, "letters, digits, - and _")
        for group in dataclasses.fields(self)[1:]:
            value, kinds = getattr(self, group.name), _field_types(type(self), group.name)
            require(isinstance(value, kinds), group.name, value, f"a {' or '.join(kind.__name__ for kind in kinds)}")
        self.model.check_images(self.data.image_shape)


def _field_types(cls: type, name: str) -> tuple[Any, ...]:
    """Returns the type of a field, or all types of a union."""
    kind = typing.get_type_hints(cls)[name]
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def config_fields(config: ExperimentConfig) -> dict[str, Any]:
    """Returns the values of a configuration by option name, such as ``optim.batch_size``."""
    groups = dataclasses.asdict(config)
    del groups["name"]
    return {f"{group}.{name}": value for group, fields in groups.items() for name, value in fields.items()}


def from_dict(values: Any, cls: Any = ExperimentConfig, prefix: str = "") -> Any:
    """Returns the configuration that ``dataclasses.asdict`` was given; missing fields take their defaults.

    Args:
      values: the result of ``dataclasses.asdict``, perhaps read from JSON.
      cls: the dataclass to construct.
      prefix: path of ``values`` within the configuration, for messages.

    Raises:
      ConfigError: a field is unknown, or its value is not allowed.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{prefix or 'the configuration'} is {values!r}, but must be an object with named fields")
    names = [f.name for f in dataclasses.fields(cls)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ConfigError(f"unknown field {prefix}{unknown[0]}; the fields are {', '.join(names)}")
    fields = {}
    for name, value in values.items():
        kinds = _field_types(cls, name)
        if dataclasses.is_dataclass(kinds[0]):
            value = from_dict(value, _select_family(kinds, value), f"{prefix}{name}.")
        fields[name] = tuple(value) if isinstance(value, list) else value
    return cls(**fields)


def _select_family(kinds: tuple[Any, ...], values: Any) -> Any:
    """Returns the dataclass that the ``family`` of the values names; the first one without it."""
    families: dict[str, Any] = {getattr(kind, "family", ""): kind for kind in kinds}
    if len(kinds) == 1 or not isinstance(values, dict):
        return kinds[0]
    family = values.get("family", kinds[0].family)
    require(family in families, "model.family", family, f"one of {', '.join(families)}")
    return families[family]


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Returns ``"optim.batch_size 32 -> 64"`` for each field in which two configurations differ."""
    if type(old) is not type(new):
        return [f"{prefix}family {old.family} -> {new.family}"]
    changes = []
    for f in dataclasses.fields(old):
        before, after = getattr(old, f.name), getattr(new, f.name)
        if dataclasses.is_dataclass(before):
            changes += differences(before, after, f"{prefix}{f.name}.")
        elif before != after:
            changes.append(f"{prefix}{f.name} {before} -> {after}")
    return changes


def class_names(config: DataConfig) -> tuple[str, ...]:
    """Returns the English names of the classes, by label."""
    return DATASETS[config.name].class_names


def model_class_names(config: ExperimentConfig) -> tuple[str, ...]:
    """Returns a name for each class of the model, which may have more than its data."""
    names = class_names(config.data)
    return names + tuple(f"class {label}" for label in range(len(names), config.model.classes))
