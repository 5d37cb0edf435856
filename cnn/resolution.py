"""What a configuration leaves to its data, and where it finds it: image size, channels, classes and their names."""

import dataclasses

from cnn.config import DataConfig, ExperimentConfig
from cnn.datasets import DATASETS, DatasetName
from cnn.rules import checked, instance, require


@checked(config=instance(DataConfig))
def class_names(config: DataConfig) -> tuple[str, ...]:
    """Returns the English names of the classes, by label; () for own images that are not loaded yet."""
    return config.class_names or (DATASETS[config.name].class_names if config.name in DATASETS else ())


def model_class_names(config: ExperimentConfig) -> tuple[str, ...]:
    """Returns a name for each class of the model, which may have more than its data."""
    names = class_names(config.data)
    return names + unnamed(config.model.classes)[len(names) :]


def dataset_name(config: DataConfig) -> DatasetName:
    """Returns the name of the data set whose classes the configuration has; "images" for one's own."""
    known = DATASETS.get(config.name)
    return config.name if known and class_names(config) == known.class_names else "images"


def korean_names(config: DataConfig) -> tuple[str, ...]:
    """Returns the Korean names of the classes, by label; () if there are none."""
    name = dataset_name(config)
    return DATASETS[name].korean_names if name in DATASETS else ()


def unnamed(classes: int) -> tuple[str, ...]:
    """Returns what classes without names are called, by label."""
    return tuple(f"class {label}" for label in range(classes))


def resolve(
    config: ExperimentConfig,
    image_shape: tuple[int, int, int] | None = None,
    names: tuple[str, ...] = (),
    counts: tuple[int, ...] = (),
) -> ExperimentConfig:
    """Returns a configuration with what it leaves to its data: image size, channels, and the classes and their names.

    Args:
      config: the configuration; what it says stays.
      image_shape: of the images of the source; by default that of the published data set.
      names: of the classes; by default those of the published data set.
      counts: training images by label.

    Raises:
      ConfigError: the names of the classes are more than the model has, or it cannot take such images.
    """
    height, width, channels = image_shape or config.data.source_shape
    names, published = config.data.class_names or names, class_names(config.data)
    classes = config.model.classes or len(names or published)
    # Fewer classes than the published data set of that name: the images are the caller's.
    names = names or (published if classes >= len(published) else unnamed(classes))
    require(len(names) <= classes, "model.classes", classes, f"at least {len(names)}, the number of the data's classes")
    data = dataclasses.replace(
        config.data,
        image_size=(height, width),
        channels=channels,
        class_names=names,
        class_counts=config.data.class_counts or counts,
    )
    return dataclasses.replace(config, data=data, model=dataclasses.replace(config.model, classes=classes))


def resolve_as(config: ExperimentConfig, resolved: ExperimentConfig) -> ExperimentConfig:
    """Returns a configuration with what it leaves to its data as in a resolved one, so that the two can be compared."""

    def filled(values, like, names):
        left_open = [name for name in names if not getattr(values, name) or name == "name"]
        return dataclasses.replace(values, **{name: getattr(like, name) for name in left_open})

    own = config.data.source is not None and resolved.data.name == "images"
    found = ["image_size", "channels", "class_names", "class_counts", *["name"] * own]
    data = filled(config.data, resolved.data, found)
    same_family = type(config.model) is type(resolved.model)
    model = filled(config.model, resolved.model, ["classes"]) if same_family else config.model
    return dataclasses.replace(config, data=data, model=model)
