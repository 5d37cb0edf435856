"""A run directory -> figures/*.png: which figures a run gets, and their content."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.splits import Split, Splits
from cnn.errors import DamagedError, RunDirError, UserError
from cnn.figures import dynamics_plots, image_plots, kernel_plots, plots
from cnn.look import scene_figures
from cnn.look.dynamics import Dynamics, exemplars, run_dynamics
from cnn.look.features import feature_maps
from cnn.look.reading import reading_figure
from cnn.look.subject import subject
from cnn.models import layers as shipped_layers
from cnn.models.recurrent import RecurrentConfig
from cnn.resolution import korean_names, model_class_names
from cnn.runs import derived, outputs, rundir
from cnn.runs.result import Result, load_images
from cnn.runs.store import latest_description
from cnn.runs.transfer import apply_transfer
from cnn.training.border import predict
from cnn.training.state import TrainState, create_state
from cnn.training.summary import LayerRow, flattened_pixels, layer_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


OUTPUT_HINT = "fix that, or name another directory with --output"

FIGURES = (
    *("learning_curves.png", "sample.png", "model.png", "weights_histogram.png", "first_image.png"),
    *("kernels_*.png", "feature_maps_*.png", "probabilities.png", "dynamics.png"),
    *("reading.png", "scenes.png", "objectness.png"),
)
"""Patterns of the names of a run's figures."""

STRIP_KERNELS, STRIP_EPOCHS = 8, 16
"""Maximum numbers of rows and columns in the figure of the kernels by epoch."""


def initial_state(config: ExperimentConfig) -> tuple[TrainState, str]:
    """Returns a run's initial state (a random one if the transfer source is gone or damaged) and a label for it."""
    state = create_state(config)
    try:
        state, report = apply_transfer(state, config.transfer)
    except (UserError, DamagedError):
        return state, "random (the source run cannot be used)"
    return state, "initialized from another run" if report else "untrained"


def layer_kernel(state: TrainState, layers: list[LayerRow], name: str) -> np.ndarray:
    """Returns the kernel of a layer in the shape of a convolution's, [H, W, C_in, C_out].

    A dense layer after flattened pixels becomes a window of the image's size, the inputs of a recurrent layer a window
    of one row, and any other one a window of one pixel.
    """
    kernel = np.asarray(state.eval_state.params[name]["kernel"])
    flattened = flattened_pixels(layers)
    shape = flattened[1] if flattened and flattened[0] == name else (1, 1, -1)
    if next(row.kind for row in layers if row.name == name) == "Recurrent":
        shape = (1, -1, 1)
    return kernel if kernel.ndim == 4 else kernel.reshape(*shape, kernel.shape[-1])


def layer_maps(maps: Mapping[str, Any], name: str) -> np.ndarray:
    """Returns a layer's output for the first image: [H, W, C], or [F] of a layer without pixels.

    Tokens [T, D] are arranged like their pixels; a sequence of rows is one map, [T, D, 1].

    Args:
      maps: as ``feature_maps`` returns them.
      name: of the layer.
    """
    names, outputs = list(maps), np.asarray(maps[name][0])
    if outputs.ndim == 2:
        before = [maps[other].shape[1:3] for other in names[: names.index(name)] if maps[other].ndim == 4]
        outputs = outputs.reshape(*before[-1], -1) if before else outputs[..., None]
    return outputs


def _kernel_strip(kernels: Mapping[int, np.ndarray], layer: str) -> "Figure":
    """Draws the kernels of the first convolution that training changed most, by epoch.

    Args:
      kernels: by epoch, [H, W, C_in, C_out], at least one.
      layer: name of the layer.
    """
    epochs = sorted(kernels)
    if len(epochs) > STRIP_EPOCHS:
        epochs = [epochs[index] for index in np.linspace(0, len(epochs) - 1, STRIP_EPOCHS).round().astype(int)]
    by_epoch = np.stack([kernels[epoch][:, :, 0] for epoch in epochs])
    change = ((by_epoch[-1] - by_epoch[0]) ** 2).sum((0, 1))
    most_changed = np.sort(np.argsort(-change, kind="stable")[:STRIP_KERNELS])
    title = f"The {len(most_changed)} kernels of {layer} that training changed most, by epoch (0: before training)"
    return kernel_plots.kernels_by_epoch(by_epoch[..., most_changed], epochs, title)


