"""A run directory -> figures/*.png: which pictures a run gets, and what is drawn in them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn import plots, rundir
from cnn.config import ExperimentConfig
from cnn.data import KOREAN_CLASS_NAMES, Splits, class_names, load_data
from cnn.errors import RunDirError
from cnn.features import feature_maps
from cnn.state import create_state
from cnn.steps import predict
from cnn.summary import layer_table
from cnn.train import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(config: ExperimentConfig, result: Result, splits: Splits) -> dict[str, Callable[[], "Figure"]]:
    """Returns, by file name, what draws each figure of a run."""
    names = class_names(config.data)
    names += tuple(f"class {label}" for label in range(len(names), config.model.classes))
    korean = KOREAN_CLASS_NAMES if config.data.name == "fashion_mnist" else None
    train, test = splits.train, splits.test
    layers = layer_table(result.state)
    maps = feature_maps(result.state, train.images[:1])
    described = f"the first training image ({names[train.labels[0]]})"
    first = next(layer.name for layer in layers if layer.parameters)
    # A dense layer on the pixels has a kernel of the image's size for each unit.
    window = np.shape(result.state.params[first]["kernel"])[:-2] or config.data.image_shape[:2]
    trained, untrained = (
        np.asarray(state.evaluated.params[first]["kernel"]).reshape(*window, -1, maps[first].shape[-1])
        for state in (result.state, create_state(config))
    )

    def shown(layer):
        return lambda: plots.feature_maps(np.asarray(maps[layer][0]), f"What {layer} makes of {described}")

    return {
        "learning_curves": lambda: plots.learning_curves(result.history, result.summary["best_epoch"]),
        "sample": lambda: plots.sample(train.images[:20], train.labels[:20], names, korean),
        "model": lambda: plots.model_diagram(layers),
        "weights_histogram": lambda: plots.weights_histogram(trained, untrained, first),
        f"kernels_{first}_trained": lambda: plots.kernels(trained, f"Kernels of {first}, trained"),
        f"kernels_{first}_untrained": lambda: plots.kernels(untrained, f"Kernels of {first}, untrained"),
        "first_image": lambda: plots.image(train.images[0], f"{described[0].upper()}{described[1:]}"),
        **{f"feature_maps_{layer.name}": shown(layer.name) for layer in layers if layer.kind == "Conv"},
        "probabilities": lambda: plots.probabilities(
            test.images[:6], np.asarray(predict(result.state, test.images[:6])), test.labels[:6], names
        ),
    }


def draw_figures(run_dir: Path, config: ExperimentConfig, result: Result, splits: Splits | None = None) -> list[Path]:
    """Draws all figures of a run and returns their paths.

    Args:
      run_dir: directory of the run.
      config: its experiment.
      result: its result.
      splits: the images that it trained on, if not those that the configuration names.

    Raises:
      RunDirError: they cannot be written; the result of the run is complete without them.
    """
    directory = rundir.own_directory(run_dir, rundir.FIGURES)
    drawings = figures(config, result, splits or load_data(config.data))
    try:
        directory.mkdir(exist_ok=True)
        for name, draw in drawings.items():
            plots.save(draw(), directory / f"{name}.png")
    except OSError as error:
        raise RunDirError(
            f"cannot write {directory}: {error.strerror}; mend that, and python -m cnn look {run_dir} draws them"
        ) from error
    return [directory / f"{name}.png" for name in drawings]
