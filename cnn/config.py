"""Everything that defines a run: frozen dataclasses, checked when they are made, that round trip through JSON.

Make variants with ``dataclasses.replace``; every field is an option of the command line: ``--optim.batch_size 64``.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from cnn.errors import ConfigError
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
    check,
    integer,
    integers,
    require,
)


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


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are split."""

    name: DatasetName = "fashion_mnist"
    """Data set, by its name in TensorFlow Datasets."""
    source: Annotated[str | None, PATH] = None
    """Directory with the published files (for Fashion-MNIST, the four idx files); else they are found or fetched."""
    val_fraction: Annotated[float, FRACTION] = 0.2
    """Share of the training images that is held out for validation."""
    split_seed: Annotated[int, SEED] = 42
    """Seed of the permutation that picks the validation images."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        check(self, "data")

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
    """The chapter's network: Conv-Pool-Conv-Pool-Dense-Dropout-Dense."""

    family: Literal["cnn"] = "cnn"
    """Family of models, which an experiment chooses."""
    conv1_features: Annotated[int, integer(1)] = 32
    """Kernels of the first convolution."""
    conv2_features: Annotated[int, integer(1)] = 64
    """Kernels of the second convolution."""
    dense_features: Annotated[int, integer(1)] = 100
    """Units of the hidden dense layer."""
    dropout_rate: Annotated[float, RATE] = 0.4
    """Share of the hidden units that is dropped in training."""
    classes: Annotated[int, integer(2)] = 10
    """Number of classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the layers compute in; parameters, optimizer and loss are float32 in any case."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        check(self, "model")


@dataclass(frozen=True)
class DenseConfig:
    """A dense network; without hidden layers, it is softmax regression."""

    family: Literal["dense"] = "dense"
    """Family of models, which an experiment chooses."""
    features: Annotated[tuple[int, ...], integers(1)] = (100,)
    """Units of each hidden layer."""
    dropout_rate: Annotated[float, RATE] = 0.0
    """Share of the last hidden layer's units that is dropped in training."""
    classes: Annotated[int, integer(2)] = 10
    """Number of classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the layers compute in; parameters, optimizer and loss are float32 in any case."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        check(self, "model")


@dataclass(frozen=True)
class ResNetConfig:
    """A residual network, each of whose stages after the first halves the image and doubles the features."""

    family: Literal["resnet"] = "resnet"
    """Family of models, which an experiment chooses."""
    blocks: Annotated[tuple[int, ...], integers(1, shortest=1)] = (3, 3, 3)
    """Blocks of two convolutions in each stage; (n, n, n) make a ResNet of 6 n + 2 layers."""
    features: Annotated[int, integer(1)] = 16
    """Kernels of each convolution in the first stage."""
    classes: Annotated[int, integer(2)] = 10
    """Number of classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the layers compute in; parameters, optimizer and loss are float32 in any case."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        check(self, "model")


