"""Loss, step, epoch and evaluation: pure functions of (state, images), compiled where they are public.

The public functions check their input when they are traced, which costs no run time; inside, nothing is checked again.
"""

import math
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from cnn.data.splits import Split
from cnn.devices.sharding import shard_batch, shard_features
from cnn.errors import ConfigError, UserError
from cnn.training.augment import tta_views
from cnn.training.distill import distilled
from cnn.training.dynamics import record
from cnn.training.metrics import Metrics, batch_metrics, merge, zero_metrics
from cnn.training.optim import keep_if_finite, nan_unless_finite
from cnn.training.state import Stream, TrainState, stream_key
from cnn.training.task import Batch, check_images, scale

# Input


def check_input(state: TrainState, data: Batch | Split, batch_size: int = 1) -> None:
    """Raises DataError unless the images and labels are what the state's task takes, ConfigError for an empty batch."""
    state.spec.task.check(state.spec, data.images, data.labels)
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}, but must be an integer of at least 1")


# Loss


def apply_model(
    state: TrainState,
    params: dict,
    inputs_BxHxWxC: Array,
    *,
    train: bool = False,
    mask_B: Array | None = None,
    dropout_key: Array | None = None,
) -> tuple[Array, dict]:
    """Returns the float32 outputs of scaled images, such as logits [B, K], and the batch statistics after them.

    With ``train``, dropout is active and BatchNorm uses batch statistics, ignoring images whose mask is False.
    """
    mask: dict[str, Any] = {"mask_B": mask_B} if state.batch_stats else {}
    rngs: Any = {"dropout": dropout_key} if train else None
    outputs: Any = state.spec.model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        inputs_BxHxWxC,
        train=train,
        rngs=rngs,
        mutable=["batch_stats"] if train else [],
        **mask,
    )
    outputs_BxX, updated = outputs
    return outputs_BxX, updated.get("batch_stats", state.batch_stats)


def train_loss(params: dict, state: TrainState, batch: Batch) -> tuple[Array, tuple[Metrics, dict, dict]]:
    """Returns the loss that training minimizes, and the batch's metrics, batch statistics and dynamics after it.

    That is the task's mean loss of augmented images, with dropout and any teachers.
    """
    task, spec = state.spec.task, state.spec
    dropout_key = stream_key(state.key, Stream.DROPOUT, state.step)
    augment_key = stream_key(state.key, Stream.AUGMENT, state.step)
    # After augmentation, so that it draws the same for an image on any number of devices, and mixes in no padding.
    inputs_BxHxWxC, targets, mask_B = shard_batch(task.train_inputs(augment_key, batch, spec), spec.mesh)
    outputs_BxX, batch_stats = apply_model(
        state, params, inputs_BxHxWxC, train=True, mask_B=mask_B, dropout_key=dropout_key
    )
    losses_B = task.losses(outputs_BxX, targets)
    if state.teachers:
        teachers_TxBxK = jnp.stack([apply_model(one, one.params, inputs_BxHxWxC)[0] for one in state.teachers])
        losses_B = distilled(losses_B, outputs_BxX, teachers_TxBxK, spec.distill)
    metrics = task.metrics(outputs_BxX, losses_B, targets, mask_B)
    return metrics.loss, (metrics, batch_stats, record(state.dynamics, state.step, outputs_BxX, targets))


def eval_metrics(state: TrainState, batch: Batch) -> Metrics:
    """Returns the metrics of a batch without augmentation and dropout, with the EMA of the parameters if enabled."""
    state, task, spec = state.eval_state, state.spec.task, state.spec
    inputs_BxHxWxC, targets, mask_B = shard_batch(task.eval_inputs(batch, spec), spec.mesh)
    outputs_BxX, _ = apply_model(state, state.params, inputs_BxHxWxC, mask_B=mask_B)
    return task.metrics(outputs_BxX, task.losses(outputs_BxX, targets), targets, mask_B)


# Step