def _cartography(dynamics: Dynamics, train: Split, names: Sequence[str]) -> "Figure":
    """Draws the map of easy, ambiguous and hard training images."""
    chosen = exemplars(dynamics, dynamics_plots.PICTURES)
    pictures = {
        kind: (train.images[at], [str(names[label]) for label in train.labels[at]]) for kind, at in chosen.items()
    }
    return dynamics_plots.cartography(dynamics.mean, dynamics.spread, dynamics.correct, pictures)


def figures(
    config: ExperimentConfig,
    result: Result,
    splits: Splits,
    kernels: Mapping[int, np.ndarray] | None = None,
    dynamics: Dynamics | None = None,
) -> dict[str, Callable[[], "Figure"]]:
    """Returns, by file name, the functions that draw the figures of a run.

    Args:
      config: its experiment.
      result: its result.
      splits: its images.
      kernels: as ``derived.read_kernels`` returns them; their figure is left out without them.
      dynamics: of the training images; their map is left out without them.
    """
    names, layers = model_class_names(config), layer_table(result.state)
    image, description = subject(config.model.task, splits, names)
    maps = feature_maps(result.state, image[None])

    def draw_maps(layer):
        return lambda: image_plots.feature_maps(layer_maps(maps, layer), f"Feature maps of {layer} for {description}")

    # Imported weights have no history.
    curves = {"learning_curves": lambda: plots.learning_curves(result.history, result.summary["best_epoch"])}
    return {
        **(curves if result.history else {}),
        **TASK_FIGURES[config.model.task](config, result, splits, dynamics),
        "model": lambda: plots.model_diagram(layers),
        **_kernel_figures(config, result, layers, kernels),
        **{f"feature_maps_{layer.name}": draw_maps(layer.name) for layer in layers if _has_maps(layer)},
    }


def _class_figures(
    config: ExperimentConfig, result: Result, splits: Splits, dynamics: Dynamics | None
) -> dict[str, Callable[[], "Figure"]]:
    """What draws the figures of a classifier's run besides those of any network."""
    names, (train, _, test) = model_class_names(config), splits
    image, description = subject("classification", splits, names)
    return {
        **({"dynamics": lambda: _cartography(dynamics, train, names)} if dynamics else {}),
        "sample": lambda: image_plots.sample(train.images[:20], train.labels[:20], names, korean_names(config.data)),
        "first_image": lambda: image_plots.image(image, f"{description[0].upper()}{description[1:]}"),
        **(
            {"reading": lambda: reading_figure(result.state, test.images[0], names, "The first test image")}
            if isinstance(config.model, RecurrentConfig)
            else {}
        ),
        "probabilities": lambda: image_plots.probabilities(
            test.images[:6], np.asarray(predict(result.state, test.images[:6])), test.labels[:6], names
        ),
    }


TASK_FIGURES: dict[str, Callable[..., dict[str, Callable[[], "Figure"]]]] = {
    "classification": _class_figures,
    "detection": scene_figures.run_figures,
}
"""By task, the function of experiment, result, images and training dynamics."""


def _has_maps(layer: LayerRow) -> bool:
    """Whether a layer's maps are drawn with the run's figures: a convolution, or a block with parameters and pixels."""
    is_block = layer.parameters > 0 and not hasattr(shipped_layers, layer.kind)
    return layer.kind == "Conv" or (is_block and len(layer.output_shape) == 4)


