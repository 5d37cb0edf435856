"""Distillation: the loss against the paper's formula, and steps towards teachers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import cnn
from cnn.training.distill import distilled
from cnn.training.state import create_state
from experiments import fashion_cnn
from tests.helpers import assert_same, narrow


def teacher(seed: int) -> cnn.TrainState:
    """An untrained network, as ``load_teachers`` gives it."""
    state = create_state(narrow(fashion_cnn.CONFIG, seed=seed))
    return jax.device_get(state.replace(step=None, key=None, opt_state=()))


def test_the_loss_is_the_papers_at_a_temperature():
    rng = np.random.default_rng(0)
    losses_B, logits_BxK, teachers_TxBxK = rng.random(4), rng.normal(size=(4, 3)), rng.normal(size=(2, 4, 3))
    targets_BxK = softmax(teachers_TxBxK.mean(0) / 2.5, axis=1)
    divergences_B = (targets_BxK * (np.log(targets_BxK) - log_softmax(logits_BxK / 2.5, axis=1))).sum(1)
    given = [jnp.asarray(array, jnp.float32) for array in (losses_B, logits_BxK, teachers_TxBxK)]
    actual_B = distilled(given[0], given[1], given[2], cnn.DistillConfig(temperature=2.5, weight=0.7))
    np.testing.assert_allclose(actual_B, 0.3 * losses_B + 0.7 * 2.5**2 * divergences_B, rtol=1e-5)


def test_a_student_that_is_its_own_teacher_is_not_moved_by_it(small):
    optim = cnn.OptimConfig(name="sgd", learning_rate=1.0)
    plain = dataclasses.replace(narrow(fashion_cnn.CONFIG), optim=optim)
    plain = dataclasses.replace(plain, model=dataclasses.replace(plain.model, dropout_rate=0.0))
    alone = dataclasses.replace(plain, distill=cnn.DistillConfig(weight=1.0))
    own = jax.device_get(create_state(alone).replace(step=None, key=None, opt_state=()))
    state = create_state(alone, teachers=(own,))
    before = jax.device_get(state.params)
    state, metrics = cnn.train_step(state, cnn.Batch(small.train.images[:8], small.train.labels[:8]))
    assert float(metrics.loss) == pytest.approx(0, abs=1e-6)
    jax.tree.map(lambda new, old: np.testing.assert_allclose(new, old, atol=1e-6), state.params, before)


def test_without_weight_the_teachers_change_nothing(small):
    config = dataclasses.replace(narrow(fashion_cnn.CONFIG), distill=cnn.DistillConfig(weight=0.0))
    batch = cnn.Batch(small.train.images[:8], small.train.labels[:8])
    alone, _ = cnn.train_step(create_state(config), batch)
    taught, _ = cnn.train_step(create_state(config, teachers=(teacher(1), teacher(2))), batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), alone.params, taught.params)


def test_teachers_see_the_augmented_images_and_stay_the_same(small):
    config = dataclasses.replace(
        narrow(fashion_cnn.CONFIG), augment=cnn.AugmentConfig(shift=4), distill=cnn.DistillConfig(weight=1.0)
    )
    batch, taught_by = cnn.Batch(small.train.images[:8], small.train.labels[:8]), teacher(1)
    state, metrics = cnn.train_step(create_state(config, teachers=(taught_by,)), batch)
    assert_same(jax.device_get(state.teachers), (taught_by,))
    unmoved = dataclasses.replace(config, augment=cnn.AugmentConfig())
    _, other = cnn.train_step(create_state(unmoved, teachers=(taught_by,)), batch)
    assert float(metrics.loss) != float(other.loss)
