"""What training changes, as one pytree, and how it begins: parameters, optimizer, schedule, keys."""

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh

from cnn.config import AugmentConfig, ExperimentConfig, OptimConfig
from cnn.devices.sharding import split_features
from cnn.training.optim import make_optimizer, total_steps


class Stream(IntEnum):
    """What a random key is for. Keys are derived from the seed and never handed on, so any step can be made again."""

    INIT = 0
    ORDER = 1
    DROPOUT = 2
    AUGMENT = 3


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
    batch_stats: dict
    """Running statistics of the layers that normalize, by layer name; {} without any."""
    average: dict
    """Moving averages of ``params`` and ``batch_stats``; {} without ``--optim.average_decay``."""
    model: nn.Module = flax.struct.field(pytree_node=False)
    optimizer: optax.GradientTransformation = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)
    optim: OptimConfig = flax.struct.field(pytree_node=False)
    augment: AugmentConfig = flax.struct.field(pytree_node=False)
    mesh: Mesh | None = flax.struct.field(pytree_node=False, default=None)
    """The devices that share the work; None for one."""

    @property
    def evaluated(self) -> "TrainState":
        """What evaluation and prediction take: the state with the averages in place, if they are kept."""
        return self.replace(**self.average)


def create_state(config: ExperimentConfig, train_images: int | None = None, mesh: Mesh | None = None) -> TrainState:
    """Returns the state before the first step.

    Args:
      config: its model, optimizer, seed and data set's image shape count.
      train_images: number of images in an epoch, which a schedule that ends with the last epoch needs to know;
        by default that of the data set.
      mesh: the devices that it is to live on and that share the work of its steps; by default JAX's first.
    """
    state = initial_state(config, train_images, mesh)(np.uint32(config.train.seed))
    return jax.device_put(state, mesh.devices.item()) if mesh and mesh.size == 1 else state


def abstract_state(config: ExperimentConfig, train_images: int | None = None) -> TrainState:
    """Returns the shapes and dtypes of ``create_state``, of which nothing is computed."""
    return jax.eval_shape(initial_state(config, train_images), np.uint32(0))


def initial_state(
    config: ExperimentConfig, train_images: int | None = None, mesh: Mesh | None = None
) -> Callable[[Array | np.uint32], TrainState]:
    """Returns the pure function from a seed to the state before the first step; arguments as above."""
    # A constant rate has no end, so that it need not be compiled anew for another number of epochs.
    steps = 0 if config.optim.schedule == "constant" else total_steps(config, train_images)
    return partial(
        _initial_state,
        model=config.model.module(),
        optimizer=make_optimizer(config.optim, steps, config.train.nan_policy == "skip"),
        image_shape=config.data.image_shape,
        optim=config.optim,
        augment=config.augment,
        mesh=mesh if mesh and mesh.size > 1 else None,
    )


# Compiled once for all states of an experiment. The seed, and not its key, is the argument, as all processes know it.
@partial(jax.jit, static_argnames=("model", "optimizer", "image_shape", "optim", "augment", "mesh"))
def _initial_state(
    seed: Array | np.uint32,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    optim: OptimConfig,
    augment: AugmentConfig,
    mesh: Mesh | None,
) -> TrainState:
    key = jax.random.key(seed)
    variables: Any = model.init(stream_key(key, Stream.INIT), jnp.zeros((1, *image_shape)), train=False)
    trained = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    state = TrainState(
        step=jnp.int32(0),
        key=key,
        opt_state=optimizer.init(trained["params"]),
        average=jax.tree.map(jnp.copy, trained) if optim.average_decay else {},
        **trained,
        model=model,
        optimizer=optimizer,
        image_shape=image_shape,
        optim=optim,
        augment=augment,
        mesh=mesh,
    )
    return split_features(state, mesh)
