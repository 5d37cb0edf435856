"""Everything that defines a run: frozen dataclasses, checked when they are made, that round trip through JSON.

Make variants with ``dataclasses.replace``; every field is an option of the command line: ``--optim.batch_size 64``.
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
    """Which images, and how they are split."""

    group = "data"

    name: DatasetName = "fashion_mnist"
    """Data set, by its name in TensorFlow Datasets."""
    source: Annotated[str | None, PATH] = None
    """Directory with the published files (for Fashion-MNIST, the four idx files); else they are found or fetched."""
    val_fraction: Annotated[float, FRACTION] = 0.2
    """Share of the training images that is held out for validation."""
    split_seed: Annotated[int, SEED] = 42
    """Seed of the permutation that picks the validation images."""

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
class OptimConfig(Checked):
    """How the parameters are updated."""

    group = "optim"

    name: Literal["adam", "sgd", "muon"] = "adam"
    """Optimizer; muon is for the kernels of hidden layers, and leaves biases and the last layer to Adam."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Learning rate; with a schedule, its highest value."""
    adam_learning_rate: Annotated[float, POSITIVE] = 4e-3
    """Learning rate of what muon leaves to Adam."""
    schedule: Literal["constant", "cosine", "warmup_cosine", "one_cycle"] = "constant"
    """Learning rate over the steps; all but constant fall to nothing, or a thousandth, and the last two rise first."""
    warmup: Annotated[float, FRACTION] = 0.15
    """Share of the steps in which warmup_cosine and one_cycle rise."""
    learning_rate_multipliers: Annotated[tuple[str, ...], MULTIPLIERS] = ()
    """By layer name or pattern, such as "conv*=0.1"; 0 freezes the parameters, and the first that fits counts."""
    accumulate_steps: Annotated[int, integer(1)] = 1
    """Steps whose gradients are averaged for one update; a last batch that is not full counts as much as any other."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    """Share of the kernels, times the learning rate, that each step takes away; with muon, not of the last layer's."""
    momentum: Annotated[float, RATE] = 0.0
    """Of sgd: share of the last update that goes on, with Nesterov's look ahead."""
    clip_norm: Annotated[float, NOT_NEGATIVE] = 0.0
    """Gradients that are longer, all together, are scaled to this length; 0 leaves them."""
    label_smoothing: Annotated[float, RATE] = 0.0
    """Share of each target that is spread evenly over all classes."""
    average_decay: Annotated[float, RATE] = 0.0
    """Evaluate a moving average of the parameters that keeps so much of itself a step; 0 for the parameters."""
    batch_size: Annotated[int, integer(1)] = 32
    """Images a step."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        sgd, momentum = self.name == "sgd", self.momentum
        require(sgd or not momentum, "optim.momentum", momentum, f"0 with {self.name}; name sgd, or leave it out")


@dataclass(frozen=True)
class AugmentConfig(Checked):
    """How training images are changed in each step; ``cnn/training/augment.py`` describes and cites each."""

    group = "augment"

    shift: Annotated[int, integer(0)] = 0
    """Move by up to so many pixels in each direction."""
    flip: bool = False
    """Mirror each image with probability one half, left to right."""
    cutout: Annotated[int, integer(0)] = 0
    """Side of a square that is set to zero, in pixels."""
    erase: Annotated[float, PROBABILITY] = 0.0
    """Share of the images of which a rectangle becomes noise."""
    mixup: Annotated[float, NOT_NEGATIVE] = 0.0
    """Mix each image with another, by a share that is Beta distributed with this parameter; 0 for never."""
    cutmix: Annotated[float, NOT_NEGATIVE] = 0.0
    """Put a rectangle of another image into each, of an area that is Beta distributed so; 0 for never."""

    test_time: bool = False
    """Predict the test images as training has flipped and shifted them too, and report the mean's result apart."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        varied = self.flip or self.shift
        require(bool(varied or not self.test_time), "augment.test_time", self.test_time, "false without flip or shift")


