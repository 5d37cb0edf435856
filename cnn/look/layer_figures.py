"""A layer of a run's best network for one image -> figures/look_*.png: its output, what explains it, its kernels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.data.image_files import read_image, reading
from cnn.errors import ConfigError
from cnn.figures import image_plots, kernel_plots, plots
from cnn.look.attribution import grad_cam, integrated_gradients
from cnn.look.features import feature_maps
from cnn.look.run_figures import figures_directory, initial_state, layer_kernel, layer_maps, write_figures
from cnn.resolution import model_class_names
from cnn.runs.checkpoint import load_best
from cnn.runs.result import load_images
from cnn.text import printable, shortened
from cnn.training.border import predict
from cnn.training.summary import last_hidden_layer, layer_table

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


def draw_layer(run_dir: Path, layer: str | None, file: Path | None, output: Path | None = None) -> list[Path]:
    """Draws the output of a layer of a run's best network for an image, the attribution of the class, and its kernels.

    Args:
      run_dir: directory of the run.
      layer: its name; None for the last one that has pixels, or the last hidden one if none has.
      file: an image file, as of ``read_image``; None for the first training image.
      output: directory for the figures; None for the run's.

    Returns:
      The paths: maps, attribution, and for a layer with a kernel its kernels and weights, trained and untrained.

    Raises:
      UserError: there is no such run, layer or file, or the figures cannot be written.
    """
    directory = figures_directory(run_dir, output, LAYER_FIGURES)
    state, config = load_best(run_dir)
    layers = layer_table(state)
    with_pixels = [row.name for row in layers if len(row.output_shape) == 4]
    layer = layer or (with_pixels or [last_hidden_layer(layers)])[-1]
    if layer not in (all_names := [row.name for row in layers]):
        raise ConfigError(f"--layer is {layer!r}, but must be one of {', '.join(all_names)}")
    if file is None:
        image, description = load_images(run_dir).train.images[0], "the first training image"
    else:
        image, description = read_image(file, **reading(config.data)), printable(file.name)
    names = model_class_names(config)
    probabilities = np.asarray(predict(state, image[None]))[0]
    label, maps = int(probabilities.argmax()), feature_maps(state, image[None])
    labels = np.array([label])
    cam = np.asarray(grad_cam(state, image[None], layer, labels))[0] if maps[layer].ndim == 4 else None
    gradients = np.asarray(integrated_gradients(state, image[None], labels))[0]
    subject = description if file else description.capitalize()
    title = f"{subject}: predicted as {shortened(names[label], 40)}, probability {probabilities[label]:.3f}"
    drawings = {
        f"look_{layer}_maps": lambda: layer_figure(maps, layer, description, names),
        f"look_{layer}_attribution": lambda: image_plots.attribution(image, cam, gradients, layer, title),
    }
    if "kernel" in state.params.get(layer, {}):
        initial, origin = initial_state(config)
        untrained, trained = (layer_kernel(one, layers, layer) for one in (initial, state))
        titles = origin, "trained"
        drawings |= {
            f"look_{layer}_kernels": lambda: kernel_plots.kernels_compared(untrained, trained, layer, titles),
            f"look_{layer}_weights": lambda: plots.weights_histogram(trained, untrained, layer, origin),
        }
    return write_figures(directory, drawings)
