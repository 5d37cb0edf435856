"""What training changes, as one pytree, and how it begins: parameters, optimizer, schedule, keys."""

import fnmatch
import math
from collections.abc import Callable
from enum import IntEnum
from functools import cache, partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from optax.contrib import MuonDimensionNumbers, muon

from cnn.config import AugmentConfig, ExperimentConfig, OptimConfig
from cnn.devices.sharding import split_features
from cnn.models import make_model
from cnn.rules import require

KERAS_EPSILON = 1e-7
"""Adam's epsilon as Keras sets it, which the reference result was made with."""

NEWTON_SCHULZ_STEPS = 3
"""Of Muon's orthogonalisation: 5, its usual number, costs more time an epoch and saves none."""


NON_FINITE_STEPS = 10
"""So many updates in a row are skipped at most; after that, the parameters are lost anyway."""


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


def epoch_steps(config: ExperimentConfig, train_images: int | None = None) -> int:
    """Returns the number of steps of an epoch, of which the last may not be full."""
    return math.ceil((train_images or config.data.train_images) / config.optim.batch_size)


def total_steps(config: ExperimentConfig, train_images: int | None = None) -> int:
    """Returns the number of steps until the last epoch's end."""
    return config.train.epochs * epoch_steps(config, train_images)


def learning_rate_schedule(config: OptimConfig, total_steps: int, highest: float | None = None) -> Callable[[Any], Any]:
    """Returns the function from a step to its learning rate, of which the highest is the configuration's or another.

    One cycle is that of L. N. Smith and N. Topin, Super-Convergence, arXiv:1708.07120, section 3: a rise from a 25th,
    then a fall to nothing, here both linear.
    """
    highest = config.learning_rate if highest is None else highest
    rise = max(int(total_steps * config.warmup), 1)
    schedules = {
        "constant": lambda: optax.constant_schedule(highest),
        "cosine": lambda: optax.cosine_decay_schedule(highest, total_steps),
        "warmup_cosine": lambda: optax.warmup_cosine_decay_schedule(0.0, highest, rise, max(total_steps, rise + 1)),
        "one_cycle": lambda: optax.join_schedules(
            [
                optax.linear_schedule(highest / 25, highest, rise),
                optax.linear_schedule(highest, highest / 1000, max(total_steps - rise, 1)),
            ],
            [rise],
        ),
    }
    return schedules[config.schedule]()


# The same configuration must give the same object: it is static in the state, and another one would compile anew.
@cache
def make_optimizer(config: OptimConfig, total_steps: int, skips: bool = False) -> optax.GradientTransformation:
    """Returns the optimizer that the configuration names; it skips gradients that are no numbers, if asked to."""
    updates = math.ceil(total_steps / config.accumulate_steps)
    schedule, decay = learning_rate_schedule(config, updates), config.weight_decay
    optimizers = {
        "adam": lambda: (
            optax.adamw(schedule, eps=KERAS_EPSILON, weight_decay=decay, mask=_kernels)
            if decay
            else optax.adam(schedule, eps=KERAS_EPSILON)
        ),
        "sgd": lambda: optax.chain(
            optax.add_decayed_weights(decay, _kernels), optax.sgd(schedule, config.momentum or None, nesterov=True)
        ),
        "muon": lambda: muon(
            schedule,
            ns_steps=NEWTON_SCHULZ_STEPS,
            weight_decay=decay,
            adam_learning_rate=learning_rate_schedule(config, updates, config.adam_learning_rate),
            muon_weight_dimension_numbers=_matrices,
        ),
    }
    optimizer = optimizers[config.name]()
    if config.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    if config.learning_rate_multipliers:
        optimizer = optax.chain(optimizer, _scale_by_layer(config.learning_rate_multipliers))
    if config.accumulate_steps > 1:
        optimizer = optax.MultiSteps(optimizer, config.accumulate_steps).gradient_transformation()
    return optax.apply_if_finite(optimizer, NON_FINITE_STEPS) if skips else optimizer


def _scale_by_layer(rates: tuple[str, ...]) -> optax.GradientTransformation:
    """Scales each layer's updates, those of weight decay too, by the factor of the first pattern that fits its name."""
    factors = [(pattern, float(factor)) for pattern, _, factor in (rate.rpartition("=") for rate in rates)]

    def init(params):
        for pattern, _ in factors:
            require(
                bool(fnmatch.filter(params, pattern)),
                "optim.learning_rate_multipliers",
                pattern,
                f"of {', '.join(params)}",
            )
        return optax.EmptyState()

    def update(updates, state, params=None):
        def scaled(path, update):
            return next((f for pattern, f in factors if fnmatch.fnmatch(path[0].key, pattern)), 1.0) * update

        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformation(init, update)


def _kernels(params: dict) -> dict:
    """What decays: kernels do, and nothing else does."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[-1].key == "kernel", params)


def _matrices(params: Any) -> Any:
    """Which axes of a parameter are a matrix's rows and columns to Muon; None is left to Adam.

    A convolution's kernel is one matrix from a window's values to the features. The last layer, whose rows are not
    one among many, is left to Adam, as K. Jordan does (kellerjordan.github.io/posts/muon).
    """

    def dimensions(path, leaf):
        if path[-1].key != "kernel" or path[0].key == "logits":
            return None
        return MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(dimensions, params)


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
        model=make_model(config.model),
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