@dataclass(frozen=True)
class TransferConfig(Checked):
    """What training begins with, instead of random parameters."""

    group = "transfer"

    source: Annotated[str | None, PATH] = None
    """Run directory whose best parameters are taken."""
    layers: Annotated[tuple[str, ...], NAMES] = ("*",)
    """Names, or patterns, of the layers that are taken from it; each must be there, with the same shapes."""

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
    """At most this many passes over the training images."""
    patience: Annotated[int, integer(0)] = 2
    """Stop when the validation loss has not improved for this many epochs."""
    seed: Annotated[int, SEED] = 0
    """Seed of the initial parameters, the order of the images, and dropout."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Kind of device; auto takes the fastest that is there."""
    checkpoint_steps: Annotated[int, integer(0)] = 0
    """Save after every so many steps of an epoch, too, so that less is lost; 0 saves at its end alone."""
    nan_policy: Literal["stop", "skip"] = "stop"
    """When a loss is no longer a number: stop and say where, or skip the update, ten times in a row at most."""
    fused: bool = False
    """Make the whole run one call of XLA's, for accelerators; nothing is reported or saved before its end."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        steps = self.checkpoint_steps
        require(not (self.fused and steps), "train.checkpoint_steps", steps, "0 with --train.fused")


@dataclass(frozen=True)
class MeshConfig(Checked):
    """How many devices, and what they share out; the devices are those of all processes."""

    group = "mesh"

    data: Annotated[int, integer(0)] = 0
    """Parts that a batch is split into, each for other devices; 0 takes as many as there are devices for."""
    model: Annotated[int, integer(1)] = 1
    """Parts that parameters and optimizer state are split into by features, for models that are wide."""


@dataclass(frozen=True)
class LogConfig(Checked):
    """What is written besides numbers."""

    group = "log"

    figures: bool = True
    """Draw figures/*.png and write report.html at the end."""
    tracker: Literal["none", "tensorboard", "mlflow"] = "none"
    """What gets each epoch's numbers, weights and pictures, too, as a directory of its name in the run directory."""


@dataclass(frozen=True)
class ExperimentConfig:
    """One experiment. Raises ConfigError, when made, for a value that is not allowed."""

    name: str = "fashion_cnn"
    """Name of the experiment; its runs lie in runs/<name>/."""
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
            value, kinds = getattr(self, group.name), _kinds(type(self), group.name)
            require(isinstance(value, kinds), group.name, value, f"a {' or '.join(kind.__name__ for kind in kinds)}")
        self.model.check_images(self.data.image_shape)


def _kinds(cls: type, name: str) -> tuple[Any, ...]:
    """The types of a field, of which a union has several."""
    kind = typing.get_type_hints(cls)[name]
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def config_fields(config: ExperimentConfig) -> dict[str, Any]:
    """Returns the values of a configuration by their options' names, such as ``optim.batch_size``."""
    groups = dataclasses.asdict(config)
    del groups["name"]
    return {f"{group}.{name}": value for group, fields in groups.items() for name, value in fields.items()}


def from_dict(values: Any, cls: Any = ExperimentConfig, prefix: str = "") -> Any:
    """Returns the configuration that ``dataclasses.asdict`` gave; fields that are left out take their defaults.

    Args:
      values: what ``dataclasses.asdict`` returned, perhaps through JSON.
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
        kinds = _kinds(cls, name)
        if dataclasses.is_dataclass(kinds[0]):
            value = from_dict(value, _family(kinds, value), f"{prefix}{name}.")
        made[name] = tuple(value) if isinstance(value, list) else value
    return cls(**made)


def _family(kinds: tuple[Any, ...], values: Any) -> Any:
    """The one of several dataclasses that values were made from, which their ``family`` says; the first if nothing."""
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
    found = []
    for f in dataclasses.fields(old):
        before, after = getattr(old, f.name), getattr(new, f.name)
        if dataclasses.is_dataclass(before):
            found += differences(before, after, f"{prefix}{f.name}.")
        elif before != after:
            found.append(f"{prefix}{f.name} {before} -> {after}")
    return found


def class_names(config: DataConfig) -> tuple[str, ...]:
    """Returns the English names of the classes, by label."""
    return DATASETS[config.name].class_names


def model_class_names(config: ExperimentConfig) -> tuple[str, ...]:
    """Returns a name for each class of the model, which may have more than its data."""
    names = class_names(config.data)
    return names + tuple(f"class {label}" for label in range(len(names), config.model.classes))
