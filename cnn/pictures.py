"""A run directory -> figures/*.png: which pictures a run gets, and what is drawn in them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn import plots, rundir
from cnn.checkpoint import load_best
from cnn.config import ExperimentConfig
from cnn.data import KOREAN_CLASS_NAMES, Splits, load_data, model_class_names
from cnn.errors import RunDirError
from cnn.features import feature_maps, grad_cam, integrated_gradients
from cnn.prediction import printable, read_image
from cnn.state import create_state
from cnn.steps import predict
from cnn.summary import layer_table
from cnn.train import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(config: ExperimentConfig, result: Result, splits: Splits) -> dict[str, Callable[[], "Figure"]]:
    """Returns, by file name, what draws each figure of a run."""
    names = model_class_names(config)
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

    # Imported weights have none.
    curves = {"learning_curves": lambda: plots.learning_curves(result.history, result.summary["best_epoch"])}
    return {
        **(curves if result.history else {}),
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
    rundir.own_directory(run_dir, rundir.FIGURES)
    drawings = figures(config, result, splits or load_data(config.data))
    return write_figures(run_dir, drawings, f"mend that, and python -m cnn look {run_dir} draws them")


def write_figures(
    run_dir: Path, drawings: Mapping[str, Callable[[], "Figure"]], way_out: str = "mend that and try again"
) -> list[Path]:
    """Draws figures into a run directory, one after the other, and returns their paths.

    Args:
      run_dir: directory of the run.
      drawings: by file name, what draws each.
      way_out: what the user is told to do when they cannot be written.

    Raises:
      RunDirError: they cannot be written.
    """
    directory = rundir.own_directory(run_dir, rundir.FIGURES)
    try:
        directory.mkdir(exist_ok=True)
        for name, draw in drawings.items():
            plots.save(draw(), directory / f"{name}.png")
    except OSError as error:
        raise RunDirError(f"cannot write {directory}: {error.strerror}; {way_out}") from error
    return [directory / f"{name}.png" for name in drawings]


def draw_layer(run_dir: Path, layer: str | None, file: Path | None) -> list[Path]:
    """Draws what a layer of a run's best network makes of an image, and where it sees its class; returns the paths.

    Args:
      run_dir: directory of the run.
      layer: its name; None for the last one that has pixels.
      file: PNG or JPEG; None for the first training image.

    Raises:
      UserError: there is no such run, layer or file, or the figures cannot be written.
    """
    state, config = load_best(run_dir)
    if file is None:
        image, described = load_data(config.data).train.images[0], "the first training image"
    else:
        image, described = read_image(file, config.data.image_shape), printable(file.name)
    names = model_class_names(config)
    probabilities = np.asarray(predict(state, image[None]))[0]
    label, maps = int(probabilities.argmax()), feature_maps(state, image[None])
    layer = layer or [name for name, outputs in maps.items() if outputs.ndim == 4][-1]
    cam = np.asarray(grad_cam(state, image[None], layer, np.array([label])))[0]
    gradients = np.asarray(integrated_gradients(state, image[None], np.array([label])))[0]
    title = f"{described}: {names[label]}, by a probability of {probabilities[label]:.3f}"
    title = title[0].upper() + title[1:]
    drawings = {
        f"look_{layer}_maps": lambda: plots.feature_maps(
            np.asarray(maps[layer][0]), f"What {layer} makes of {described}"
        ),
        f"look_{layer}_attribution": lambda: plots.attribution(image, cam, gradients, layer, title),
    }
    return write_figures(run_dir, drawings)
