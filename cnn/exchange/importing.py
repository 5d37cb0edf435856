"""Weights from Keras, PyTorch or safetensors -> a run directory, as if the network had been trained here.

Layers are matched by their order, or by their shapes if these decide; kinds and shapes are compared. Everything else is
assumed to be as in the experiment: activations, padding, strides, pooling, and no layers without weights in between
except dropout. As an experiment divides pixels by 255, the weights must have been trained on pixels from 0 to 1, or in
a network that divides them itself. If an assumption is wrong, the accuracy measured in the end shows it.
"""

import math
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.splits import data_digest, load
from cnn.errors import RunDirError, UserError
from cnn.exchange.exporting import fill_state, load_safetensors
from cnn.exchange.readers import READERS
from cnn.exchange.source_layers import SourceLayer
from cnn.exchange.torch_files import read_torch
from cnn.runs import claim, outputs, rundir
from cnn.runs.checkpoint import save
from cnn.runs.digests import bytes_digest, differing_leaves
from cnn.runs.progress import initial_progress, saved_progress, timed
from cnn.runs.store import open_checkpoints, remove, remove_unfinished, steps
from cnn.text import printable
from cnn.training.border import evaluate
from cnn.training.metrics import metrics_dict
from cnn.training.state import TrainState, abstract_state, create_state
from cnn.training.summary import LayerRow, flattened_pixels, format_table, layer_table


def match_layers(state: TrainState, layers: Sequence[SourceLayer], channels_first: bool = False) -> dict[str, Any]:
    """Returns the parameters of a state's model, by layer and name, from source layers.

    Args:
      state: of the model; its weights do not matter.
      layers: those with weights, in the model's order, or in any order if no two have equal shapes.
      channels_first: whether pixels are flattened as [C, H, W], as in PyTorch, and not as [H, W, C].

    Raises:
      UserError: layers are missing, unexpected, or of another kind or shape, all of which are listed; or their order is
        unknown; or a value is non-finite; or the model has layers that cannot be imported.
    """
    table = layer_table(state)
    rows = [row for row in table if row.parameters]
    if foreign := sorted({row.kind for row in rows} - {"Conv", "Dense", "Recurrent"}):
        raise UserError(
            f"the model has layers of the kind {foreign[0]}; only Conv, Dense and Recurrent can be imported"
        )
    layers = _in_model_order(state, rows, layers)
    available, expected = {}, {}
    for row, layer in zip_longest(rows, layers):
        if row:
            expected |= _leaf_shapes(row.name, row.kind, state.params[row.name])
        if layer:
            available |= _leaf_shapes(row.name if row else f"{layer.name!r} (unexpected)", layer.kind, layer.leaves)
    if differing := differing_leaves(available, expected):
        raise UserError(
            f"the layers are not those of the model ({'; '.join(differing)}); "
            "name the experiment with these layers with --experiment"
        )
    params = {row.name: dict(layer.leaves) for row, layer in zip(rows, layers, strict=True)}
    if non_finite := [name for name, leaves in params.items() if not all(map(_is_finite, leaves.values()))]:
        raise UserError(f"the weights have non-finite values, in {', '.join(non_finite)}")
    flattened = flattened_pixels(table)
    if channels_first and flattened:
        name, (height, width, channels) = flattened
        kernel = params[name]["kernel"]
        pixels = kernel.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
        params[name]["kernel"] = pixels.reshape(kernel.shape)
    return params


def _in_model_order(state: TrainState, rows: list[LayerRow], layers: Sequence[SourceLayer]) -> Sequence[SourceLayer]:
    """Returns layers in the model's order if they differ from the model's in nothing but their order."""
    expected = [sorted(_leaf_shapes("", row.kind, state.params[row.name]).items()) for row in rows]
    available = [sorted(_leaf_shapes("", layer.kind, layer.leaves).items()) for layer in layers]
    if available == expected or sorted(available) != sorted(expected):
        return layers
    if equal := [row.name for row, shapes in zip(rows, expected, strict=True) if expected.count(shapes) > 1]:
        raise UserError(
            f"the file stores the layers in another order than the model uses them, and {', '.join(equal)} have equal "
            "shapes, so nothing tells them apart; define the layers in the order of use, load the weights, save again"
        )
    return [layers[available.index(shapes)] for shapes in expected]