def _train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    grads, (metrics, batch_stats, dynamics) = jax.grad(train_loss, has_aux=True)(state.params, state, batch)
    grads = nan_unless_finite(grads, metrics.loss_sum, state.opt_state)
    updates, opt_state = state.spec.optimizer.update(grads, state.opt_state, state.params)
    params = cast(dict, optax.apply_updates(state.params, updates))
    old = zero_metrics(), state.batch_stats, state.dynamics
    metrics, batch_stats, dynamics = keep_if_finite((metrics, batch_stats, dynamics), old, opt_state)
    trained = {"params": params, "batch_stats": batch_stats}
    ema = keep_if_finite(_update_ema(state, trained), state.ema, opt_state)
    state = state.replace(step=state.step + 1, opt_state=opt_state, ema=ema, dynamics=dynamics, **trained)
    return shard_features(state, state.spec.mesh), metrics


def _update_ema(state: TrainState, trained: dict) -> dict:
    """EMA update with warm-up: decay = min(average_decay, (1 + t) / (10 + t))."""
    if not state.ema:
        return {}
    every = state.spec.optim.accumulate_steps
    updates = state.step // every
    decay = jnp.minimum(state.spec.optim.average_decay, (1 + updates) / (10 + updates))
    # Between two updates the parameters stay the same.
    decay = jnp.where((state.step + 1) % every == 0, decay, 1.0)
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, trained)


@partial(jax.jit, donate_argnums=0)
def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """Returns the state after one step on a batch, and the batch's metrics before it. The given state is donated."""
    check_input(state, batch)
    return _train_step(state, batch)


@jax.jit
def eval_step(state: TrainState, batch: Batch) -> Metrics:
    """Returns the metrics of a batch, without dropout."""
    check_input(state, batch)
    return eval_metrics(state, batch)


# Epoch


def epoch_order(key: Array, epoch: int | Array, count: int, batch_size: int) -> Array:
    """Returns the indices of an epoch's images, batch by batch, int32 [steps, batch_size], the last padded with 0."""
    order_N = jax.random.permutation(stream_key(key, Stream.ORDER, epoch), count)
    return jnp.pad(order_N, (0, -count % batch_size)).reshape(-1, batch_size)


