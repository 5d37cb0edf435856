"""Exports a network to safetensors, StableHLO or ONNX; loads safetensors again, and the network that ships."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.export import export, symbolic_shape

from cnn.config import ExperimentConfig
from cnn.detection.boxes import suppress
from cnn.errors import RunDirError, UserError, first_cause, import_extra
from cnn.exchange.onnx_detection import every_cell
from cnn.exchange.onnx_graph import make_graph
from cnn.exchange.tensor_file import read_tensors, write_tensors
from cnn.rules import FILE, checked, instance, optional
from cnn.runs import outputs, rundir
from cnn.runs.checkpoint import load_best
from cnn.runs.digests import differing_leaves
from cnn.serialization import from_dict
from cnn.text import parse_json
from cnn.training.detecting import pixel_boxes
from cnn.training.state import Spec, TrainState, abstract_state, create_state
from cnn.training.steps import apply_model
from cnn.training.task import scale

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms of a StableHLO file."""

PRETRAINED = Path(__file__).parents[1] / "weights" / "model.safetensors"
"""The network that ships; ``python -m benchmarks.pretrained`` makes it."""

RESULT_NUMBERS = ("val_loss", "val_accuracy", "test_loss", "test_accuracy", "best_epoch", "stopped_epoch", "params")
"""Of a run's result, in the metadata of its weights."""


def to_safetensors(state: TrainState, config: ExperimentConfig, result: dict[str, Any] | None = None) -> bytes:
    """Returns the weights used in evaluation, by name (``params/conv1/kernel``), with the configuration as metadata.

    Args:
      state: of the network.
      config: its configuration.
      result: numbers of its run, such as ``test_accuracy``, for the metadata.
    """
    metadata = {"config": json.dumps(dataclasses.asdict(config))}
    if result:
        metadata["result"] = json.dumps(result)
    return write_tensors({name: np.asarray(leaf) for name, leaf in _leaves(state).items()}, metadata)


def _probabilities(logits_BxK: Array, spec: Spec) -> Array:
    return jax.nn.softmax(logits_BxK)


def _detections(outputs_BxRxCxO: Array, spec: Spec) -> dict[str, Array]:
    return suppress(*pixel_boxes(outputs_BxRxCxO, spec))._asdict()


def _cells(outputs_BxRxCxO: Array, spec: Spec) -> dict[str, Array]:
    return dict(zip(("boxes", "scores"), pixel_boxes(outputs_BxRxCxO, spec), strict=True))


_HEADS = {"classification": _probabilities, "detection": _detections}
"""By task, what a StableHLO file gives of a network's outputs."""


def to_stablehlo(state: TrainState, config: ExperimentConfig, suppression: bool = True) -> bytes:
    """Returns ``cnn.predict`` with its weights, serialized by ``jax.export``, for cpu, cuda and tpu.

    The loaded function maps images, uint8 [B, H, W, C] for any B, to probabilities, float32 [B, K]; or a detector's, as
    ``cnn.detect``, to a dictionary of ``boxes``, ``scores`` and ``classes``, or without suppression, to each cell's
    ``boxes`` [B, G, 4] and ``scores`` [B, G, K].
    """
    state = state.eval_state
    head = _HEADS[state.spec.task.name] if suppression else _cells

    def network(images: Array) -> Any:
        return head(apply_model(state, state.params, scale(images))[0], state.spec)

    # The name is in the file: outputs.py knows files of this kind by it.
    network.__name__ = "probabilities" if head is _probabilities else "detections"
    shape = symbolic_shape(", ".join(["B", *map(str, config.data.image_shape)]))
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    # Without the source locations of the operations, which would name directories of this machine.
    name = "jax_traceback_in_locations_limit"
    limit = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        return bytes(export(jax.jit(network), platforms=PLATFORMS)(images).serialize())
    finally:
        jax.config.update(name, limit)


def to_onnx(state: TrainState, config: ExperimentConfig, suppression: bool = True) -> bytes:
    """Returns ``cnn.predict`` with its weights as an ONNX file; ``cnn.exchange.onnx_graph.make_graph`` describes it.

    A detector's gives ``boxes``, ``scores`` and ``classes`` as ``cnn.detect``; or without suppression, each cell's
    ``boxes`` [B, G, 4] and ``scores`` [B, G, K].

    Raises:
      UserError: as in ``make_graph``.
    """
    return make_graph(state, config, head=None if suppression else every_cell).SerializeToString()


class Format(NamedTuple):
    """A file format; its name is also its file extension."""

    package: str | None
    """The package it needs besides JAX."""
    write: Callable[..., bytes]
    """Of a state and its configuration; where it holds the network too, also of ``suppression``."""


FormatName = Literal["safetensors", "stablehlo", "onnx"]

