"""A network -> a file that others read or run, without this project: safetensors, StableHLO, ONNX; safetensors back."""

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

from cnn.config import ExperimentConfig, from_dict
from cnn.errors import RunDirError, UserError, first_cause, import_extra
from cnn.exchange.onnx_graph import make_graph
from cnn.runs import rundir
from cnn.runs.checkpoint import differing_leaves, load_best
from cnn.training.state import TrainState, abstract_state, create_state
from cnn.training.steps import apply_model, scale

PLATFORMS = ("cpu", "cuda", "tpu")
"""What a StableHLO file runs on."""


def to_safetensors(state: TrainState, config: ExperimentConfig) -> bytes:
    """Returns the evaluated weights by name, such as ``params/conv1/kernel``, with the configuration as metadata.

    Raises:
      UserError: the package safetensors is missing.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _leaves(state).items()}
    return import_extra("safetensors.numpy").save(arrays, {"config": json.dumps(dataclasses.asdict(config))})


def to_stablehlo(state: TrainState, config: ExperimentConfig) -> bytes:
    """Returns ``cnn.predict`` with its weights, as ``jax.export`` serializes it, for cpu, cuda and tpu.

    What it is loaded to takes images, uint8 [B, H, W, C] for any B, and gives probabilities, float32 [B, K].
    """
    state = state.eval_state

    def probabilities(images: Array) -> Array:
        return jax.nn.softmax(apply_model(state, state.params, scale(images))[0])

    shape = symbolic_shape(", ".join(["B", *map(str, config.data.image_shape)]))
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    # Without the places in the source of all operations, which would name directories of this machine.
    name = "jax_traceback_in_locations_limit"
    limit = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        return bytes(export(jax.jit(probabilities), platforms=PLATFORMS)(images).serialize())
    finally:
        jax.config.update(name, limit)


def to_onnx(state: TrainState, config: ExperimentConfig) -> bytes:
    """Returns ``cnn.predict`` with its weights as an ONNX file, as ``cnn.exchange.onnx_graph.make_graph`` describes it.

    Raises:
      UserError: as of ``make_graph``.
    """
    return make_graph(state).SerializeToString()


class Format(NamedTuple):
    """A kind of file, whose name is also its files' ending."""

    package: str
    """What it needs beside JAX."""
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
      format: kind of the file.
      output: the file; None for ``export/model.<format>`` in the run directory.

    Raises:
      UserError: there is no such run, a package is missing, or the file cannot be written.
      DamagedError: the checkpoint is damaged.
    """
    package, write = FORMATS[format]
    import_extra(package)
    directory = rundir.own_directory(run_dir, rundir.EXPORT)
    content = write(*load_best(run_dir))
    if output is None:
        output = directory / f"model.{format}"
        try:
            directory.mkdir(exist_ok=True)
        except OSError as error:
            raise RunDirError(
                f"cannot write {directory}: {error.strerror}; mend that, or name another place with --output"
            ) from error
    rundir.write_bytes(output, content, "mend that, or name another place with --output")
    return output


def load_safetensors(file: str | Path, config: ExperimentConfig | None = None) -> tuple[TrainState, ExperimentConfig]:
    """Returns a state with the weights of a file that ``to_safetensors`` made, to the bit, and its configuration.

    Args:
      file: its path.
      config: what the file must fit; None for the configuration that it holds.

    Raises:
      UserError: the package safetensors is missing, the file cannot be read, or a leaf is missing, has another shape
        or type, or is one too many; all of these are listed.
    """
    safetensors = import_extra("safetensors")
    if not Path(file).is_file():
        raise UserError(f"{file} is no file; name one that python -m cnn export has written")
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            metadata, arrays = opened.metadata() or {}, {name: opened.get_tensor(name) for name in opened.keys()}
    except (OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise UserError(f"{file} is damaged, or no safetensors file ({first_cause(error)})") from error
    if "config" not in metadata:
        raise UserError(
            f"{file} has no configuration in its metadata, and the order of layers is not kept in such a file; "
            "name one that python -m cnn export has written, or save a PyTorch state_dict by torch.save"
        )
    if config is None:
        config = _read_config(file, metadata["config"])
    state = abstract_state(config)
    there, wanted = (
        {name: f"{leaf.dtype} {list(leaf.shape)}" for name, leaf in leaves.items()}
        for leaves in (arrays, _leaves(state))
    )
    if differing := differing_leaves(there, wanted):
        raise UserError(f"{file} is of another model than {config.name} ({'; '.join(differing)})")
    return fill_state(create_state(config), unflatten_dict(arrays, sep="/")), config


def _read_config(file: str | Path, text: str) -> ExperimentConfig:
    try:
        return from_dict(json.loads(text))
    except (ValueError, UserError) as error:
        raise UserError(f"{file} has a configuration that cannot be used ({error})") from error


def fill_state(state: TrainState, variables: dict[str, Any]) -> TrainState:
    """Returns the state with other ``params`` and ``batch_stats``, also as its EMA if it is kept."""
    # Not the same buffers twice, as steps use a state's buffers up.
    filled, ema = (jax.tree.map(jnp.array, {"batch_stats": {}, **variables}) for _ in range(2))
    return state.replace(**filled, ema=ema if state.ema else {})


def _leaves(state: TrainState) -> dict[str, Any]:
    """Each evaluated weight and running statistic by its name."""
    state = state.eval_state
    return flatten_dict({"params": state.params, "batch_stats": state.batch_stats}, sep="/")
