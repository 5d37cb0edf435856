"""The configuration of a run: frozen dataclasses, validated on construction, that round-trip through JSON.

Make variants with ``dataclasses.replace``; every field is a command-line option: ``--optim.batch_size 64``.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cnn.datasets import DATASETS, Dataset, DatasetName
from cnn.models.cnn import ModelConfig
from cnn.models.family import Family
from cnn.rules import (
    CLASS_NAMES,
    CONCENTRATION,
    COUNTS,
    DEGREES,
    FRACTION,
    IMAGE_SIZE,
    MULTIPLIERS,
    NAMES,
    NOT_NEGATIVE,
    PATH,
    PATHS,
    POSITIVE,
    PROBABILITY,
    RATE,
    SEED,
    SHARE,
    Checked,
    check_task,
    field_types,
    integer,
    require,
    zero_or,
)


@dataclass(frozen=True)
class DataConfig(Checked):
    """Data set, and its split into training and validation images."""

    group = "data"

    name: DatasetName = "fashion_mnist"
    """Data set, by its name in TensorFlow Datasets; images for one's own, in --data.source."""
    source: Annotated[str | None, PATH] = None
    """Directory with the published files (for Fashion-MNIST, the four idx files), else found or downloaded; or own
    images: a directory of class directories, or CSV, npz or parquet files."""
    image_size: Annotated[tuple[int, ...], IMAGE_SIZE] = ()
    """Height and width, or one number for both, that own images are resized to; by default all have one size."""
    channels: Literal[0, 1, 3] = 0
    """1 reads own images as grey, 3 as colour; 0 as they are."""
    resize: Literal["crop", "pad", "stretch"] = "crop"
    """How own images of another shape are resized: cut at the longer sides, padded at the shorter, or stretched."""
    class_names: Annotated[tuple[str, ...], CLASS_NAMES] = ()
    """Names of the classes by label; by default those of the data."""
    class_counts: Annotated[tuple[int, ...], COUNTS] = ()
    """Training images of each class, by label; by default counted."""
    val_fraction: Annotated[float, FRACTION] = 0.2
    """Fraction of the training images held out for validation."""
    test_fraction: Annotated[float, FRACTION] = 0.2
    """Fraction of own images held out for the test, where none are set apart."""
    labels: Annotated[str | None, PATH._replace(allowed="the path of a CSV file, in UTF-8")] = None
    """CSV file that changes labels or drops images, by their index, before the split; python -m cnn labels makes it."""
    split_seed: Annotated[int, SEED] = 42
    """Seed of the permutation that selects the validation images."""
    scenes: Annotated[int, zero_or(48, 1024)] = 0
    """Side in pixels of scenes that the images are composed into, for a detector; 0 for none."""
    device_memory: Annotated[int, integer(0, 2**24)] = 0
    """MiB of the device for the images, of which more are read from disk as needed; 0 for what it has to spare."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        if len(self.image_size) == 1:
            # One number for both is the same configuration as two.
            object.__setattr__(self, "image_size", self.image_size * 2)

    @property
    def published(self) -> Dataset:
        """The data set of this name.

        Raises:
          ConfigError: the images are the user's own, and not loaded yet.
        """
        allowed = f"one of {', '.join(DATASETS)}; or load your own images first, as cnn.fit does"
        require(self.name in DATASETS, "data.name", self.name, allowed)
        return DATASETS[self.name]

    @property
    def is_known(self) -> bool:
        """Whether the shape of the images is known: they are published, or have been loaded."""
        return self.source is None and self.name in DATASETS or bool(self.image_size and self.channels)

    @property
    def source_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image of the source."""
        if self.image_size and self.channels:
            return self.image_size[0], self.image_size[-1], self.channels
        return self.published.image_shape

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what the network is given: an image of the source, or a scene of them."""
        return (self.scenes, self.scenes, self.source_shape[-1]) if self.scenes else self.source_shape

    @property
    def val_images(self) -> int:
        """Number of validation images of a published data set, rounded up as scikit-learn does."""
        return math.ceil(self.published.train_images * self.val_fraction)

    @property
    def train_images(self) -> int:
        """Number of training images, if they have been counted or are those that a published data set leaves."""
        return sum(self.class_counts) or self.published.train_images - self.val_images


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
    class_weights: Literal["none", "balanced"] = "none"
    """balanced weights an image's loss by the mean number of images of a class over that of its class."""
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
    """Augmentation of the training images; ``augment.py`` and ``photos.py`` of ``cnn/training/`` cite each method."""

    group = "augment"

    crop: Annotated[float, SHARE] = 0.0
    """Random resized crop: keep a part of each image, at least this share of its area; 0 and 1 disable it."""
    rotate: Annotated[float, DEGREES] = 0.0
    """Rotate each image by up to this many degrees in either direction."""
    colour: Annotated[float, PROBABILITY] = 0.0
    """Change brightness, contrast and saturation by up to this factor above or below 1, and the hue; 0.4 is usual."""
    trivial: bool = False
    """TrivialAugment: one of 14 operations on geometry or colour for each image, at a random strength."""
    shift: Annotated[int, integer(0, 4096)] = 0
    """Shift by up to this many pixels in each direction."""
    flip: bool = False
    """Mirror each image left to right with probability 1/2."""
    cutout: Annotated[int, integer(0, 4096)] = 0
    """Side of the square that is set to zero, in pixels."""
    erase: Annotated[float, PROBABILITY] = 0.0
    """Probability that a rectangle of an image is replaced by noise."""
    mixup: Annotated[float, CONCENTRATION] = 0.0
    """Blend each image with another by a weight drawn from Beta(mixup, mixup); 0 disables it."""
    cutmix: Annotated[float, CONCENTRATION] = 0.0
    """Paste a rectangle of another image, its share of the area drawn from Beta(cutmix, cutmix); 0 disables it."""

    test_time: bool = False
    """Test-time augmentation: also report the result of the mean prediction over flipped and shifted test images."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        varied = self.flip or self.shift
        require(bool(varied or not self.test_time), "augment.test_time", self.test_time, "false without flip or shift")
        alone = not (self.trivial and (self.rotate or self.colour))
        require(alone, "augment.trivial", self.trivial, "false with rotate or colour, which it includes")


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
class DistillConfig(Checked):
    """Training towards the predictions of other networks, its teachers: G. Hinton et al., arXiv:1503.02531."""

    group = "distill"

    teacher: Annotated[tuple[str, ...], PATHS] = ()
    """Run directories whose best networks teach: the mean of their logits for the augmented images."""
    temperature: Annotated[float, POSITIVE] = 4.0
    """Divides the logits of student and teachers, which makes the probabilities of unlikely classes count."""
    weight: Annotated[float, PROBABILITY] = 0.9
    """Share of the teachers in the loss; the labels have the rest."""


@dataclass(frozen=True)
class TrainConfig(Checked):
    """How long to train, from which seed, on which device."""

    group = "train"

    epochs: Annotated[int, integer(1, 100_000)] = 20
    """Maximum number of epochs."""
    patience: Annotated[int, integer(0)] = 2
    """Stop when the validation loss has not improved for this many epochs."""
    monitor: Literal["val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_map"] = "val_loss"
    """What the best epoch and early stopping are chosen by."""
    seed: Annotated[int, SEED] = 0
    """Seed of the initial parameters, the order of the images, and dropout."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Kind of device; auto selects the fastest available."""
    checkpoint_steps: Annotated[int, integer(0)] = 0
    """Also save a checkpoint every N steps within an epoch, so that less is lost; 0 saves only at its end."""
    nan_policy: Literal["stop", "skip"] = "stop"
    """On a non-finite loss: stop with an error that names step and images, or skip the update, at most 10 in a row."""
    dynamics: bool = False
    """Keep how probable each training image's label was, epoch by epoch, to find hard and wrongly labelled images."""
    fused: bool = False
    """Run all epochs in one XLA call, for accelerators; nothing is reported or saved before the end."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        steps = self.checkpoint_steps
        require(not (self.fused and steps), "train.checkpoint_steps", steps, "0 with --train.fused")
        require(not (self.fused and self.dynamics), "train.dynamics", self.dynamics, "false with --train.fused")
        skips = self.nan_policy == "skip"
        require(not (skips and self.dynamics), "train.dynamics", self.dynamics, "false with --train.nan_policy skip")
        is_loss = self.monitor == "val_loss"
        require(is_loss or not self.fused, "train.monitor", self.monitor, "val_loss with --train.fused")


@dataclass(frozen=True)
class MeshConfig(Checked):
    """Mesh of the devices of all processes: data and model parallelism."""

    group = "mesh"

    data: Annotated[int, integer(0, 65_536)] = 0
    """Number of shards of a batch (data parallelism); 0 uses all devices."""
    model: Annotated[int, integer(1, 65_536)] = 1
    """Number of shards of parameters and optimizer state, by features (model parallelism), for wide models."""


@dataclass(frozen=True)
class LogConfig(Checked):
    """Figures, report and tracker."""

    group = "log"

    figures: bool = True
    """Draw figures/*.png and write report.html at the end, and live.html while training."""
    tracker: Literal["none", "tensorboard", "mlflow"] = "none"
    """Also log each epoch's metrics, weights and images, in tensorboard/ or mlflow/ of the run directory."""


@dataclass(frozen=True)
class ExperimentConfig:
    """One experiment. Raises ConfigError on construction for a value that is not allowed."""

    name: str = "fashion_cnn"
    """Name of the experiment; its runs are in runs/<name>/."""
    data: DataConfig = field(default_factory=DataConfig)
    model: Family = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        plain = isinstance(self.name, str) and self.name.replace("_", "").replace("-", "").isalnum()
        require(plain, "name", self.name, "letters, digits, - and _")
        for group in dataclasses.fields(self)[1:]:
            value, kinds = getattr(self, group.name), field_types(type(self), group.name)
            require(isinstance(value, kinds), group.name, value, f"a {' or '.join(kind.__name__ for kind in kinds)}")
        check_task(self)
        if self.data.is_known:
            self.model.check_images(self.data.image_shape)
