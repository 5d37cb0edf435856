import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest
from optax.contrib import MuonDimensionNumbers

import cnn
from cnn.training.muon import STEPS, muon
from cnn.training.optim import learning_rate_schedule, matrices
from cnn.training.state import Stream, stream_key


def test_parameters_have_the_chapters_shapes(full_config):
    state = cnn.create_state(full_config)
    assert jax.tree.map(lambda leaf: leaf.shape, state.params) == {
        "conv1": {"kernel": (3, 3, 1, 32), "bias": (32,)},
        "conv2": {"kernel": (3, 3, 32, 64), "bias": (64,)},
        "dense": {"kernel": (3136, 100), "bias": (100,)},
        "logits": {"kernel": (100, 10), "bias": (10,)},
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == 333_526


def test_initial_kernels_are_glorot_uniform_and_biases_zero(full_config):
    state = cnn.create_state(full_config)
    for name, fan_in, fan_out in [("conv1", 9, 288), ("conv2", 288, 576), ("dense", 3136, 100), ("logits", 100, 10)]:
        kernel, limit = np.asarray(state.params[name]["kernel"]), np.sqrt(6 / (fan_in + fan_out))
        assert np.abs(kernel).max() <= limit
        # A uniform distribution's deviation is limit / sqrt(3); with the fewest values, 288, it varies by 3 %.
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)
        assert not np.asarray(state.params[name]["bias"]).any()


def test_seed_determines_the_parameters(config):
    def kernel(seed):
        train = dataclasses.replace(config.train, seed=seed)
        return np.asarray(cnn.create_state(dataclasses.replace(config, train=train)).params["conv1"]["kernel"])

    np.testing.assert_array_equal(kernel(3), kernel(3))
    assert not np.array_equal(kernel(3), kernel(4))


def test_streams_and_indices_have_distinct_keys():
    key = jax.random.key(0)
    keys = [stream_key(key, stream, index) for stream in Stream for index in range(3)]
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == 3 * len(Stream)


def test_schedules_equal_their_closed_forms():
    constant = learning_rate_schedule(cnn.OptimConfig(learning_rate=0.1), 100)
    cosine = learning_rate_schedule(cnn.OptimConfig(learning_rate=0.1, schedule="cosine"), 100)
    assert [float(constant(step)) for step in (0, 50, 100)] == pytest.approx([0.1, 0.1, 0.1])
    assert [float(cosine(step)) for step in (0, 50, 100)] == pytest.approx([0.1, 0.05, 0.0], abs=1e-7)
    one_cycle = learning_rate_schedule(cnn.OptimConfig(learning_rate=0.1, schedule="one_cycle", warmup=0.2), 100)
    # From 1/25 up to the peak in 20 steps, then down to 1/1000 in 80; half-way is the mean of both ends.
    expected = [0.004, 0.052, 0.1, (0.1 + 0.0001) / 2, 0.0001]
    assert [float(one_cycle(step)) for step in (0, 10, 20, 60, 100)] == pytest.approx(expected)


def _first_update(config, name, **optim):
    """Parameters, gradients, and the first update of an optimizer with learning rate 0.1."""
    optim = cnn.OptimConfig(name=name, learning_rate=0.1, adam_learning_rate=0.01, **optim)
    state = cnn.create_state(dataclasses.replace(config, optim=optim))
    rng = np.random.default_rng(0)
    grads: Any = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), state.params)
    updates: Any = state.spec.optimizer.update(grads, state.opt_state, state.params)[0]
    return state.params, grads, updates


def test_muon_orthogonalizes_kernels_and_uses_adam_for_the_rest(config):
    _, grads, updates = _first_update(config, "muon")
    for layer in ("conv2", "dense"):
        matrix = np.asarray(updates[layer]["kernel"]).reshape(-1, updates[layer]["kernel"].shape[-1])
        values = np.linalg.svd(matrix, compute_uv=False) / 0.1
        values /= np.median(values)
        # Its polynomial moves all singular values near 1: K. Jordan gives 0.7 to 1.2 for five steps.
        assert values.min() > 0.3 and values.max() < 2
        assert np.vdot(updates[layer]["kernel"], grads[layer]["kernel"]) < 0
    # Adam's first step with Nesterov's momentum (T. Dozat): the gradient's sign, times 1 + 0.9 * 0.1 / (1 - 0.9^2).
    for leaf, grad in ((updates[a][b], grads[a][b]) for a, b in (("logits", "kernel"), ("conv1", "bias"))):
        np.testing.assert_allclose(leaf, -0.01 * (1 + 0.09 / 0.19) * np.sign(grad), rtol=1e-3)


def test_muon_updates_as_optax_does_and_resumes_its_state(config):
    """Also where a matrix has more columns than rows."""
    rng, wide = np.random.default_rng(0), (2, 2, 1, 9)
    params = {**cnn.create_state(config).params, "wide": {"kernel": jnp.ones(wide)}}
    dimensions = jax.tree.map(lambda leaf: MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1), params)
    for layer in params:
        if "bias" in params[layer]:
            dimensions[layer]["bias"] = None
    dimensions["logits"]["kernel"] = None
    rates = optax.linear_schedule(0.1, 0.01, 5), optax.constant_schedule(0.01)
    theirs = optax.contrib.muon(
        rates[0],
        ns_steps=STEPS,
        weight_decay=0.05,
        adam_learning_rate=rates[1],
        muon_weight_dimension_numbers=dimensions,
    )
    ours = muon(*rates, 0.05, matrices)
    state = theirs.init(params)
    assert jax.tree.structure(ours.init(params)) == jax.tree.structure(state)
    for _ in range(3):
        grads = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), params)
        expected, after = theirs.update(grads, state, params)
        updates, state = ours.update(grads, state, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), updates, expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state, after)


@pytest.mark.parametrize("name", ["adam", "sgd", "muon"])
def test_weight_decay_shrinks_kernels_but_not_biases(config, name):
    params, _, plain = _first_update(config, name)
    _, _, decayed = _first_update(config, name, weight_decay=0.5)
    for layer in ("conv1", "dense"):
        difference = decayed[layer]["kernel"] - plain[layer]["kernel"]
        np.testing.assert_allclose(difference, -0.1 * 0.5 * params[layer]["kernel"], atol=1e-6)
        np.testing.assert_array_equal(decayed[layer]["bias"], plain[layer]["bias"])
