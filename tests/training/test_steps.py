from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cnn
from cnn.training.metrics import merge, zero_metrics
from cnn.training.optim import make_optimizer
from cnn.training.state import Stream, stream_key
from cnn.training.steps import eval_metrics
from tests.helpers import assert_same


def _copy(tree):
    return jax.tree.map(jnp.copy, tree)


def _batch(split, start, stop):
    return cnn.Batch(split.images[start:stop], split.labels[start:stop])


def test_train_step_is_adam_on_the_mean_cross_entropy(state, small):
    batch = _batch(small.train, 0, 32)
    key = stream_key(state.key, Stream.DROPOUT, 0)

    def mean_loss(params):
        images = jnp.asarray(batch.images) / 255
        logits = state.spec.model.apply({"params": params}, images, train=True, rngs={"dropout": key})
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(32), batch.labels])

    loss, grads = jax.jit(jax.value_and_grad(mean_loss))(state.params)
    # Adam's first step is -learning_rate * g / (|g| + epsilon), as both moments' bias corrections cancel.
    expected = jax.tree.map(lambda p, g: p - 1e-3 * g / (jnp.abs(g) + 1e-7), state.params, grads)
    new, metrics = cnn.train_step(_copy(state), batch)
    assert new.step == 1
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    # Where a gradient is near epsilon, its rounding noise is a large part of the step, which is at most 1e-3.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), new.params, expected)


def test_training_lowers_the_loss_of_a_batch(full_config, small):
    state, batch = cnn.create_state(full_config), _batch(small.train, 0, 64)
    before = cnn.eval_step(state, batch).loss
    for _ in range(20):
        state, _ = cnn.train_step(state, batch)
    assert cnn.eval_step(state, batch).loss < before / 2


def test_train_epoch_equals_its_steps_one_by_one(state, small):
    split, batch_size = small.train, 64
    by_steps = _copy(state)
    order = np.asarray(jax.random.permutation(stream_key(state.key, Stream.ORDER, 0), len(split.labels)))
    total = zero_metrics()
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        by_steps, metrics = cnn.train_step(by_steps, cnn.Batch(split.images[indices], split.labels[indices]))
        total = merge(total, metrics)
    by_epoch, epoch_metrics = cnn.train_epoch(state, split, batch_size=batch_size)
    assert by_epoch.step == by_steps.step == 8
    assert epoch_metrics.count == total.count == 500
    assert epoch_metrics.loss_sum == pytest.approx(float(total.loss_sum), rel=1e-5)
    # 500 is not a multiple of 64: the last batch is padded in one, short in the other, and sums in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), by_epoch.params, by_steps.params)


def test_each_epoch_has_its_own_order(state, small):
    first, _ = cnn.train_epoch(_copy(state), small.train, batch_size=100)
    later, _ = cnn.train_epoch(state.replace(step=jnp.int32(5)), small.train, batch_size=100)
    assert not jnp.array_equal(first.params["conv1"]["kernel"], later.params["conv1"]["kernel"])


def test_same_seed_gives_identical_bits(config, small):
    def train():
        state, _ = cnn.train_epoch(cnn.create_state(config, 500), small.train, batch_size=32)
        return jax.device_get(state.params)

    assert_same(train(), train())


@pytest.mark.parametrize("batch_size", [1, 7, 64, 130, 1000])
def test_evaluate_is_exact_for_any_batch_size(state, small, batch_size):
    metrics = cnn.evaluate(state, small.val, batch_size=batch_size)
    probabilities = np.asarray(cnn.predict(state, small.val.images))
    labels = small.val.labels
    assert metrics.count == 130
    assert metrics.correct == (probabilities.argmax(axis=1) == labels).sum()
    assert metrics.loss == pytest.approx(-np.log(probabilities[np.arange(130), labels]).mean(), rel=1e-5)


def test_masked_images_are_ignored(state, small):
    some = _batch(small.val, 0, 10)
    padded = cnn.Batch(small.val.images[:16], small.val.labels[:16], np.arange(16) < 10)
    assert cnn.eval_step(state, padded).count == 10
    assert cnn.eval_step(state, padded).loss == pytest.approx(float(cnn.eval_step(state, some).loss), rel=1e-6)
    gradients = jax.jit(jax.grad(lambda params, batch: eval_metrics(state.replace(params=params), batch).loss))
    grads = [gradients(state.params, batch) for batch in (padded, some)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *grads)


