"""The training state as one pytree, and its initial value."""

from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh

from cnn.config import AugmentConfig, DistillConfig, ExperimentConfig, OptimConfig
from cnn.devices.memory import require_memory
from cnn.devices.sharding import replicate, shard_features
from cnn.resolution import resolve
from cnn.rules import checked, instance, instances, integer, optional
from cnn.training.dynamics import zero_dynamics
from cnn.training.optim import class_weights, make_optimizer, total_steps
from cnn.training.task import Task
from cnn.training.tasks import TASKS


class Stream(IntEnum):
    """The uses of random keys. Keys are derived from the seed, never passed on, so that any step can be repeated."""

    INIT = 0
    ORDER = 1
    DROPOUT = 2
    AUGMENT = 3


def stream_key(key: Array, stream: Stream, index: int | Array = 0) -> Array:
    """Returns the key of a stream at an epoch or step."""
    return jax.random.fold_in(jax.random.fold_in(key, stream), index)


class Spec(NamedTuple):
    """The static part of a state: hashable, known when a step is compiled, the same in every step."""

    task: Task
    model: nn.Module
    optimizer: optax.GradientTransformation
    image_shape: tuple[int, int, int]
    optim: OptimConfig
    augment: AugmentConfig
    distill: DistillConfig
    observed: int
    """Number of training images whose dynamics are kept; 0 keeps none."""
    class_weights: tuple[float, ...] = ()
    """Of an image's loss in training, by its class; () for equal weights."""
    mesh: Mesh | None = None
    """The devices that the work is sharded over; None for one device."""


class TrainState(flax.struct.PyTreeNode):
    """Everything a step reads and writes; ``state.replace(params=...)`` makes a new one."""

    step: Array
    """Steps taken, int32."""
    key: Array
    """The seed's key; it never changes."""
    params: dict
    """By layer name: ``params["conv1"]["kernel"]`` is [3, 3, 1, 32], float32."""
    opt_state: optax.OptState
    """The optimizer's state, such as Adam's moments."""
    batch_stats: dict
    """Running statistics of the BatchNorm layers, by layer name; {} without such layers."""
    ema: dict
    """Exponential moving averages of ``params`` and ``batch_stats``; {} without ``--optim.average_decay``."""
    spec: Spec = flax.struct.field(pytree_node=False)
    dynamics: dict = flax.struct.field(default_factory=dict)
    """Training dynamics of the epoch, by step; {} without ``--train.dynamics``."""
    teachers: tuple["TrainState", ...] = ()
    """The states, without optimizer and key, that the state is trained towards; () without ``--distill.teacher``."""

    @property
    def eval_state(self) -> "TrainState":
        """The state for evaluation and prediction: with the EMA in place of the parameters, if enabled."""
        return self.replace(**self.ema)


def make_spec(config: ExperimentConfig, train_images: int | None = None, mesh: Mesh | None = None) -> Spec:
    """Returns the static part of an experiment's states; arguments as of ``create_state``."""
    config = resolve(config)
    # A constant rate does not depend on the number of steps, so another number of epochs compiles nothing.
    steps = 0 if config.optim.schedule == "constant" else total_steps(config, train_images)
    return Spec(
        task=TASKS[config.model.task],
        model=config.model.module(),
        optimizer=make_optimizer(config.optim, steps, config.train.nan_policy == "skip"),
        image_shape=config.data.image_shape,
        optim=config.optim,
        augment=config.augment,
        distill=config.distill,
        observed=(train_images or config.data.train_images) if config.train.dynamics else 0,
        class_weights=class_weights(config.optim, config.data.class_counts),
        mesh=mesh if mesh and mesh.size > 1 else None,
    )


@checked(teachers=instances(TrainState))
@checked(config=instance(ExperimentConfig), train_images=optional(integer(1)), mesh=optional(instance(Mesh, "a mesh")))
def create_state(
    config: ExperimentConfig, train_images: int | None = None, mesh: Mesh | None = None, teachers: tuple = ()
) -> TrainState:
    """Returns the state before the first step.

    Args:
      config: its model, optimizer, seed and image shape are used.
      train_images: number of images in an epoch, for schedules that end with the last epoch; by default that of the
        data set.
      mesh: the devices that the state and the work of its steps are sharded over; by default JAX's first device.
      teachers: states, with NumPy arrays, that the state is trained towards as ``config.distill`` says.
    """
    seed, spec = np.uint32(config.train.seed), make_spec(config, train_images, mesh)
    # On a CPU, XLA waits for ever if it cannot allocate a parameter.
    require_memory(initial_state.eval_shape(seed, spec), "the training state")
    # Copies, as steps donate them with the state.
    teachers = replicate(teachers, mesh) if mesh else jax.tree.map(jnp.array, teachers)
    state = initial_state(seed, spec).replace(teachers=teachers)
    return jax.device_put(state, mesh.devices.item()) if mesh and mesh.size == 1 else state


def abstract_state(config: ExperimentConfig, train_images: int | None = None) -> TrainState:
    """Returns the shapes and dtypes of ``create_state``; nothing is computed."""
    shapes = initial_state.eval_shape(np.uint32(0), make_spec(config, train_images))
    return require_memory(shapes, "the training state")


# Compiled once for all states of an experiment. The argument is the seed, not its key, as all processes know the seed.
@partial(jax.jit, static_argnames="spec")
def initial_state(seed: Array | np.uint32, spec: Spec) -> TrainState:
    """Returns the state before the first step for a seed, uint32."""
    key = jax.random.key(seed)
    images_1xHxWxC = jnp.zeros((1, *spec.image_shape))
    variables: Any = spec.model.init(stream_key(key, Stream.INIT), images_1xHxWxC, train=False)
    trained = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    state = TrainState(
        step=jnp.int32(0),
        key=key,
        opt_state=spec.optimizer.init(trained["params"]),
        ema=jax.tree.map(jnp.copy, trained) if spec.optim.average_decay else {},
        **trained,
        spec=spec,
        dynamics=zero_dynamics(spec.observed, spec.optim.batch_size) if spec.observed else {},
    )
    return shard_features(state, spec.mesh)
