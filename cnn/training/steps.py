"""Loss, step, epoch and evaluation: pure functions of (state, images), compiled where they are public."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from cnn.data.splits import Split
from cnn.devices.sharding import split_features, spread
from cnn.errors import ConfigError, DataError
from cnn.training.augment import augment, views
from cnn.training.metrics import Metrics, batch_metrics, merge, zero_metrics
from cnn.training.optim import NON_FINITE_STEPS
from cnn.training.state import Stream, TrainState, stream_key


class Batch(NamedTuple):
    """Some images; where ``mask`` is False they only fill the batch up and count for nothing."""

    images: Array | np.ndarray
    """uint8 [B, H, W, C]."""
    labels: Array | np.ndarray
    """Integers [B]."""
    mask: Array | np.ndarray | None = None
    """bool [B]; None is True throughout."""


def check_images(state: TrainState, images: Array | np.ndarray) -> None:
    """Raises DataError for another dtype or shape than uint8 [N, H, W, C]; when traced, so it costs no run time."""
    wanted = ", ".join(map(str, state.image_shape))
    if not hasattr(images, "dtype"):
        raise DataError(f"images are a {type(images).__name__}, but must be an array, uint8 [N, {wanted}]")
    if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[1:] != state.image_shape:
        raise DataError(
            f"images are {images.dtype} {list(images.shape)}, but must be uint8 [N, {wanted}] with values from 0 to 255"
        )


def check_labels(images: Array | np.ndarray, labels: Array | np.ndarray) -> None:
    """Raises DataError unless the labels are integers [N], one an image, at least one; when traced, as above."""
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != images.shape[:1] or not len(images):
        raise DataError(
            f"labels are {labels.dtype} {list(labels.shape)}, but must be integers [{len(images)}], one an image, "
            "for at least one"
        )


def check_split(state: TrainState, split: Split, batch_size: int) -> None:
    """Raises DataError for images or labels as above, and ConfigError for a batch without images."""
    check_images(state, split.images)
    check_labels(split.images, split.labels)
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}, but must be an integer of at least 1")


def scale(state: TrainState, images: Array | np.ndarray) -> Array:
    """Returns uint8 images [B, H, W, C] as float32 from 0 to 1. Raises DataError for any others."""
    check_images(state, images)
    return jnp.asarray(images, jnp.float32) / 255


def apply_model(
    state: TrainState, params: dict, inputs: Array, mask: Array | None = None, dropout_key: Array | None = None
) -> tuple[Array, dict]:
    """Returns float32 logits [B, K] of scaled images [B, H, W, C], and the batch statistics after them.

    It trains, that is drops out and normalizes by the batch, of which the mask, bool [B], says what counts, if there
    is a key.
    """
    train = dropout_key is not None
    counted: dict[str, Any] = {"mask": mask} if state.batch_stats else {}
    outputs: Any = state.model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        inputs,
        train=train,
        rngs={"dropout": dropout_key} if train else None,
        mutable=["batch_stats"] if train else [],
        **counted,
    )
    return outputs[0], outputs[1].get("batch_stats", state.batch_stats)


def loss_and_metrics(
    params: dict, state: TrainState, batch: Batch, dropout_key: Array | None = None
) -> tuple[Array, tuple[Metrics, dict]]:
    """Returns the mean cross-entropy of the batch in nats, and its metrics and the batch statistics after it.

    With a key it is the loss of training: of augmented images, dropped-out layers and smoothed targets. A label that
    is no class makes loss and accuracy NaN: indexing would clamp or wrap it, and silently train on a wrong class.
    """
    check_images(state, batch.images)
    check_labels(batch.images, batch.labels)
    mask = jnp.ones(batch.labels.shape, bool) if batch.mask is None else batch.mask
    inputs, labels = scale(state, batch.images), jnp.asarray(batch.labels)
    targets = jax.nn.one_hot(labels, state.model.config.classes, dtype=jnp.float32)
    if dropout_key is not None:
        inputs, targets = augment(stream_key(state.key, Stream.AUGMENT, state.step), inputs, targets, state.augment)
        targets = optax.smooth_labels(targets, state.optim.label_smoothing)
    # After augmentation, which draws the same for an image on any number of devices, and mixes in none of the zeros.
    inputs, targets, labels, mask = (
        spread(array, state.mesh) for array in (inputs, targets, labels, jnp.asarray(mask))
    )
    logits_BxK, batch_stats = apply_model(state, params, inputs, mask, dropout_key)
    losses = optax.softmax_cross_entropy(logits_BxK, targets)
    losses = jnp.where((labels >= 0) & (labels < logits_BxK.shape[-1]), losses, jnp.nan)
    metrics = batch_metrics(logits_BxK, losses, labels, mask)
    return metrics.loss, (metrics, batch_stats)


def _batch_metrics(state: TrainState, batch: Batch) -> Metrics:
    """The metrics of a batch, as evaluation has them."""
    state = state.evaluated
    return loss_and_metrics(state.params, state, batch)[1][0]


def _train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    dropout_key = stream_key(state.key, Stream.DROPOUT, state.step)
    gradients_of = jax.grad(loss_and_metrics, has_aux=True)
    grads, (metrics, batch_stats) = gradients_of(state.params, state, batch, dropout_key)
    skips = isinstance(state.opt_state, optax.ApplyIfFiniteState)
    if skips:
        # A loss that is no number may have a gradient that is one.
        grads = jax.tree.map(lambda grad: grad + 0 * metrics.loss_sum, grads)
    opt_state: Any
    updates, opt_state = state.optimizer.update(grads, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    if skips:
        # A batch whose update is skipped counts for nothing.
        taken = opt_state.last_finite | (opt_state.notfinite_count > NON_FINITE_STEPS)
        metrics = jax.tree.map(lambda total: jnp.where(taken, total, 0), metrics)
        batch_stats = jax.tree.map(lambda new, old: jnp.where(taken, new, old), batch_stats, state.batch_stats)
    trained = {"params": params, "batch_stats": batch_stats}
    average = _moved(state, trained) if state.average else {}
    state = state.replace(step=state.step + 1, opt_state=opt_state, average=average, **trained)
    return split_features(state, state.mesh), metrics


def _moved(state: TrainState, trained: dict) -> dict:
    """The moving averages after a step; in the first updates they keep less, as they knew nothing yet."""
    updates = state.step // state.optim.accumulate_steps
    kept = jnp.minimum(state.optim.average_decay, (1 + updates) / (10 + updates))
    # Between two updates nothing is new.
    kept = jnp.where((state.step + 1) % state.optim.accumulate_steps == 0, kept, 1.0)
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, state.average, trained)


@partial(jax.jit, donate_argnums=0)
def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """Returns the state after one step on a batch, and the batch's metrics before it. The given state is used up."""
    return _train_step(state, batch)