@pytest.mark.parametrize("count", [0, 1, 5, 130])
def test_predictions_are_probabilities_for_any_number_of_images(state, small, count):
    probabilities = cnn.predict(state, small.val.images[:count])
    assert probabilities.shape == (count, 10) and probabilities.dtype == jnp.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    in_batches = cnn.predict(state, small.val.images[:count], batch_size=4)
    np.testing.assert_allclose(in_batches, probabilities, atol=1e-6)


def test_train_step_donates_its_state_and_eval_step_does_not(state, small):
    batch = _batch(small.train, 0, 32)
    kernel = state.params["conv2"]["kernel"]
    cnn.eval_step(state, batch)
    assert not kernel.is_deleted()
    cnn.train_step(state, batch)
    assert kernel.is_deleted()


def test_sgd_moves_against_the_gradient():
    optimizer = make_optimizer(cnn.OptimConfig(name="sgd", learning_rate=0.5), 10)
    params: Any = {"layer": {"kernel": jnp.array([1.0])}}
    gradients: Any = {"layer": {"kernel": jnp.array([2.0])}}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    moved: Any = optax.apply_updates(params, updates)
    assert moved["layer"]["kernel"] == 0.0


BAD_IMAGES = [
    (np.zeros((4, 28, 28, 1), np.float32), "float32 [4, 28, 28, 1]"),
    (np.zeros((4, 28, 28), np.uint8), "uint8 [4, 28, 28]"),
    (np.zeros((4, 32, 32, 3), np.uint8), "uint8 [4, 32, 32, 3]"),
]


@pytest.mark.parametrize(("images", "described"), BAD_IMAGES, ids=["float32", "no channels", "other shape"])
@pytest.mark.parametrize("use", ["predict", "feature_maps", "eval_step", "evaluate", "train_step", "train_epoch"])
def test_wrong_images_are_refused_with_the_expected_shape(state, images, described, use):
    labels = np.zeros(4, np.int32)
    calls = {
        "predict": lambda: cnn.predict(state, images),
        "feature_maps": lambda: cnn.feature_maps(state, images),
        "eval_step": lambda: cnn.eval_step(state, cnn.Batch(images, labels)),
        "evaluate": lambda: cnn.evaluate(state, cnn.Split(images, labels)),
        "train_step": lambda: cnn.train_step(state, cnn.Batch(images, labels)),
        "train_epoch": lambda: cnn.train_epoch(state, cnn.Split(images, labels), batch_size=2),
    }
    with pytest.raises(cnn.DataError) as error:
        calls[use]()
    assert described in str(error.value) and "uint8 [N, 28, 28, 1]" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "labels",
    [np.zeros(4, np.float32), np.zeros((4, 1), np.int32), np.zeros(3, np.int32)],
    ids=["float32", "2 axes", "too few"],
)
def test_wrong_labels_are_refused_with_the_expected_shape(state, labels):
    images = np.zeros((4, 28, 28, 1), np.uint8)
    for use in (
        lambda: cnn.eval_step(state, cnn.Batch(images, labels)),
        lambda: cnn.train_step(state, cnn.Batch(images, labels)),
        lambda: cnn.evaluate(state, cnn.Split(images, labels)),
        lambda: cnn.train_epoch(state, cnn.Split(images, labels), batch_size=2),
    ):
        with pytest.raises(cnn.DataError, match="but must be integers .4., 1 per image"):
            use()


def test_empty_split_and_batch_size_zero_are_refused(state, small):
    with pytest.raises(cnn.DataError, match="for at least one"):
        cnn.evaluate(state, cnn.Split(small.val.images[:0], small.val.labels[:0]))
    with pytest.raises(cnn.ConfigError, match="batch_size is 0"):
        cnn.train_epoch(state, small.train, batch_size=0)


@pytest.mark.parametrize("label", [-1, 10])
def test_label_out_of_range_makes_the_metrics_nan(state, small, label):
    batch = cnn.Batch(small.train.images[:2], jnp.array([0, label]))
    metrics = cnn.eval_step(state, batch)
    assert np.isnan(metrics.loss) and np.isnan(metrics.accuracy)
