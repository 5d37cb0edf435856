"""Every rung of the ladder: its parameters and shapes against known numbers, and that it learns."""

import dataclasses

import jax
import numpy as np
import pytest

import cnn
from cnn.__main__ import load_experiment

PARAMETERS = {
    # 784 * 10 weights and 10 biases.
    "softmax": 7_850,
    # 784 * 100 + 100 + 100 * 10 + 10.
    "dense": 79_510,
    # Keras' count of the chapter's network.
    "fashion_cnn": 333_526,
    "fashion_fast": 333_526,
}


def _state(experiment, train_images=500):
    return cnn.create_state(load_experiment(f"experiments.{experiment}"), train_images)


@pytest.mark.parametrize(("experiment", "parameters"), PARAMETERS.items())
def test_an_experiment_has_the_known_number_of_parameters(experiment, parameters):
    state = _state(experiment)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == parameters
    assert sum(row.parameters for row in cnn.layer_table(state)) == parameters


@pytest.mark.parametrize("experiment", PARAMETERS)
def test_the_loss_falls_on_real_images(experiment, small):
    config = load_experiment(f"experiments.{experiment}")
    state, losses = _state(experiment), []
    for _ in range(4):
        state, metrics = cnn.train_epoch(state, small.train, batch_size=config.optim.batch_size)
        losses.append(float(metrics.loss))
    # Sixteen steps in the warm-up of one cycle, for softmax regression.
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("experiment", PARAMETERS)
def test_every_layer_is_captured_and_the_logits_last(experiment, small):
    state = _state(experiment)
    maps = cnn.feature_maps(state, small.test.images[:2])
    assert [row.name for row in cnn.layer_table(state)] == list(maps) and list(maps)[-1] == "logits"
    assert maps["logits"].shape == (2, 10)


def test_softmax_regression_is_a_product_with_the_pixels(small):
    state = _state("softmax")
    logits = cnn.feature_maps(state, small.test.images[:5])["logits"]
    pixels = small.test.images[:5].reshape(5, -1) / 255
    np.testing.assert_allclose(logits, pixels @ np.asarray(state.params["logits"]["kernel"]), atol=1e-5)


def test_hidden_layers_of_a_dense_network_are_as_many_as_asked_for():
    config = cnn.ExperimentConfig(model=cnn.DenseConfig(features=(30, 20), dropout_rate=0.5))
    assert list(cnn.create_state(config).params) == ["dense1", "dense2", "logits"]
    deeper = dataclasses.replace(config, model=cnn.DenseConfig(features=()))
    assert list(cnn.create_state(deeper).params) == ["logits"]
