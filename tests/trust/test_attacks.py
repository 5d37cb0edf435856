"""Attacks on softmax regression, whose gradient is known."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import cnn
from cnn.trust.attacks import correct_under_attack, fgsm, pgd

EPSILON = 2 / 255


def _linear(config, classes):
    """A state of softmax regression with random weights, and the weights."""
    data = dataclasses.replace(config.data, class_names=tuple(map(str, range(classes))), class_counts=())
    model = cnn.DenseConfig(features=(), classes=classes)
    state = cnn.create_state(dataclasses.replace(config, model=model, data=data), 100)
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(0, 0.05, (784, classes)), rng.normal(0, 0.05, classes)
    params = {"logits": {"kernel": np.float32(kernel), "bias": np.float32(bias)}}
    assert jax.tree.structure(params) == jax.tree.structure(jax.tree.map(np.asarray, dict(state.params)))
    return state.replace(params=params), kernel, bias


@pytest.fixture(scope="module")
def linear(config):
    return _linear(config, 10)


@pytest.fixture(scope="module")
def images():
    """Of levels that no attack here leads out of the range."""
    return np.random.default_rng(1).integers(20, 236, (40, 28, 28, 1), np.uint8)


@pytest.fixture(scope="module")
def labels(images, linear):
    """As softmax regression predicts them for two thirds of the images."""
    _, kernel, bias = linear
    predicted = (images.reshape(40, -1) / 255 @ kernel + bias).argmax(1)
    return np.where(np.arange(40) % 3, predicted, (predicted + 1) % 10).astype(np.int32)


def test_fgsm_is_a_step_along_the_known_sign(linear, images, labels):
    state, kernel, bias = linear
    inputs = images.reshape(40, -1) / 255
    errors = softmax(inputs @ kernel + bias, 1) - np.eye(10)[labels]
    expected = inputs + EPSILON * np.sign(errors @ kernel.T)
    attacked = np.asarray(fgsm(state, images, labels, EPSILON)).reshape(40, -1)
    np.testing.assert_allclose(attacked, expected, atol=1e-6)
    correct = (expected @ kernel + bias).argmax(1) == labels
    assert 0 < correct.sum() < (np.arange(40) % 3 > 0).sum()
    under_attack = correct_under_attack(state, images, labels, EPSILON, jax.random.key(0))
    np.testing.assert_array_equal(under_attack["fgsm"], correct)


def _loss(attacked, labels, kernel, bias):
    logits = np.asarray(attacked, float).reshape(40, -1) @ kernel + bias
    return -log_softmax(logits, 1)[np.arange(40), labels]


def test_pgd_stays_in_the_ball_and_is_at_least_as_strong_as_fgsm(linear, images, labels):
    state, kernel, bias = linear
    attacked = np.asarray(pgd(state, images, labels, EPSILON, jax.random.key(2)))
    assert np.abs(attacked - images / 255).max() == pytest.approx(EPSILON, abs=1e-6)
    losses = _loss(attacked, labels, kernel, bias)
    other = _loss(fgsm(state, images, labels, EPSILON), labels, kernel, bias)
    assert (losses > other - 1e-5).all() and losses.mean() > other.mean()
    np.testing.assert_array_equal(pgd(state, images, labels, EPSILON, jax.random.key(2)), attacked)


def test_with_two_classes_pgd_ends_where_fgsm_does(config, images):
    """The sign of the gradient is that of the difference of the two classes' weights, wherever the image is."""
    state, *_ = _linear(config, 2)
    labels = (np.arange(40) % 2).astype(np.int32)
    np.testing.assert_allclose(
        pgd(state, images, labels, EPSILON, jax.random.key(3)), fgsm(state, images, labels, EPSILON), atol=1e-6
    )


def test_attacked_images_stay_images(linear, labels):
    state, *_ = linear
    extremes = np.random.default_rng(4).choice(np.array([0, 255], np.uint8), (40, 28, 28, 1))
    for attacked in (fgsm(state, extremes, labels, 0.3), pgd(state, extremes, labels, 0.3, jax.random.key(4))):
        assert attacked.min() == 0 and attacked.max() == 1 and attacked.dtype == np.float32


def test_without_epsilon_nothing_changes(linear, images, labels):
    state, *_ = linear
    for attacked in (fgsm(state, images, labels, 0.0), pgd(state, images, labels, 0.0, jax.random.key(5))):
        # XLA multiplies by the inverse of 255.
        np.testing.assert_allclose(attacked, images / 255, atol=1e-7)


def test_one_program_serves_every_epsilon(linear, images, labels):
    program: Any = fgsm
    fgsm(linear[0], images, labels, 0.1)
    compiled = program._cache_size()
    fgsm(linear[0], images, labels, 0.2)
    assert program._cache_size() == compiled


def test_wrong_images_are_refused(linear, labels):
    with pytest.raises(cnn.DataError, match="images are float32"):
        fgsm(linear[0], np.zeros((40, 28, 28, 1), np.float32), labels, EPSILON)
