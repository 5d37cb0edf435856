import dataclasses

import jax
import numpy as np
import pytest

import cnn
from cnn.state import Stream, learning_rate_schedule, stream_key


def test_parameters_have_the_chapters_shapes(state):
    assert jax.tree.map(lambda leaf: leaf.shape, state.params) == {
        "conv1": {"kernel": (3, 3, 1, 32), "bias": (32,)},
        "conv2": {"kernel": (3, 3, 32, 64), "bias": (64,)},
        "dense": {"kernel": (3136, 100), "bias": (100,)},
        "logits": {"kernel": (100, 10), "bias": (10,)},
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == 333_526


def test_kernels_begin_glorot_uniform_and_biases_zero(state):
    for name, fan_in, fan_out in [("conv1", 9, 288), ("conv2", 288, 576), ("dense", 3136, 100), ("logits", 100, 10)]:
        kernel, limit = np.asarray(state.params[name]["kernel"]), np.sqrt(6 / (fan_in + fan_out))
        assert np.abs(kernel).max() <= limit
        # A uniform distribution's deviation is limit / sqrt(3); with the fewest values, 288, it varies by 3 %.
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)
        assert not np.asarray(state.params[name]["bias"]).any()


def test_the_seed_decides_the_parameters(config):
    def kernel(seed):
        train = dataclasses.replace(config.train, seed=seed)
        return np.asarray(cnn.create_state(dataclasses.replace(config, train=train)).params["conv1"]["kernel"])

    np.testing.assert_array_equal(kernel(3), kernel(3))
    assert not np.array_equal(kernel(3), kernel(4))


def test_streams_and_their_indices_have_keys_of_their_own():
    key = jax.random.key(0)
    keys = [stream_key(key, stream, index) for stream in Stream for index in range(3)]
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == 9


def test_schedules_against_their_closed_forms():
    constant = learning_rate_schedule(cnn.OptimConfig(learning_rate=0.1), 100)
    cosine = learning_rate_schedule(cnn.OptimConfig(learning_rate=0.1, schedule="cosine"), 100)
    assert [float(constant(step)) for step in (0, 50, 100)] == pytest.approx([0.1, 0.1, 0.1])
    assert [float(cosine(step)) for step in (0, 50, 100)] == pytest.approx([0.1, 0.05, 0.0], abs=1e-7)
