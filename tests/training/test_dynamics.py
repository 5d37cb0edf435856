"""Training dynamics: what a step keeps of each image, whatever the order and the parts of an epoch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import cnn
from cnn.training.dynamics import record, zero_dynamics
from cnn.training.metrics import zero_metrics
from cnn.training.state import create_state
from cnn.training.steps import train_steps
from experiments import fashion_cnn
from tests.helpers import assert_same, narrow


def observing() -> cnn.ExperimentConfig:
    """The narrow experiment without dropout and with a rate of almost 0, so that the predictions stay the same."""
    config = narrow(fashion_cnn.CONFIG, dynamics=True)
    optim = dataclasses.replace(config.optim, name="sgd", learning_rate=1e-30)
    return dataclasses.replace(config, optim=optim, model=dataclasses.replace(config.model, dropout_rate=0.0))


def test_a_batch_is_kept_at_its_indices_and_padding_nowhere():
    logits_BxK = jnp.array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [9.0, 9.0, 9.0]])
    labels_B, mask_B = jnp.array([0, 2, 1]), jnp.array([True, True, False])
    kept = record(zero_dynamics(4), jnp.array([3, 1, 0]), logits_BxK, labels_B, mask_B)
    np.testing.assert_allclose(kept["margin"], [0, -3, 0, 1])
    probabilities_BxK = np.asarray(jax.nn.softmax(logits_BxK))
    np.testing.assert_allclose(kept["probability"], [0, probabilities_BxK[1, 2], 0, probabilities_BxK[0, 0]], rtol=1e-6)


def test_an_epoch_keeps_the_probability_of_every_images_label(small):
    # 90 images in batches of 32: the last one is padded.
    split = cnn.Split(small.train.images[:90], small.train.labels[:90])
    state = create_state(observing(), 90)
    expected_NxK = np.asarray(cnn.predict(state, split.images))
    state, _ = cnn.train_epoch(state, split, batch_size=32)
    actual_N = np.asarray(state.dynamics["probability"])
    np.testing.assert_allclose(actual_N, expected_NxK[np.arange(90), split.labels], rtol=1e-4)
    np.testing.assert_array_equal(np.asarray(state.dynamics["margin"]) > 0, expected_NxK.argmax(1) == split.labels)


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
