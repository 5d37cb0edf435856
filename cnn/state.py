"""What training changes, as one pytree, and how it begins: parameters, optimizer, schedule, keys."""

import math
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from cnn.config import ExperimentConfig, OptimConfig
from cnn.models.cnn import CNN

KERAS_EPSILON = 1e-7
"""Adam's epsilon as Keras sets it, which the reference result was made with."""


class Stream(IntEnum):
    """What a random key is for. Keys are derived from the seed and never handed on, so any step can be made again."""

    INIT = 0
    ORDER = 1
    DROPOUT = 2


def stream_key(key: Array, stream: Stream, index: int | Array = 0) -> Array:
    """Returns the key of a stream at an epoch or step."""
    return jax.random.fold_in(jax.random.fold_in(key, stream), index)


class TrainState(flax.struct.PyTreeNode):
    """Everything a step reads and writes; ``state.replace(params=...)`` makes a new one."""

    step: Array
    """Steps taken, int32."""
    key: Array
    """The seed's key; it never changes."""
    params: dict
    """By layer name: ``params["conv1"]["kernel"]`` is [3, 3, 1, 32], float32."""
    opt_state: optax.OptState
    """Adam's moments and the like."""
    model: nn.Module = flax.struct.field(pytree_node=False)
    optimizer: optax.GradientTransformation = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)


def total_steps(config: ExperimentConfig, train_images: int | None = None) -> int:
    """Returns the number of steps until the last epoch's end."""
    return config.train.epochs * math.ceil((train_images or config.data.train_images) / config.optim.batch_size)


def learning_rate_schedule(config: OptimConfig, total_steps: int) -> Callable[[Any], Any]:
    """Returns the function from a step to its learning rate."""
    schedules = {
        "constant": lambda: optax.constant_schedule(config.learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(config.learning_rate, total_steps),
    }
    return schedules[config.schedule]()


# The same configuration must give the same object: it is static in the state, and another one would compile anew.
@cache
def make_optimizer(config: OptimConfig, total_steps: int) -> optax.GradientTransformation:
    """Returns the optimizer that the configuration names."""
    schedule = learning_rate_schedule(config, total_steps)
    optimizers = {
        "adam": lambda: optax.adam(schedule, eps=KERAS_EPSILON),
        "sgd": lambda: optax.sgd(schedule),
    }
    return optimizers[config.name]()


def create_state(config: ExperimentConfig, train_images: int | None = None) -> TrainState:
    """Returns the state before the first step.

    Args:
      config: its model, optimizer, seed and data set's image shape count.
      train_images: number of images in an epoch, which a schedule that ends with the last epoch needs to know;
        by default that of the data set.
    """
    model = CNN(config.model)
    # A constant rate has no end, so that it need not be compiled anew for another number of epochs.
    steps = 0 if config.optim.schedule == "constant" else total_steps(config, train_images)
    optimizer = make_optimizer(config.optim, steps)

    @jax.jit
    def create(key):
        images = jnp.zeros((1, *config.data.image_shape))
        params = model.init(stream_key(key, Stream.INIT), images, train=False)["params"]
        return params, optimizer.init(params)

    key = jax.random.key(config.train.seed)
    params, opt_state = create(key)
    return TrainState(jnp.int32(0), key, params, opt_state, model, optimizer, config.data.image_shape)