FORMATS: dict[FormatName, Format] = {
    "safetensors": Format(None, to_safetensors),
    "stablehlo": Format("flatbuffers", to_stablehlo),
    "onnx": Format("onnx", to_onnx),
}


def export_run(run_dir: Path, format: FormatName, output: Path | None = None, suppression: bool = True) -> Path:
    """Writes the best network of a run to a file, and returns its path.

    Args:
      run_dir: directory of the run.
      format: format of the file.
      output: path of the file; None for ``export/model.<format>`` in the run directory, or ``model-cells.<format>``.
      suppression: of a detector as stablehlo or onnx, whether boxes that overlap are suppressed in the file.

    Raises:
      UserError: there is no such run, a package is missing, or the file cannot be written.
      DamagedError: the checkpoint is damaged.
    """
    package, write = FORMATS[format]
    if package:
        import_extra(package)
    if format == "safetensors":
        write = partial(to_safetensors, result=result_numbers(run_dir))
    elif not suppression:
        write = partial(write, suppression=False)
    path = check_export(run_dir, f"model{'' if suppression else '-cells'}.{format}", format, output)
    write_export(path, write(*load_best(run_dir)))
    return path


def check_export(run_dir: Path, name: str, kind: outputs.Kind, output: Path | None = None) -> Path:
    """Returns the path of a file in ``export/`` of a run, or the given one, if a command may write it.

    Raises:
      UserError: it may not.
    """
    directory = rundir.own_directory(run_dir, rundir.EXPORT)
    if output is None and not directory.is_dir():
        return directory / name
    return outputs.check_file(output or directory / name, kind, [run_dir])


def write_export(path: Path, content: bytes) -> None:
    """Writes a file that ``check_export`` has allowed, and ``export/`` if there is none.

    Raises:
      RunDirError: it cannot be written.
    """
    hint = "fix that, or name another path with --output"
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise RunDirError(f"cannot write {path.parent}: {error.strerror}; {hint}") from error
    rundir.write_bytes(path, content, hint)


def result_numbers(run_dir: Path) -> dict[str, Any] | None:
    """Returns a run's result without what differs from time to time, such as seconds; None if it is unfinished."""
    result = rundir.read_result(run_dir) or {}
    return {name: value for name, value in result.items() if name in RESULT_NUMBERS} or None


@checked(file=FILE, config=optional(instance(ExperimentConfig)))
def load_safetensors(file: str | Path, config: ExperimentConfig | None = None) -> tuple[TrainState, ExperimentConfig]:
    """Returns a state with the weights of a file from ``to_safetensors``, bitwise identical, and its configuration.

    Args:
      file: its path.
      config: the experiment that the file must match; None for the configuration in the file.

    Raises:
      UserError: the file cannot be read, or leaves are missing, unexpected, or of another shape or dtype; all of them
        are listed.
    """
    if not Path(file).is_file():
        raise UserError(f"{file} is not a file; name one that python -m cnn export has written")
    try:
        metadata, arrays = read_tensors(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged or not a safetensors file ({first_cause(error)})") from error
    if "config" not in metadata:
        raise UserError(
            f"{file} has no configuration in its metadata, and safetensors files do not keep the order of layers; "
            "name one that python -m cnn export has written, or save a PyTorch state_dict by torch.save"
        )
    if config is None:
        config = _read_config(file, metadata["config"])
    state = abstract_state(config)
    available, expected = (
        {name: f"{leaf.dtype} {list(leaf.shape)}" for name, leaf in leaves.items()}
        for leaves in (arrays, _leaves(state))
    )
    if differing := differing_leaves(available, expected):
        raise UserError(f"{file} is of another model than {config.name} ({'; '.join(differing)})")
    return fill_state(create_state(config), unflatten_dict(arrays, sep="/")), config


def load_pretrained() -> tuple[TrainState, ExperimentConfig]:
    """Returns the network that ships with the package, as ``load_best`` does one's own; its card is beside it.

    Raises:
      UserError: its file is missing from the installation, or damaged.
    """
    return load_safetensors(PRETRAINED)


def _read_config(file: str | Path, text: str) -> ExperimentConfig:
    try:
        return from_dict(parse_json(text))
    except (ValueError, UserError) as error:
        raise UserError(f"{file} has a configuration that cannot be used ({error})") from error


def fill_state(state: TrainState, variables: dict[str, Any]) -> TrainState:
    """Returns the state with other ``params`` and ``batch_stats``, also as its EMA if it is kept."""
    # Not the same buffers twice, as steps donate a state's buffers.
    filled, ema = (jax.tree.map(jnp.array, {"batch_stats": {}, **variables}) for _ in range(2))
    return state.replace(**filled, ema=ema if state.ema else {})


def _leaves(state: TrainState) -> dict[str, Any]:
    """The weights and running statistics used in evaluation, by name."""
    state = state.eval_state
    return flatten_dict({"params": state.params, "batch_stats": state.batch_stats}, sep="/")