def _leaf_shapes(layer: str, kind: str, leaves: dict[str, Any]) -> dict[str, str]:
    return {f"{layer}/{name}": f"{kind} {list(leaf.shape)}" for name, leaf in leaves.items()}


def _is_finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all())


def load_weights(file: Path, config: ExperimentConfig | None = None) -> tuple[TrainState, ExperimentConfig]:
    """Returns a state with the weights of a file, and its configuration.

    Args:
      file: from Keras or PyTorch, with an ending of ``READERS``, or ``.safetensors`` from ``cnn.exchange.exporting``.
      config: the experiment; None for the one in a safetensors file, else the chapter's.

    Raises:
      UserError: the file is none of these, damaged, or of another model; or a package is missing.
    """
    if file.suffix == ".safetensors":
        return load_safetensors(file, config)
    if file.suffix not in READERS:
        raise UserError(f"{file} must end in {', '.join(READERS)} or .safetensors")
    config = config or ExperimentConfig()
    read = READERS[file.suffix]
    layers = read(file)
    # Abstract, so that nothing is compiled if the layers do not match.
    state = abstract_state(config)
    try:
        params = match_layers(state, layers, channels_first=read is read_torch)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return fill_state(create_state(config), {"params": params}), config


def import_run(file: Path, run_dir: Path, state: TrainState, config: ExperimentConfig) -> dict[str, Any]:
    """Writes a run directory with a state that ``load_weights`` returned from a file, and returns its result.

    Its losses and accuracies are measured here, on the images of the configuration; it has no epochs. An import of the
    same file that was cut short is replaced.

    Raises:
      UserError: the directory holds anything else or cannot be written; or the images are missing, or the loss is
        non-finite.
    """
    seconds: dict[str, float] = {}
    _check_empty(run_dir, config)
    with timed(seconds, "data"):
        config, splits = load(config)
    with timed(seconds, "eval"):
        val, test = (jax.device_get(evaluate(state, split)) for split in (splits.val, splits.test))
    if not math.isfinite(val.loss + test.loss):
        raise UserError(f"the loss with the weights of {file} is non-finite; import weights for pixels from 0 to 1")
    rows = layer_table(state)
    imported = {"file": printable(file.name), "sha256": bytes_digest(file.read_bytes())}
    result = {
        "best_epoch": 0,
        "stopped_epoch": 0,
        **metrics_dict("val", val),
        **metrics_dict("test", test),
        "params": sum(row.parameters for row in rows),
        "seconds": seconds,
        "imported": imported,
    }
    with claim.lock(run_dir, config):
        _check_empty(run_dir, config)
        digest, train_images = data_digest(splits), len(splits.train.labels)
        # First, so that no other command takes what is unfinished for a run of its own.
        rundir.write_config(run_dir, config, digest, train_images, jax.devices()[:1], imported)
        rundir.write_text(run_dir / rundir.SUMMARY, format_table(rows, config.name))
        with open_checkpoints(run_dir) as checkpoints:
            remove(checkpoints, steps(checkpoints))
            remove_unfinished(checkpoints)
            # The best state of a run without steps is its initial one.
            save(checkpoints, state, saved_progress(initial_progress(), 0, seconds))
        rundir.write_history(run_dir, [])
        return rundir.write_result(run_dir, result)


def _check_empty(run_dir: Path, config: ExperimentConfig) -> None:
    outputs.check_new_run(run_dir)
    rundir.check_entries(run_dir, config)
    if (run_dir / rundir.CONFIG).exists() and not rundir.is_import_cut_short(run_dir):
        raise RunDirError(f"{run_dir} already holds a run; name an empty or new directory with --run-dir")
