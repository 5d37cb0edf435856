"""Images that the device has no room for: gathered from disk some hundred steps ahead, while the device trains."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, cast

import jax
import numpy as np
from jax import P
from jax.sharding import Mesh, NamedSharding

from cnn.config import ExperimentConfig
from cnn.data.arrays import Split, Splits, release
from cnn.devices.memory import spare_bytes
from cnn.devices.processes import allreduce_max
from cnn.devices.sharding import make_mesh, replicate
from cnn.errors import ConfigError
from cnn.training.metrics import Metrics, zero_metrics
from cnn.training.state import TrainState
from cnn.training.steps import epoch_order, evaluate
from cnn.training.windows import evaluate_window, train_window, window_steps

EVALUATION_BYTES = 192 << 20
"""Memory for the images of an evaluation, of which a third is a window."""

EVALUATED = 128
"""Images a batch of an evaluation, as of ``evaluate``."""


def place(config: ExperimentConfig, splits: Splits, mesh: Mesh) -> Splits:
    """Returns the images on the devices, or as they are if they are more than the devices have memory for.

    Raises:
      ConfigError: they are more, and the run needs all at once.
    """
    memory, size = _memory(config, mesh), sum(split.images.nbytes for split in splits)
    if size <= memory:
        return replicate(splits, mesh)
    for name, value in (("train.fused", config.train.fused), ("augment.test_time", config.augment.test_time)):
        if value:
            raise ConfigError(
                f"--{name} needs all images on the device, but they take {size >> 20:,} MiB of {memory >> 20:,}; "
                "leave it out, or raise --data.device_memory"
            )
    return splits


def is_streamed(split: Split) -> bool:
    """Returns whether images have stayed on the host."""
    return isinstance(split.images, np.ndarray)


def _memory(config: ExperimentConfig, mesh: Mesh) -> int:
    # The least of all processes, which must run the same programs.
    own = config.data.device_memory or spare_bytes(mesh.devices.ravel()) >> 20
    return -allreduce_max(-min(own, 2**31 - 1)) << 20


def streamed_training(
    config: ExperimentConfig, split: Split, state: TrainState, metrics: Metrics
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns what trains as ``train_steps``, to the bit, on images that are gathered a window ahead by a thread.

    Args:
      config: its batch size, memory and mesh are used; each process gathers the images of its own devices only.
      split: all training images, on the host.
      state: a state, for the program.
      metrics: an epoch's, for the program.
    """
    mesh = make_mesh(config.mesh, config.train.device)
    batch_size, count = config.optim.batch_size, len(split.labels)
    epoch_steps, image_bytes = math.ceil(count / batch_size), split.images[:1].nbytes
    size = window_steps(image_bytes, batch_size, epoch_steps, _memory(config, mesh) // 2)
    windows = math.ceil(epoch_steps / size)
    divides = batch_size % mesh.shape["data"] == 0
    sharding = NamedSharding(mesh, P(None, "data") if divides else P())
    # The state's key, which every step donates.
    key = jax.random.key(np.uint32(config.train.seed))
    threads = ThreadPoolExecutor(1, thread_name_prefix="images")
    ahead: dict[int, Future] = {}

    @lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        indices_SxB = np.asarray(epoch_order(key, epoch, count, batch_size))
        return np.pad(indices_SxB, ((0, windows * size - epoch_steps), (0, 0)))

    def gather(number: int) -> Split:
        epoch, window = divmod(number, windows)
        indices_SxB = order(epoch)[window * size : (window + 1) * size]

        def part(array: np.ndarray) -> Any:
            shape = (*indices_SxB.shape, *array.shape[1:])
            return jax.make_array_from_callback(shape, sharding, lambda at: array[indices_SxB[cast(Any, at)[:2]]])

        window = Split(part(split.images), part(split.labels))
        release(split.images)
        return window

    program = train_window.lower(
        state, metrics, gather(0), np.int32(0), np.int32(0), np.int32(1), count=count
    ).compile()

    def train(state: TrainState, metrics: Metrics, _: Any, steps: Any) -> tuple[TrainState, Metrics]:
        step, end = int(state.step), int(state.step) + int(steps)
        while step < end:
            epoch, first = divmod(step, epoch_steps)
            number = epoch * windows + first // size
            start = first // size * size
            last = min(first + end - step, start + size, epoch_steps)
            gathered = ahead.pop(number, None) or threads.submit(gather, number)
            following = ahead.pop(number + 1, None) or threads.submit(gather, number + 1)
            ahead.clear()
            ahead[number + 1] = following
            if last < min(start + size, epoch_steps):
                # The next call needs this window again.
                ahead[number] = gathered
            at = np.int32(start), np.int32(first), np.int32(last)
            state, metrics = program(state, metrics, gathered.result(), *at)
            jax.block_until_ready(metrics)
            step += last - first
        return state, metrics

    return train


def evaluation_windows(split: Split) -> Iterator[tuple[Split, int]]:
    """Yields parts of a split that fill whole batches, and the first image of each that was in no part before."""
    count, batch_size = len(split.labels), min(EVALUATED, len(split.labels))
    steps = window_steps(split.images[:1].nbytes, batch_size, math.ceil(count / batch_size), EVALUATION_BYTES)
    for start in range(0, count, steps * batch_size):
        # The last batch is full: it starts with images that have been counted.
        first = min(start, count - batch_size)
        part = slice(first, min(start + steps * batch_size, count))
        yield Split(split.images[part], split.labels[part]), start - first
        release(split.images)


def evaluate_split(state: TrainState, split: Split) -> Metrics:
    """Returns the metrics of all images of a split as ``evaluate`` does, wherever they lie."""
    if not is_streamed(split):
        return evaluate(state, split)
    metrics, batch_size = zero_metrics(), min(EVALUATED, len(split.labels))
    for window, start in evaluation_windows(split):
        metrics = evaluate_window(state, metrics, window, np.int32(start), batch_size=batch_size)
    return metrics