def _train_batches(state, metrics, split, first, last, batch_size):
    """Runs the steps of the batches ``first`` to ``last - 1`` of an epoch, in a loop on the device."""
    count = len(split.labels)
    order_SxB = epoch_order(state.key, state.step // math.ceil(count / batch_size), count, batch_size)

    def batch_at(index):
        mask_B = None if count % batch_size == 0 else index * batch_size + jnp.arange(batch_size) < count
        return Batch(split.images[order_SxB[index]], split.labels[order_SxB[index]], mask_B)

    return run_steps(state, metrics, batch_at, first, last)


def run_steps(state, metrics, batch_at, first, last):
    """Runs the steps ``first`` to ``last - 1`` of an epoch, each on the batch that ``batch_at`` returns, in a loop."""

    def body(index, carry):
        state, metrics = carry
        state, step_metrics = _train_step(state, batch_at(index))
        return state, merge(metrics, step_metrics)

    state, metrics = lax.fori_loop(first, last, body, (state, metrics))
    # XLA may place the results of a loop differently.
    return shard_features(state, state.spec.mesh), metrics


@partial(jax.jit, donate_argnums=0, static_argnames="batch_size")
def train_epoch(state: TrainState, split: Split, *, batch_size: int) -> tuple[TrainState, Metrics]:
    """Returns the state after one pass over the split, in each epoch's own order, and the metrics of its steps.

    One XLA call: the steps are a loop on the device. A partial last batch is padded and masked. The given state is
    donated.
    """
    check_input(state, split, batch_size)
    return _train_batches(state, zero_metrics(), split, 0, math.ceil(len(split.labels) / batch_size), batch_size)


@partial(jax.jit, donate_argnums=(0, 1), static_argnames="batch_size")
def train_steps(
    state: TrainState, metrics: Metrics, split: Split, steps: int | Array, *, batch_size: int
) -> tuple[TrainState, Metrics]:
    """Returns the state after some of the steps of its epoch, and the epoch's metrics so far.

    ``train_epoch`` in parts, bitwise identical whatever the parts, as one program runs any number of steps. The given
    state and metrics are donated.

    Args:
      state: its ``step`` gives the position in the epoch.
      metrics: of the earlier steps of the epoch; ``zero_metrics()`` before the first.
      split: training images.
      steps: number of steps, at most those left in the epoch.
      batch_size: images per step.
    """
    check_input(state, split, batch_size)
    first = state.step % math.ceil(len(split.labels) / batch_size)
    return _train_batches(state, metrics, split, first, first + steps, batch_size)


# Evaluation


@partial(jax.jit, static_argnames="batch_size")
def evaluate(state: TrainState, split: Split, *, batch_size: int = 128) -> Metrics:
    """Returns the exact metrics of all images of a split, whatever the batch size."""
    check_input(state, split, batch_size)
    count = len(split.labels)
    batch_size = min(batch_size, count)

    def body(metrics, start):
        return merge(metrics, metrics_from(state, split, start, count, batch_size)), None

    return lax.scan(body, zero_metrics(), jnp.arange(0, count, batch_size))[0]


def metrics_from(state: TrainState, split: Split, start: Array, count: int | Array, batch_size: int) -> Metrics:
    """Returns the metrics of the batch that starts at an image, of the first ``count`` images."""
    # The last batch starts early enough to be full, and masks the images that the one before has counted.
    first = jnp.minimum(start, count - batch_size)
    images, labels = (lax.dynamic_slice_in_dim(array, first, batch_size) for array in split)
    return eval_metrics(state, Batch(images, labels, first + jnp.arange(batch_size) >= start))


def batch_outputs(state: TrainState, images_BxHxWxC: Array) -> Array:
    """Returns the outputs of a batch, such as logits [B, K]; the state is one that ``eval_state`` gives."""
    batch_size = len(images_BxHxWxC)
    return apply_model(state, state.params, scale(shard_batch(images_BxHxWxC, state.spec.mesh)))[0][:batch_size]


def image_outputs(state, images_NxHxWxC, batch_size):
    """The outputs of all images, such as logits [N, K], computed batch by batch."""
    images, state = jnp.asarray(images_NxHxWxC), state.eval_state
    count = len(images)
    batch_size = min(batch_size, max(count, 1))

    padded = jnp.pad(images, ((0, -count % batch_size), *[(0, 0)] * (images.ndim - 1)))
    outputs = lax.map(partial(batch_outputs, state), padded.reshape(-1, batch_size, *images.shape[1:]))
    return outputs.reshape(-1, *outputs.shape[2:])[:count]


@partial(jax.jit, static_argnames="batch_size")
def predict(state: TrainState, images: Array | np.ndarray, *, batch_size: int = 128) -> Array:
    """Returns the class probabilities [N, K], float32, of uint8 images [N, H, W, C]; each row sums to 1."""
    check_images(state.spec, images)
    if state.spec.task.name != "classification":
        raise UserError(f"the network's task is {state.spec.task.name}; cnn.detect gives what it finds")
    return jax.nn.softmax(image_outputs(state, images, batch_size))


@jax.jit
def evaluate_views(state: TrainState, split: Split) -> Metrics:
    """Returns the metrics of test-time augmentation: the mean of the probabilities of each image and its variants."""
    check_input(state, split)
    views_VxNxHxWxC = tta_views(jnp.asarray(split.images), state.spec.augment)
    logits_VxNxK = lax.map(lambda images_NxHxWxC: image_outputs(state, images_NxHxWxC, 128), views_VxNxHxWxC)
    # The logarithm of the mean, which stays finite where a probability underflows.
    log_mean_NxK = jax.nn.logsumexp(jax.nn.log_softmax(logits_VxNxK), axis=0) - math.log(len(views_VxNxHxWxC))
    losses_N = optax.softmax_cross_entropy_with_integer_labels(log_mean_NxK, split.labels)
    return batch_metrics(log_mean_NxK, losses_N, split.labels, jnp.ones(len(split.labels), bool))
