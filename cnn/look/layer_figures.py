"""A layer of a run's best network for one image -> figures/look_*.png: its output, what explains it, its kernels."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.image_files import read_image, reading
from cnn.errors import ConfigError
from cnn.figures import explanation_plots, image_plots, kernel_plots, plots
from cnn.look.attention import received_attention
from cnn.look.faithfulness import RANDOM, Explained, explain
from cnn.look.features import feature_maps
from cnn.look.neighbours import neighbours_figure
from cnn.look.reading import reading_figure
from cnn.look.run_figures import figures_directory, initial_state, layer_kernel, layer_maps, write_figures
from cnn.look.scene_figures import image_figures
from cnn.look.subject import subject
from cnn.models.recurrent import RecurrentConfig
from cnn.models.vit import ViTConfig
from cnn.resolution import model_class_names
from cnn.runs.checkpoint import load_best
from cnn.runs.result import load_images
from cnn.text import printable, shortened
from cnn.training.border import predict
from cnn.training.state import TrainState
from cnn.training.summary import LayerRow, last_hidden_layer, layer_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYER_FIGURES = ("look_*.png",)
"""Pattern of the names of a layer's figures."""


def layer_figure(maps: Mapping[str, Any], name: str, description: str, class_names: Sequence[str]) -> "Figure":
    """Draws a layer's output for the first image: maps, or bars if it has no pixels; arguments as of ``layer_maps``."""
    outputs = layer_maps(maps, name)
    if outputs.ndim == 3:
        return image_plots.feature_maps(outputs, f"The {outputs.shape[-1]} feature maps of {name} for {description}")
    title = f"Activations of the {len(outputs):,} units of {name} for {description}"
    return plots.units(outputs, title, class_names if name == list(maps)[-1] else None)


def grad_cam_layer(layers: Sequence[LayerRow]) -> str | None:
    """Returns the name of the last layer that has pixels; None if none has."""
    return next((row.name for row in reversed(layers) if len(row.output_shape) == 4), None)


def explanations_figure(
    image: np.ndarray, explained: Mapping[str, Explained], number: int, layer: str | None, title: str
) -> "Figure":
    """Draws the explanations of one of the images of ``explain``, and their curves.

    Args:
      image: uint8 [H, W, C].
      explained: from ``explain``.
      number: of the image.
      layer: of Grad-CAM, if any.
      title: of the figure.
    """
    curves = {name: tuple(curve[number] for curve in one.curves) for name, one in explained.items()}
    areas = {name: tuple(float(area[number]) for area in one.curves.areas) for name, one in explained.items()}
    maps = {name: one.maps[number] for name, one in explained.items() if name != RANDOM}
    return explanation_plots.explanations(image, maps, curves, areas, layer or "", title)


def attention_figure(state: TrainState, image: np.ndarray, model: ViTConfig, subject: str) -> "Figure":
    """Draws the attention that each patch of an image [H, W, C] receives, by block and head of a vision transformer."""
    patches = [side // model.patch_size for side in image.shape[:2]]
    received = received_attention(state, image[None])
    maps = {block: np.asarray(values[0]).reshape(-1, *patches) for block, values in received.items()}
    title = f"{subject}: the attention that each patch receives, as the mean over all patches"
    return explanation_plots.attention(image, maps, model.patch_size, title)


def _class_figures(
    state: TrainState,
    config: ExperimentConfig,
    image: np.ndarray,
    subject: str,
    layer: str,
    run_dir: Path | None,
    warn: Callable[[str], None],
) -> dict[str, Callable[[], "Figure"]]:
    """What draws the explanations of the class that an image [H, W, C] gets, and its neighbours in a run's images."""
    names, model = model_class_names(config), config.model
    probabilities = np.asarray(predict(state, image[None]))[0]
    label = int(probabilities.argmax())
    cam_layer = layer if len(next(row.output_shape for row in layer_table(state) if row.name == layer)) == 4 else None
    explained = explain(state, image[None], np.array([label]), cam_layer)
    title = f"{subject}: predicted as {shortened(names[label], 40)}, probability {probabilities[label]:.3f}"
    drawings = {f"look_{layer}_attribution": lambda: explanations_figure(image, explained, 0, cam_layer, title)}
    if isinstance(model, ViTConfig):
        drawings["look_attention"] = lambda: attention_figure(state, image, model, subject)
    if isinstance(model, RecurrentConfig):
        drawings["look_reading"] = lambda: reading_figure(state, image, names, subject)
    return drawings | (neighbours_figure(run_dir, config, state, image, layer, subject, warn) if run_dir else {})


def _scene_figures(state: TrainState, config: ExperimentConfig, image: np.ndarray, subject: str, *_: Any):
    return image_figures(state, config, image, subject)


TASK_FIGURES: dict[str, Callable[..., dict[str, Callable[[], "Figure"]]]] = {
    "classification": _class_figures,
    "detection": _scene_figures,
}
"""By task, the function of state, experiment, image, what that is called, layer, a file's run, and what warns."""


DEFAULT_LAYERS: dict[str, Callable[[Sequence[LayerRow]], str | None]] = {
    "classification": grad_cam_layer,
    # What comes after the last convolution is no map of anything.
    "detection": lambda layers: grad_cam_layer([row for row in layers if row.parameters]),
}
"""By task, the layer that is drawn if none is named."""


def draw_layer(
    run_dir: Path,
    layer: str | None,
    file: Path | None,
    output: Path | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Draws the output of a layer of a run's best network for an image, what explains the class, and its kernels.

    Args:
      run_dir: directory of the run.
      layer: its name; None for the last one that has pixels, or the last hidden one if none has.
      file: an image file, as of ``read_image``; None for the first training image, or of a detector a test scene.
      output: directory for the figures; None for the run's.
      warn: called with a line if the training images cannot be used.

    Returns:
      The paths: maps, attribution, of a vision transformer the attention, of a file the training images that are
      nearest to it in the layer's outputs, if they are there; of a detector, the boxes and objectness instead; and for
      a layer with a kernel its kernels and weights, trained and untrained.

    Raises:
      UserError: there is no such run, layer or file, or the figures cannot be written.
    """
    directory = figures_directory(run_dir, output, LAYER_FIGURES)
    state, config = load_best(run_dir)
    layers = layer_table(state)
    layer = layer or DEFAULT_LAYERS[config.model.task](layers) or last_hidden_layer(layers)
    if layer not in (all_names := [row.name for row in layers]):
        raise ConfigError(f"--layer is {layer!r}, but must be one of {', '.join(all_names)}")
    if file is None:
        image, description = subject(config.model.task, load_images(run_dir))
    else:
        image, description = read_image(file, **reading(config.data)), printable(file.name)
    maps, title = feature_maps(state, image[None]), description if file else description.capitalize()
    names = model_class_names(config)
    drawings = {f"look_{layer}_maps": lambda: layer_figure(maps, layer, description, names)}
    drawings |= TASK_FIGURES[config.model.task](state, config, image, title, layer, run_dir if file else None, warn)
    if "kernel" in state.params.get(layer, {}):
        initial, origin = initial_state(config)
        untrained, trained = (layer_kernel(one, layers, layer) for one in (initial, state))
        titles = origin, "trained"
        drawings |= {
            f"look_{layer}_kernels": lambda: kernel_plots.kernels_compared(untrained, trained, layer, titles),
            f"look_{layer}_weights": lambda: plots.weights_histogram(trained, untrained, layer, origin),
        }
    return write_figures(directory, drawings)
