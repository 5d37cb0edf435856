"""Recurrent layers: Flax's cells give the same numbers, gradients are those of differences, and what they see."""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import cnn
from cnn.look.reading import read_rows
from cnn.models.recurrent import CELLS, Recurrent
from cnn.training.state import abstract_state

FEATURES, STEPS, INPUTS = 5, 7, 3


def _layer(cell):
    rng = np.random.default_rng(0)
    layer, sequence = Recurrent(cell, FEATURES), jnp.asarray(rng.normal(size=(4, STEPS, INPUTS)), jnp.float32)
    params = layer.init(jax.random.key(0), sequence)["params"]
    return layer, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.6, leaf.shape), jnp.float32), params), sequence


def _apply(layer, params, sequence) -> jax.Array:
    return layer.apply({"params": params}, sequence)


def _total(apply, params, sequence):
    return (apply(params, sequence) ** 2).sum()


def _lstm_of_flax(kernel, recurrent, bias):
    cell = {f"i{gate}": {"kernel": part} for gate, part in zip("ifgo", kernel, strict=True)}
    biased = zip("ifgo", recurrent, bias, strict=True)
    return nn.LSTMCell(FEATURES), cell | {f"h{gate}": {"kernel": part, "bias": b} for gate, part, b in biased}


def _gru_of_flax(kernel, recurrent, bias):
    (update, reset, candidate), (to_update, to_reset, to_candidate) = zip(*bias, strict=True)
    biases = update + to_update, reset + to_reset, candidate
    inputs = zip("zrn", kernel, biases, strict=True)
    cell: dict[str, Any] = {f"i{gate}": {"kernel": part, "bias": b} for gate, part, b in inputs}
    cell |= {f"h{gate}": {"kernel": part} for gate, part in zip("zrn", recurrent, strict=True)}
    cell["hn"]["bias"] = to_candidate
    return nn.GRUCell(FEATURES), cell


def _rnn_of_flax(kernel, recurrent, bias):
    return nn.SimpleCell(FEATURES), {"i": {"kernel": kernel[0], "bias": bias[0]}, "h": {"kernel": recurrent[0]}}


FLAX = {"lstm": _lstm_of_flax, "gru": _gru_of_flax, "rnn": _rnn_of_flax}


@pytest.mark.parametrize("cell", CELLS)
def test_values_and_gradients_are_those_of_flax(cell):
    layer, params, sequence = _layer(cell)

    def flax(params, sequence):
        parts = (jnp.split(params[name], len(CELLS[cell].gates), -1) for name in ("kernel", "recurrent_kernel", "bias"))
        of_flax, cell_params = FLAX[cell](*parts)
        return nn.RNN(of_flax).apply({"params": {"cell": cell_params}}, sequence)

    np.testing.assert_allclose(_apply(layer, params, sequence), np.asarray(flax(params, sequence)), atol=1e-6)
    ours = jax.grad(partial(_total, partial(_apply, layer)), argnums=(0, 1))(params, sequence)
    theirs = jax.grad(partial(_total, flax), argnums=(0, 1))(params, sequence)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), ours, theirs)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_differences(cell):
    layer, *values = _layer(cell)
    total = partial(_total, partial(_apply, layer))
    # In float32, in which a difference of 1e-2 has three digits.
    check_grads(total, values, order=1, modes=["rev"], atol=2e-2, rtol=2e-2, eps=1e-2)


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_sees_the_steps_before_it_alone(cell):
    layer, params, sequence = _layer(cell)
    changed = sequence.at[:, 4].add(1.0)
    outputs, others = (np.asarray(_apply(layer, params, values)) for values in (sequence, changed))
    np.testing.assert_array_equal(outputs[:, :4], others[:, :4])
    assert (outputs[:, 4:] != others[:, 4:]).any((0, 2)).all()


def test_forget_gates_begin_open():
    params: Any = Recurrent("lstm", FEATURES).init(jax.random.key(0), jnp.zeros((1, STEPS, INPUTS)))["params"]
    np.testing.assert_array_equal(np.split(params["bias"], 4), np.outer([0, 1, 0, 0], np.ones(FEATURES)))
    for gate in np.split(params["recurrent_kernel"], 4, -1):
        assert np.abs(gate).max() < 1
    np.testing.assert_allclose(params["recurrent_kernel"] @ params["recurrent_kernel"].T, np.eye(FEATURES), atol=1e-5)


def test_the_reading_ends_with_the_prediction(config, small):
    state = cnn.create_state(dataclasses.replace(config, model=cnn.RecurrentConfig(features=6)))
    images = small.test.images[:3]
    hidden, probabilities = read_rows(state, images)
    assert hidden.shape == (3, 28, 6) and np.abs(hidden).max() <= 1
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(probabilities[:, -1], np.asarray(cnn.predict(state, images)), atol=1e-6)


def test_the_layer_table_counts_every_step(config):
    rows = {
        row.name: row
        for row in cnn.layer_table(abstract_state(dataclasses.replace(config, model=cnn.RecurrentConfig())))
    }
    assert rows["recurrent"].output_shape == (None, 28, 128)
    assert rows["recurrent"].flops == 28 * 2 * (28 + 128) * 4 * 128