@jax.jit
def eval_step(state: TrainState, batch: Batch) -> Metrics:
    """Returns the metrics of a batch, without dropout."""
    return _batch_metrics(state, batch)


def epoch_order(key: Array, epoch: int | Array, count: int, batch_size: int) -> Array:
    """Returns the indices of an epoch's images, batch by batch, int32 [steps, batch_size], the last filled up by 0."""
    order = jax.random.permutation(stream_key(key, Stream.ORDER, epoch), count)
    return jnp.pad(order, (0, -count % batch_size)).reshape(-1, batch_size)


def _epoch_steps(state, split, batch_size):
    check_split(state, split, batch_size)
    return math.ceil(len(split.labels) / batch_size)


def _train_batches(state, metrics, split, first, last, batch_size):
    """Takes the steps of the batches from ``first`` until ``last`` of an epoch, in a loop on the device."""
    count = len(split.labels)
    order = epoch_order(state.key, state.step // _epoch_steps(state, split, batch_size), count, batch_size)

    def body(index, carry):
        state, metrics = carry
        mask = None if count % batch_size == 0 else index * batch_size + jnp.arange(batch_size) < count
        batch = Batch(split.images[order[index]], split.labels[order[index]], mask)
        state, step_metrics = _train_step(state, batch)
        return state, merge(metrics, step_metrics)

    state, metrics = lax.fori_loop(first, last, body, (state, metrics))
    # What goes out of a loop may be placed anew.
    return split_features(state, state.mesh), metrics


@partial(jax.jit, donate_argnums=0, static_argnames="batch_size")
def train_epoch(state: TrainState, split: Split, *, batch_size: int) -> tuple[TrainState, Metrics]:
    """Returns the state after one pass over the split, in an order of its own each epoch, and the metrics on the way.

    One call of XLA's: the steps are a loop on the device. The last batch is filled up and masked if it is not full.
    The given state is used up.
    """
    return _train_batches(state, zero_metrics(), split, 0, _epoch_steps(state, split, batch_size), batch_size)


@partial(jax.jit, donate_argnums=(0, 1), static_argnames="batch_size")
def train_steps(
    state: TrainState, metrics: Metrics, split: Split, steps: int | Array, *, batch_size: int
) -> tuple[TrainState, Metrics]:
    """Returns the state after some of the steps of its epoch, and the epoch's metrics so far.

    ``train_epoch`` in parts, to the same bits whatever the parts, as one program takes any number of steps. The given
    state and metrics are used up.

    Args:
      state: its step says where in the epoch it is.
      metrics: of the steps before these; ``zero_metrics()`` at the beginning of an epoch.
      split: training images.
      steps: how many; they must not go beyond the epoch.
      batch_size: images a step.
    """
    first = state.step % _epoch_steps(state, split, batch_size)
    return _train_batches(state, metrics, split, first, first + steps, batch_size)


@partial(jax.jit, static_argnames="batch_size")
def evaluate(state: TrainState, split: Split, *, batch_size: int = 128) -> Metrics:
    """Returns the exact metrics of all images of a split, whatever the batch size."""
    check_split(state, split, batch_size)
    count = len(split.labels)
    batch_size = min(batch_size, count)

    def body(metrics, start):
        # The last batch begins early enough to be full, and masks what the one before it has counted.
        first = jnp.minimum(start, count - batch_size)
        images, labels = (lax.dynamic_slice_in_dim(array, first, batch_size) for array in split)
        batch = Batch(images, labels, first + jnp.arange(batch_size) >= start)
        return merge(metrics, _batch_metrics(state, batch)), None

    return lax.scan(body, zero_metrics(), jnp.arange(0, count, batch_size))[0]


def _logits(state, images, batch_size):
    """The logits [N, K] of all images, batch by batch."""
    count, state = len(images), state.evaluated
    batch_size = min(batch_size, max(count, 1))

    def logits_of(batch):
        return apply_model(state, state.params, scale(state, spread(batch, state.mesh)))[0][:batch_size]

    padded = jnp.pad(jnp.asarray(images), ((0, -count % batch_size), *[(0, 0)] * (images.ndim - 1)))
    logits = lax.map(logits_of, padded.reshape(-1, batch_size, *images.shape[1:]))
    return logits.reshape(-1, logits.shape[-1])[:count]


@partial(jax.jit, static_argnames="batch_size")
def predict(state: TrainState, images: Array | np.ndarray, *, batch_size: int = 128) -> Array:
    """Returns the class probabilities [N, K], float32, of uint8 images [N, H, W, C]; a row sums to 1."""
    check_images(state, images)
    return jax.nn.softmax(_logits(state, images, batch_size))


@jax.jit
def evaluate_views(state: TrainState, split: Split) -> Metrics:
    """Returns the metrics of the mean of the probabilities of each image and its variants: test-time augmentation."""
    check_split(state, split, 1)
    varied = views(jnp.asarray(split.images), state.augment)
    logits_VxNxK = lax.map(lambda images: _logits(state, images, 128), varied)
    # The logarithm of the mean, which is finite where a probability is not to be told from 0.
    log_mean_NxK = jax.nn.logsumexp(jax.nn.log_softmax(logits_VxNxK), axis=0) - math.log(len(varied))
    losses = optax.softmax_cross_entropy_with_integer_labels(log_mean_NxK, split.labels)
    return batch_metrics(log_mean_NxK, losses, split.labels, jnp.ones(len(split.labels), bool))
