"""Attention against NumPy, and against the outputs of the network's own layers."""

import dataclasses

import jax
import numpy as np
import pytest

import cnn
from cnn.look.attention import attention_maps, received_attention
from cnn.training.state import abstract_state
from tests.look.networks import small_state, softmax

HEADS, WIDTH = 2, 8


@pytest.fixture(scope="module")
def vit():
    return small_state(cnn.ViTConfig(blocks=2, features=WIDTH, heads=HEADS), (8, 13, 3))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 8, 13, 3), np.uint8)


def test_attention_is_the_softmax_of_the_products_of_queries_and_keys(vit, images):
    maps, outputs = attention_maps(vit, images), cnn.feature_maps(vit, images)
    assert list(maps) == ["block1", "block2"]
    for block, attention in maps.items():
        layer = vit.params[f"{block}_queries_keys_values"]
        projected = outputs[f"{block}_norm1"] @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        queries, keys, values = np.split(np.asarray(projected), 3, axis=-1)
        assert attention.shape == (3, HEADS, 6, 6)
        for head in range(HEADS):
            of_head = np.s_[..., head * WIDTH // HEADS : (head + 1) * WIDTH // HEADS]
            products = queries[of_head] @ keys[of_head].swapaxes(1, 2)
            expected = softmax(products / np.sqrt(WIDTH // HEADS))
            np.testing.assert_allclose(attention[:, head], expected, rtol=1e-4, atol=1e-6)
            # What the network computes with it.
            layer_output = np.asarray(outputs[f"{block}_attention"])[of_head]
            np.testing.assert_allclose(expected @ values[of_head], layer_output, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)


def test_received_attention_is_the_mean_over_the_queries(vit, images):
    received = received_attention(vit, images)
    for block, attention in attention_maps(vit, images).items():
        np.testing.assert_allclose(received[block], np.asarray(attention).mean(2), rtol=1e-5)


def test_blocks_are_in_the_order_of_computation(config):
    state = abstract_state(dataclasses.replace(config, model=cnn.ViTConfig(blocks=10, features=2, heads=1)))
    maps = jax.eval_shape(attention_maps, state, np.zeros((1, 28, 28, 1), np.uint8))
    assert list(maps) == [f"block{number}" for number in range(1, 11)]


def test_a_network_without_attention_has_no_maps(state, small):
    assert attention_maps(state, small.test.images[:1]) == {}
