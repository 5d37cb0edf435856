"""Optimizers, learning-rate schedules and weight decay."""

import fnmatch
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cnn.config import ExperimentConfig, OptimConfig
from cnn.rules import require
from cnn.training.muon import muon

KERAS_EPSILON = 1e-7
"""Keras' default epsilon of Adam, with which the reference result was made."""

NON_FINITE_STEPS = 10
"""At most this many updates in a row are skipped; after that, the parameters are lost anyway."""


def epoch_steps(config: ExperimentConfig, train_images: int | None = None) -> int:
    """Returns the number of steps per epoch; the last batch may be partial."""
    return math.ceil((train_images or config.data.train_images) / config.optim.batch_size)


def total_steps(config: ExperimentConfig, train_images: int | None = None) -> int:
    """Returns the number of steps of all epochs together."""
    return config.train.epochs * epoch_steps(config, train_images)


def learning_rate_schedule(config: OptimConfig, total_steps: int, peak: float | None = None) -> Callable[[Any], Any]:
    """Returns the function from a step to its learning rate; the peak is the configuration's learning rate by default.

    One cycle: L. N. Smith and N. Topin, Super-Convergence, arXiv:1708.07120, section 3: from 1/25 of the peak up to it,
    then down to 1/1000 of it, here both linearly.
    """
    peak = config.learning_rate if peak is None else peak
    warmup = max(int(total_steps * config.warmup), 1)
    schedules = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, total_steps),
        "warmup_cosine": lambda: optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(total_steps, warmup + 1)),
        "one_cycle": lambda: optax.join_schedules(
            [
                optax.linear_schedule(peak / 25, peak, warmup),
                optax.linear_schedule(peak, peak / 1000, max(total_steps - warmup, 1)),
            ],
            [warmup],
        ),
    }
    return schedules[config.schedule]()


def learning_rate_at(config: OptimConfig, step: int, total_steps: int) -> float:
    """Returns the learning rate of the update that a step belongs to, in a run of ``total_steps`` steps."""
    updates = (total_steps - 1) // config.accumulate_steps + 1
    return float(learning_rate_schedule(config, updates)(step // config.accumulate_steps))


# The same configuration must give the same object: it is static in the state, and another one would compile again.
@cache
def make_optimizer(
    config: OptimConfig, total_steps: int, skip_non_finite: bool = False
) -> optax.GradientTransformation:
    """Returns the configuration's optimizer, which can skip updates whose gradients are non-finite."""
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
            schedule, learning_rate_schedule(config, updates, config.adam_learning_rate), decay, matrices
        ),
    }
    optimizer = optimizers[config.name]()
    if config.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    if config.learning_rate_multipliers:
        optimizer = optax.chain(optimizer, _scale_by_layer(config.learning_rate_multipliers))
    if config.accumulate_steps > 1:
        optimizer = optax.MultiSteps(optimizer, config.accumulate_steps).gradient_transformation()
    return optax.apply_if_finite(optimizer, NON_FINITE_STEPS) if skip_non_finite else optimizer


def class_weights(config: OptimConfig, counts: tuple[int, ...]) -> tuple[float, ...]:
    """Returns the weight of an image's loss by its class, as scikit-learn's "balanced"; () for equal weights.

    Args:
      config: its ``class_weights`` is used.
      counts: training images of each class; a class without any has weight 0.

    Raises:
      ConfigError: the weights follow from the counts, which are not known.
    """
    if config.class_weights == "none":
        return ()
    allowed = "none where the images of each class have not been counted, as cnn.fit does"
    require(counts != (), "optim.class_weights", config.class_weights, allowed)
    return tuple(sum(counts) / (sum(map(bool, counts)) * count) if count else 0.0 for count in counts)


def loss_targets(targets_BxK: Array, smoothing: float, weights: tuple[float, ...]) -> Array:
    """Returns smoothed targets, whose cross-entropy is weighted by class, or by the mean of mixed ones."""
    smoothed = optax.smooth_labels(targets_BxK, smoothing)
    return smoothed * (targets_BxK @ jnp.asarray(weights))[:, None] if weights else smoothed


def nan_unless_finite(grads: Any, loss: Array, opt_state: Any) -> Any:
    """Returns the gradients, NaN if the loss is not finite and non-finite updates are skipped.

    A non-finite loss may have finite gradients, such as that of a label that is out of range.
    """
    if not isinstance(opt_state, optax.ApplyIfFiniteState):
        return grads
    return jax.tree.map(lambda grad: grad + 0 * loss, grads)


def keep_if_finite(new: Any, old: Any, opt_state: Any) -> Any:
    """Returns the new values of a step, or the old ones if the optimizer skipped its update."""
    if not isinstance(opt_state, optax.ApplyIfFiniteState):
        return new
    applied = opt_state.last_finite | (opt_state.notfinite_count > NON_FINITE_STEPS)
    return jax.tree.map(lambda new, old: jnp.where(applied, new, old), new, old)


def _scale_by_layer(rates: tuple[str, ...]) -> optax.GradientTransformation:
    """Multiplies each layer's updates, weight decay included, by the factor of the first pattern that fits its name."""
    factors = [(pattern, float(factor)) for pattern, _, factor in (rate.rpartition("=") for rate in rates)]

    def init(params):
        for pattern, _ in factors:
            require(
                bool(fnmatch.filter(params, pattern)),
                "optim.learning_rate_multipliers",
                pattern,
                f"a pattern of {', '.join(params)}",
            )
        return optax.EmptyState()

    def update(updates, state, params=None):
        def scaled(path, update):
            return next((f for pattern, f in factors if fnmatch.fnmatch(path[0].key, pattern)), 1.0) * update

        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformation(init, update)


def _kernels(params: dict) -> dict:
    """The mask of weight decay: only kernels decay."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[-1].key == "kernel", params)


def matrices(params: Any) -> Any:
    """The kernels that Muon updates as matrices; not the last layer's.

    That one is updated by Adam, as K. Jordan does (kellerjordan.github.io/posts/muon): its outputs are classes, not one
    feature among many.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: path[-1].key == "kernel" and path[0].key != "logits", params
    )
