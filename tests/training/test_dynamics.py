"""Training dynamics: what a step keeps of each image, whatever the order and the parts of an epoch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import cnn
from cnn.training.classification import Targets
from cnn.training.dynamics import by_image, record, zero_dynamics
from cnn.training.metrics import zero_metrics
from cnn.training.state import create_state
from cnn.training.steps import epoch_order, train_steps
from experiments import fashion_cnn
from tests.helpers import assert_same, narrow


def observing() -> cnn.ExperimentConfig:
    """The narrow experiment without dropout and with a rate of almost 0, so that the predictions stay the same."""
    config = narrow(fashion_cnn.CONFIG, dynamics=True)
    optim = dataclasses.replace(config.optim, name="sgd", learning_rate=1e-30)
    return dataclasses.replace(config, optim=optim, model=dataclasses.replace(config.model, dropout_rate=0.0))


def test_a_batch_is_kept_in_the_row_of_its_step():
    logits_BxK = jnp.array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    kept = record(zero_dynamics(6, 2), jnp.int32(4), logits_BxK, Targets(logits_BxK, jnp.array([0, 2])))
    np.testing.assert_allclose(kept["margin"], [[0, 0], [1, -3], [0, 0]])
    probabilities_BxK = np.asarray(jax.nn.softmax(logits_BxK))
    np.testing.assert_allclose(kept["probability"][1], [probabilities_BxK[0, 0], probabilities_BxK[1, 2]], rtol=1e-6)


def test_values_by_step_are_sorted_by_image_without_the_padding():
    values_SxB, order_SxB = np.array([[0.2, 0.0], [0.1, 9.9]]), np.array([[2, 0], [1, 0]])
    np.testing.assert_array_equal(by_image(values_SxB, order_SxB, 3), [0.0, 0.1, 0.2])


def test_an_epoch_keeps_the_probability_of_every_images_label(small):
    # 90 images in batches of 32: the last one is padded.
    split = cnn.Split(small.train.images[:90], small.train.labels[:90])
    state = create_state(observing(), 90)
    expected_NxK = np.asarray(cnn.predict(state, split.images))
    order_SxB = np.asarray(epoch_order(state.key, 0, 90, 32))
    state, _ = cnn.train_epoch(state, split, batch_size=32)
    actual_N, margin_N = (by_image(np.asarray(state.dynamics[n]), order_SxB, 90) for n in ("probability", "margin"))
    np.testing.assert_allclose(actual_N, expected_NxK[np.arange(90), split.labels], rtol=1e-4)
    np.testing.assert_array_equal(margin_N > 0, expected_NxK.argmax(1) == split.labels)


def test_dynamics_are_the_same_bits_in_parts_and_change_nothing_else(small):
    split = cnn.Split(small.train.images[:90], small.train.labels[:90])
    kept, plain = narrow(fashion_cnn.CONFIG, dynamics=True), narrow(fashion_cnn.CONFIG)
    whole, _ = cnn.train_epoch(create_state(kept, 90), split, batch_size=32)
    parts, metrics = create_state(kept, 90), zero_metrics()
    for steps in (1, 2):
        parts, metrics = train_steps(parts, metrics, split, steps, batch_size=32)
    assert_same(parts.dynamics, whole.dynamics)
    without, _ = cnn.train_epoch(create_state(plain, 90), split, batch_size=32)
    assert_same(without.params, whole.params)
    assert without.dynamics == {}