def _kernel_figures(
    config: ExperimentConfig, result: Result, layers: list[LayerRow], by_epoch: Mapping[int, np.ndarray] | None
) -> dict[str, Callable[[], "Figure"]]:
    """Returns what draws the kernels of the first layer that has one; {} if all are inside of one's own blocks."""
    params = result.state.params
    first = next((layer.name for layer in layers if "kernel" in params.get(layer.name, {})), None)
    if first is None:
        return {}
    initial, origin = initial_state(config)
    trained, untrained = (layer_kernel(state, layers, first) for state in (result.state, initial))
    limit = kernel_plots.weight_limit(trained, untrained)
    strip = {f"kernels_{first}_by_epoch": lambda: _kernel_strip(by_epoch, first)} if by_epoch else {}
    return {
        "weights_histogram": lambda: plots.weights_histogram(trained, untrained, first, origin),
        f"kernels_{first}_trained": lambda: kernel_plots.kernels(trained, f"Kernels of {first}, trained", limit=limit),
        f"kernels_{first}_untrained": lambda: kernel_plots.kernels(
            untrained, f"Kernels of {first}, {origin}", limit=limit
        ),
        **strip,
    }


def draw_figures(
    run_dir: Path,
    config: ExperimentConfig,
    result: Result,
    splits: Splits | None = None,
    output: Path | None = None,
) -> list[Path]:
    """Draws all figures of a run and returns their paths.

    Args:
      run_dir: directory of the run.
      config: its experiment.
      result: its result.
      splits: its images; None loads those of the configuration.
      output: directory for the figures; None for the run's.

    Raises:
      RunDirError: they cannot be written, or kernels or dynamics are damaged or another run's; the result of the run
        is complete without them.
    """
    directory = figures_directory(run_dir, output, FIGURES)
    kernels = derived.read_kernels(run_dir, len(result.history))
    _check_kernels(run_dir)
    drawings = figures(config, result, splits or load_images(run_dir, config.data), kernels, run_dynamics(run_dir))
    return write_figures(directory, drawings, f"fix that, then python -m cnn look {run_dir} [--output DIR] draws them")


def _check_kernels(run_dir: Path) -> None:
    """Raises RunDirError for a kernels.jsonl other than that of which the latest checkpoint has the digest."""
    saved = latest_description(run_dir).get("files")
    actual = derived.derived_digest(run_dir, rundir.KERNELS)
    # Older runs record none.
    if saved is not None and actual not in (None, saved.get(rundir.KERNELS)):
        raise RunDirError(
            f"{run_dir / rundir.KERNELS} is not what was saved with the latest checkpoint; "
            "restore a copy, or remove it and its picture"
        )


def figures_directory(run_dir: Path, output: Path | None, patterns: Sequence[str]) -> Path:
    """Returns the directory for figures, which need not exist: the one that the user names, or else the run's.

    Args:
      run_dir: directory of the run.
      output: what the user names, if anything.
      patterns: of the names of the figures.

    Raises:
      UserError: as of ``outputs.check_directory``, or the run's is a link.
    """
    if output is None:
        return rundir.own_directory(run_dir, rundir.FIGURES)
    return outputs.check_directory(output, "figure", [run_dir], patterns)


def write_figures(
    directory: Path, drawings: Mapping[str, Callable[[], "Figure"]], hint: str = OUTPUT_HINT
) -> list[Path]:
    """Writes figures into a directory, which is made if needed, one after the other, and returns their paths.

    Args:
      directory: from ``figures_directory``.
      drawings: by file name, the functions that draw them.
      hint: end of the error message if they cannot be written.

    Raises:
      RunDirError: they cannot be written.
    """
    try:
        directory.mkdir(exist_ok=True)
        for name, draw in drawings.items():
            rundir.write_bytes(directory / f"{name}.png", plots.png(draw()), hint)
    except OSError as error:
        raise RunDirError(f"cannot write {directory}: {error.strerror}; {hint}") from error
    return [directory / f"{name}.png" for name in drawings]