@dataclass(frozen=True)
class AlexNetConfig:
    """Five convolutions and three dense layers."""

    family: Literal["alexnet"] = "alexnet"
    """Family of models, which an experiment chooses."""
    features: Annotated[int, integer(3)] = 24
    """Kernels of the first convolution; the others have 8/3, 4, 4 and 8/3 times as many, as in the paper."""
    dense_features: Annotated[int, integer(1)] = 256
    """Units of each of the two hidden dense layers."""
    dropout_rate: Annotated[float, RATE] = 0.5
    """Share of the hidden units that is dropped in training."""
    classes: Annotated[int, integer(2)] = 10
    """Number of classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the layers compute in; parameters, optimizer and loss are float32 in any case."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        check(self, "model")


@dataclass(frozen=True)
class EfficientNetConfig:
    """Inverted residual blocks with depthwise convolutions, whose channels are weighted by what the image holds."""

    family: Literal["efficientnet"] = "efficientnet"
    """Family of models, which an experiment chooses."""
    features: Annotated[tuple[int, ...], integers(1, shortest=1)] = (16, 24, 40, 80)
    """Channels between the blocks of each stage; each stage after the first halves the image."""
    blocks: Annotated[int, integer(1)] = 2
    """Blocks of each stage after the first, which has one."""
    expansion: Annotated[int, integer(1)] = 4
    """Channels within a block, after the first, for each between blocks."""
    dropout_rate: Annotated[float, RATE] = 0.2
    """Share of the last layer's inputs that is dropped in training."""
    classes: Annotated[int, integer(2)] = 10
    """Number of classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the layers compute in; parameters, optimizer and loss are float32 in any case."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        check(self, "model")


@dataclass(frozen=True)
class ViTConfig:
    """A vision transformer: the image cut into patches, which attend to each other."""

    family: Literal["vit"] = "vit"
    """Family of models, which an experiment chooses."""
    patch_size: Annotated[int, integer(1)] = 4
    """Side of a patch, in pixels; what is left over at the edges is dropped."""
    features: Annotated[int, integer(1)] = 64
    """Features of a token; a multiple of ``heads``."""
    blocks: Annotated[int, integer(1)] = 6
    """Blocks of attention and two dense layers."""
    heads: Annotated[int, integer(1)] = 4
    """Ways in which a token attends to the others in each block."""
    expansion: Annotated[int, integer(1)] = 2
    """Hidden units of a block's dense layers for each feature."""
    dropout_rate: Annotated[float, RATE] = 0.1
    """Share of what each block adds that is dropped in training."""
    classes: Annotated[int, integer(2)] = 10
    """Number of classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the layers compute in; parameters, optimizer and loss are float32 in any case."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        check(self, "model")
        require(self.features % self.heads == 0, "model.features", self.features, f"a multiple of {self.heads} heads")


AnyModelConfig = ModelConfig | DenseConfig | AlexNetConfig | ResNetConfig | EfficientNetConfig | ViTConfig
"""The families of models; ``cnn/models`` has a file for each."""


@dataclass(frozen=True)
class OptimConfig:
    """How the parameters are updated."""

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
        check(self, "optim")
        sgd, momentum = self.name == "sgd", self.momentum
        require(sgd or not momentum, "optim.momentum", momentum, f"0 with {self.name}; name sgd, or leave it out")


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are changed in each step; ``cnn/training/augment.py`` describes and cites each."""

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
        check(self, "augment")
        varied = self.flip or self.shift
        require(bool(varied or not self.test_time), "augment.test_time", self.test_time, "false without flip or shift")


@dataclass(frozen=True)
class TransferConfig:
    """What training begins with, instead of random parameters."""

    source: Annotated[str | None, PATH] = None
    """Run directory whose best parameters are taken."""
    layers: Annotated[tuple[str, ...], NAMES] = ("*",)
    """Names, or patterns, of the layers that are taken from it; each must be there, with the same shapes."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        check(self, "transfer")
        named = self.source is not None or self.layers == ("*",)
        require(named, "transfer.layers", self.layers, "left out without --transfer.source")


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, from which seed, on which device."""

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
        check(self, "train")
        steps = self.checkpoint_steps
        require(not (self.fused and steps), "train.checkpoint_steps", steps, "0 with --train.fused")


@dataclass(frozen=True)
class MeshConfig:
    """How many devices, and what they share out; the devices are those of all processes."""

    data: Annotated[int, integer(0)] = 0
    """Parts that a batch is split into, each for other devices; 0 takes as many as there are devices for."""
    model: Annotated[int, integer(1)] = 1
    """Parts that parameters and optimizer state are split into by features, for models that are wide."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        check(self, "mesh")


@dataclass(frozen=True)
class LogConfig:
    """What is written besides numbers."""

    figures: bool = True
    """Draw figures/*.png and write report.html at the end."""
    tracker: Literal["none", "tensorboard", "mlflow"] = "none"
    """What gets each epoch's numbers, weights and pictures, too, as a directory of its name in the run directory."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        check(self, "log")


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
        if isinstance(self.model, ViTConfig):
            side, shortest = self.model.patch_size, min(self.data.image_shape[:2])
            require(side <= shortest, "model.patch_size", side, f"at most {shortest}, the images' side")


def _kinds(cls: type, name: str) -> tuple[Any, ...]:
    """The types of a field, of which a union has several."""
    kind = typing.get_type_hints(cls)[name]
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def to_dict(config: Any) -> dict[str, Any]:
    """Returns the configuration as nested dicts of plain values, ready for JSON."""
    return dataclasses.asdict(config)


def config_fields(config: ExperimentConfig) -> dict[str, Any]:
    """Returns the values of a configuration by their options' names, such as ``optim.batch_size``."""
    groups = dataclasses.asdict(config)
    del groups["name"]
    return {f"{group}.{name}": value for group, fields in groups.items() for name, value in fields.items()}


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
