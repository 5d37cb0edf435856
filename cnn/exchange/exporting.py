"""Exports a network to safetensors, StableHLO or ONNX, usable without this project; loads safetensors again."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.export import export, symbolic_shape

from cnn.config import ExperimentConfig
from cnn.errors import RunDirError, UserError, first_cause, import_extra
from cnn.exchange.onnx_graph import make_graph
from cnn.rules import FILE, checked, instance, optional
from cnn.runs import outputs, rundir
from cnn.runs.checkpoint import load_best
from cnn.runs.digests import differing_leaves
from cnn.serialization import from_dict
from cnn.text import parse_json
from cnn.training.state import TrainState, abstract_state, create_state
from cnn.training.steps import apply_model, scale

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms of a StableHLO file."""


def to_safetensors(state: TrainState, config: ExperimentConfig) -> bytes:
    """Returns the weights used in evaluation, by name (``params/conv1/kernel``), with the configuration as metadata.

    Raises:
      UserError: the package safetensors is missing.
    """
    # The package writes the memory of an array, whatever its order.
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in _leaves(state).items()}
    return import_extra("safetensors.numpy").save(arrays, {"config": json.dumps(dataclasses.asdict(config))})


def to_stablehlo(state: TrainState, config: ExperimentConfig) -> bytes:
    """Returns ``cnn.predict`` with its weights, serialized by ``jax.export``, for cpu, cuda and tpu.

    The loaded function maps images, uint8 [B, H, W, C] for any B, to probabilities, float32 [B, K].
    """
    state = state.eval_state

    def probabilities(images: Array) -> Array:
        return jax.nn.softmax(apply_model(state, state.params, scale(images))[0])

    shape = symbolic_shape(", ".join(["B", *map(str, config.data.image_shape)]))
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    # Without the source locations of the operations, which would name directories of this machine.
    name = "jax_traceback_in_locations_limit"
    limit = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        return bytes(export(jax.jit(probabilities), platforms=PLATFORMS)(images).serialize())
    finally:
        jax.config.update(name, limit)


def to_onnx(state: TrainState, config: ExperimentConfig) -> bytes:
    """Returns ``cnn.predict`` with its weights as an ONNX file; ``cnn.exchange.onnx_graph.make_graph`` describes it.

    Raises:
      UserError: as in ``make_graph``.
    """
    return make_graph(state, config).SerializeToString()


class Format(NamedTuple):
    """A file format; its name is also its file extension."""

    package: str
    """The package it needs besides JAX."""
    write: Callable[[TrainState, ExperimentConfig], bytes]


FormatName = Literal["safetensors", "stablehlo", "onnx"]

FORMATS: dict[FormatName, Format] = {
    "safetensors": Format("safetensors", to_safetensors),
    "stablehlo": Format("flatbuffers", to_stablehlo),
    "onnx": Format("onnx", to_onnx),
}


def export_run(run_dir: Path, format: FormatName, output: Path | None = None) -> Path:
    """Writes the best network of a run to a file, and returns its path.

    Args:
      run_dir: directory of the run.
      format: format of the file.
      output: path of the file; None for ``export/model.<format>`` in the run directory.

    Raises:
      UserError: there is no such run, a package is missing, or the file cannot be written.
      DamagedError: the checkpoint is damaged.
    """
    package, write = FORMATS[format]
    import_extra(package)
    directory = rundir.own_directory(run_dir, rundir.EXPORT)
    if output is not None or directory.is_dir():
        output = outputs.check_file(output or directory / f"model.{format}", format, [run_dir])
    content = write(*load_best(run_dir))
    if output is None:
        output = directory / f"model.{format}"
        try:
            directory.mkdir(exist_ok=True)
        except OSError as error:
            raise RunDirError(
                f"cannot write {directory}: {error.strerror}; fix that, or name another path with --output"
            ) from error
    rundir.write_bytes(output, content, "fix that, or name another path with --output")
    return output


@checked(file=FILE, config=optional(instance(ExperimentConfig)))
def load_safetensors(file: str | Path, config: ExperimentConfig | None = None) -> tuple[TrainState, ExperimentConfig]:
    """Returns a state with the weights of a file from ``to_safetensors``, bitwise identical, and its configuration.

    Args:
      file: its path.
      config: the experiment that the file must match; None for the configuration in the file.

    Raises:
      UserError: the package safetensors is missing, the file cannot be read, or leaves are missing, unexpected, or of
        another shape or dtype; all of them are listed.
    """
    safetensors = import_extra("safetensors")
    if not Path(file).is_file():
        raise UserError(f"{file} is not a file; name one that python -m cnn export has written")
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            metadata, arrays = opened.metadata() or {}, {name: opened.get_tensor(name) for name in opened.keys()}
    except (OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
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
