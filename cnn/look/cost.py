"""Cost of a training step: compile time, FLOPs, bytes, memory, and its share of the machine's matmul rate."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.splits import Split, load
from cnn.devices.memory import fitting, require_memory
from cnn.devices.sharding import find_devices
from cnn.errors import ConfigError, RunDirError
from cnn.resolution import resolve
from cnn.runs import outputs
from cnn.runs.teachers import load_teachers
from cnn.text import reason
from cnn.training.state import TrainState, create_state
from cnn.training.steps import train_epoch, train_step
from cnn.training.task import Batch

IDLE = (
    *("log.", "mesh.", "transfer.", "data.val_fraction", "data.split_seed", "augment.test_time"),
    *("train.patience", "train.seed", "train.checkpoint_steps", "train.fused"),
)
"""Options, or beginnings of them, that do not change a training step."""


def matmul_rate(dtype: str = "float32", size: int = 2048, rounds: int = 5) -> float:
    """Returns this machine's FLOPs per second: the fastest of several products of two square matrices, measured now."""
    matrix = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(matrix, matrix))
    return 2 * size**3 / min(_seconds(lambda: product(matrix, matrix)) for _ in range(rounds))


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def step_cost(config: ExperimentConfig, steps: int = 50, profile: Path | None = None) -> dict[str, float]:
    """Returns the cost of a training step of an experiment, measured on random images.

    Args:
      config: the experiment.
      steps: number of steps in the timed loop.
      profile: directory for a trace of that loop, readable by Perfetto, chrome://tracing and XProf.

    Returns:
      ``trace_seconds``, ``lower_seconds`` and ``compile_seconds`` of train_step; ``flops`` of the step in its plain
      formulation, whatever algorithm computes it; ``bytes`` that the compiled step reads and writes, by XLA's count
      (which ignores caches and the inside of library calls, and counts a loop's body once); ``argument_bytes`` and
      ``temporary_bytes`` in memory; ``flops_per_byte``; ``step_seconds`` in a loop; ``flops_per_second``;
      ``matmul_flops_per_second`` of this machine in the model's type; and ``share_of_matmul``.
    """
    if profile is not None:
        _check_profile(profile)
    known = config.data.is_known and config.optim.class_weights == "none"
    # Of one's own images, the size and the classes are in the files.
    config, device = resolve(config) if known else load(config)[0], find_devices(config.train.device)[0]
    batch_size = config.optim.batch_size
    state = jax.device_put(create_state(config, teachers=load_teachers(config)[0]), device)
    shape = (steps * batch_size, *config.data.source_shape)
    require_memory(jax.ShapeDtypeStruct(shape, "uint8"), "the images of a batch")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, np.uint8)
    labels = rng.integers(0, config.model.classes, len(images), np.int32)
    if config.model.task == "detection" and not config.data.scenes:
        # A box an image; with scenes, the step composes them.
        labels = np.tile(np.array([0, 0, *shape[2:0:-1], 0], np.float32), (len(images), 1, 1))
    split = jax.device_put(Split(images, labels), device)

    start = time.perf_counter()
    batch = Batch(split.images[:batch_size], split.labels[:batch_size])
    traced = train_step.trace(state, batch)
    traced_at = time.perf_counter()
    lowered = traced.lower()
    lowered_at = time.perf_counter()
    compiled = fitting(lowered.compile())
    cost = {
        "trace_seconds": traced_at - start,
        "lower_seconds": lowered_at - traced_at,
        "compile_seconds": time.perf_counter() - lowered_at,
    }
    memory: Any = compiled.memory_analysis()
    flops, bytes_moved = plain_flops(state, batch), _analysis(compiled)["bytes accessed"]

    epoch = train_epoch.lower(state, split, batch_size=batch_size).compile()
    state, _ = jax.block_until_ready(epoch(state, split))
    with _trace(profile) if profile else nullcontext():
        step_seconds = _seconds(lambda: epoch(state, split)) / steps
    rate = matmul_rate(config.model.dtype)
    return cost | {
        "flops": flops,
        "bytes": bytes_moved,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "flops_per_byte": flops / bytes_moved,
        "step_seconds": step_seconds,
        "flops_per_second": flops / step_seconds,
        "matmul_flops_per_second": rate,
        "share_of_matmul": flops / step_seconds / rate,
    }


def _check_profile(directory: Path) -> None:
    """Raises ConfigError if nothing can be written to the directory, which is not left behind if it is new."""
    problem, new = "", []
    try:
        run = outputs.run_of(Path(os.path.realpath(directory)))
        if run is not None:
            problem = f"is in the run {run}"
        else:
            new = [path for path in (directory, *directory.parents) if not path.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory):
                pass
    except (OSError, ValueError) as error:
        problem = f"cannot be written ({reason(error)})"
    # The configuration is checked after this, and may be refused.
    for path in new:
        with suppress(OSError):
            path.rmdir()
    if problem:
        raise ConfigError(f"--profile is {str(directory)!r}, which {problem}; name another directory")


@contextmanager
def _trace(directory: Path) -> Iterator[None]:
    """Writes a trace of what its block computes to a directory."""
    jax.profiler.start_trace(str(directory))
    try:
        yield
    finally:
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError) as error:
            raise RunDirError(f"cannot write {directory}: {reason(error)}; fix that and try again") from error


def plain_flops(state: TrainState, batch: Batch) -> float:
    """Returns the FLOPs of a training step in its plain formulation.

    Winograd's algorithm needs fewer, in a loop that XLA counts once; a program lowered for TPU has neither. The CPU's
    XLA, part of every installation of JAX, counts them: the other backends count only compiled programs.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, batch))
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return _analysis(train_step.trace(*shapes).lower(lowering_platforms=("tpu",)))["flops"]


def _analysis(program: Any) -> dict[str, float]:
    """XLA's cost analysis, which some platforms return as a list of one."""
    analysis = program.cost_analysis()
    return analysis[0] if isinstance(analysis, list) else analysis


UNITS = {"seconds": (1e3, "ms"), "bytes": (2**-20, "MiB"), "flops": (1e-6, "MFLOP")}


def format_cost(cost: dict[str, float], title: str) -> str:
    """Returns the cost as a table."""
    lines = [title]
    for name, value in cost.items():
        unit = name.rsplit("_", 1)[-1]
        if name.endswith("per_second"):
            text = f"{value / 1e9:,.1f} GFLOP/s"
        elif name == "share_of_matmul":
            text = f"{value:.0%}"
        elif unit in UNITS:
            factor, symbol = UNITS[unit]
            text = f"{value * factor:,.1f} {symbol}"
        else:
            text = f"{value:.1f}"
        lines.append(f"  {name.replace('_', ' '):26}{text:>18}")
    return "\n".join(lines)
