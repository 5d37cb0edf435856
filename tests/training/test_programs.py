"""The compiled programs: no naive convolution, no retracing, no transfers to the host."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import cnn
from cnn.models.convolution import conv
from cnn.training.state import initial_state


@pytest.fixture
def config(full_config):
    """The full network, whose convolutions are large enough for every formulation."""
    return full_config


def _traces(function: Any) -> int:
    """How often a jitted function was traced."""
    return function._cache_size()


def test_later_epochs_neither_retrace_nor_move_data(state, small):
    split, val = jax.device_put((small.train, small.val))
    state, _ = cnn.train_epoch(state, split, batch_size=32)
    cnn.evaluate(state, val)
    traced = _traces(cnn.train_epoch), _traces(cnn.evaluate)
    # On CPU the guard catches transfers to the device; transfers from it inside a call are visible in the HLO.
    hlo = str(cnn.train_epoch.lower(state, split, batch_size=32).compile().as_text())
    assert not any(word in hlo for word in ("infeed", "outfeed", "callback", "send("))
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, _ = cnn.train_epoch(state, split, batch_size=32)
            cnn.evaluate(state, val)
    assert (_traces(cnn.train_epoch), _traces(cnn.evaluate)) == traced


def test_states_of_an_experiment_share_compiled_programs(config, small):
    batch = cnn.Batch(small.train.images[:32], small.train.labels[:32])
    cnn.train_step(cnn.create_state(config), batch)
    traced = _traces(initial_state), _traces(cnn.train_step)
    another_seed = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=1))
    cnn.train_step(cnn.create_state(another_seed), batch)
    assert (_traces(initial_state), _traces(cnn.train_step)) == traced


def test_epoch_loop_has_no_naive_convolution(state, small):
    """XLA's CPU compiler calls its library for a convolution in NHWC and HWIO; others become naive loops."""
    hlo = cnn.train_epoch.lower(state, small.train, batch_size=32).compile().as_text()
    lines = [line for line in str(hlo).splitlines() if " convolution(" in line]
    # conv1 is a sum of shifted images; conv2 and the kernels' gradients are matrix products.
    assert not lines


def test_no_naive_convolution_where_winograd_does_not_fit():
    def loss(kernel, images):
        return (conv(images, kernel) ** 2).sum()

    @jax.jit
    def loop(kernel, images):
        def body(operands, _):
            return jax.tree.map(jnp.subtract, operands, jax.grad(loss, argnums=(0, 1))(*operands)), None

        return jax.lax.scan(body, (kernel, images), length=3)[0]

    hlo = loop.lower(jnp.ones((3, 3, 8, 8)), jnp.ones((4, 13, 13, 8))).compile().as_text()
    lines = [line for line in str(hlo).splitlines() if " convolution(" in line]
    # Forward, and the images' gradient.
    assert len(lines) == 2
    assert all("dim_labels=b01f_01io->b01f" in line for line in lines)


def test_the_naive_convolution_test_can_fail(small):
    """The same check detects the layouts of lax' own gradient inside a loop."""

    def plain(kernel, images):
        out = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return (out**2).sum()

    @jax.jit
    def loop(kernel, images):
        return jax.lax.scan(lambda k, _: (k - jax.grad(plain)(k, images), None), kernel, length=3)[0]

    hlo = loop.lower(jnp.ones((3, 3, 8, 8)), jnp.ones((4, 14, 14, 8))).compile().as_text()
    lines = [line for line in str(hlo).splitlines() if " convolution(" in line]
    assert not all("dim_labels=b01f_01io->b01f" in line for line in lines)
