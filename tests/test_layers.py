from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import cnn
from cnn.convolution import conv, max_pool


def _assert_close(ours, theirs):
    # Float32 sums of up to some thousand products differ by their order alone.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


SHAPES = [
    # images, kernel, strides: the model's own two, then odd sizes, strides, windows, one row, and more channels.
    ((2, 28, 28, 1), (3, 3, 1, 32), (1, 1)),
    ((2, 14, 14, 32), (3, 3, 32, 64), (1, 1)),
    # Winograd's in two chunks with an image to fill up, and not square.
    ((37, 6, 4, 5), (3, 3, 5, 6), (1, 1)),
    ((3, 7, 9, 2), (3, 3, 2, 5), (2, 2)),
    ((1, 11, 8, 3), (5, 2, 3, 4), (3, 1)),
    ((2, 6, 5, 16), (1, 1, 16, 3), (2, 3)),
    ((2, 9, 9, 8), (4, 4, 8, 2), (3, 2)),
]


def _random(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def _reference_conv(images, kernel, strides, padding):
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _check_conv(images_shape, kernel_shape, strides, padding, seed=0):
    images, kernel = _random(seed, images_shape, kernel_shape)
    ours, our_vjp = jax.vjp(lambda x, k: conv(x, k, strides, padding), images, kernel)
    theirs, their_vjp = jax.vjp(lambda x, k: _reference_conv(x, k, strides, padding), images, kernel)
    _assert_close(ours, theirs)
    (grads,) = _random(seed + 1, theirs.shape)
    for our_gradient, their_gradient in zip(our_vjp(grads), their_vjp(grads), strict=True):
        _assert_close(our_gradient, their_gradient)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("images", "kernel", "strides"), SHAPES)
def test_conv_and_its_gradients_equal_lax(images, kernel, strides, padding):
    _check_conv(images, kernel, strides, padding)


@settings(max_examples=25)
@given(data=st.data())
def test_conv_and_its_gradients_equal_lax_for_any_shape(data):
    size = st.integers(1, 5)
    kernel = (data.draw(size), data.draw(size), data.draw(size), data.draw(size))
    height, width = (k + data.draw(st.integers(0, 7)) for k in kernel[:2])
    strides = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    padding = data.draw(st.sampled_from(["SAME", "VALID"]))
    _check_conv((data.draw(size), height, width, kernel[2]), kernel, strides, padding)


def test_conv_of_few_channels_in_float64_is_as_exact_as_lax():
    with jax.enable_x64(True):
        images, kernel = (np.random.default_rng(0).standard_normal(shape) for shape in ((2, 9, 9, 1), (3, 3, 1, 5)))
        ours, theirs = (f(jnp.asarray(images), jnp.asarray(kernel), (1, 1), "SAME") for f in (conv, _reference_conv))
        assert ours.dtype == jnp.float64
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_conv_multiplies_2_25_times_less_where_tiles_fit():
    def flops(images_shape):
        images, kernel = _random(0, images_shape, (3, 3, 32, 64))
        analysis: Any = jax.jit(conv).lower(images, kernel).compile().cost_analysis()
        return analysis["flops"]

    # 2 * 9 * 32 * 64 FLOPs a pixel by the direct sum, 4 / 9 of it by Winograd's, and the transforms' additions.
    direct = 2 * 9 * 32 * 64 * 14 * 14
    assert direct * 4 / 9 < flops((1, 14, 14, 32)) < direct * 0.6
    assert flops((1, 13, 13, 32)) > direct * 0.6


def test_conv_of_a_known_picture():
    images = jnp.arange(9.0).reshape(1, 3, 3, 1)
    total = conv(images, jnp.ones((3, 3, 1, 1)), (1, 1), "SAME")
    assert total[0, :, :, 0].tolist() == [[8, 15, 12], [21, 36, 27], [20, 33, 24]]


def _check_pool(images, window, seed=0):
    def reference(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *window, 1), "VALID")

    ours, our_vjp = jax.vjp(lambda x: max_pool(x, window), images)
    theirs, their_vjp = jax.vjp(reference, images)
    np.testing.assert_array_equal(ours, theirs)
    (grads,) = _random(seed, theirs.shape)
    np.testing.assert_array_equal(our_vjp(grads)[0], their_vjp(grads)[0])


@settings(max_examples=25)
@given(data=st.data())
def test_max_pool_and_its_gradient_equal_reduce_window_ties_included(data):
    window = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    shape = (2, window[0] + data.draw(st.integers(0, 6)), window[1] + data.draw(st.integers(0, 6)), 3)
    # Few values, so that most windows have several equal maxima.
    values = np.random.default_rng(data.draw(st.integers(0, 9))).integers(-1, 2, shape)
    _check_pool(jnp.asarray(values, jnp.float32), window)


def test_max_pool_of_a_whole_map_equals_reduce_window():
    _check_pool(_random(0, (2, 14, 14, 3))[0], (14, 14))


def test_max_pool_of_the_models_own_shapes_equals_reduce_window():
    _check_pool(_random(0, (2, 28, 28, 32))[0], (2, 2))


def test_the_models_gradients_equal_the_plain_formulations(config, small):
    """All layers together, against Flax' own layers on the same parameters and images."""
    state = cnn.create_state(config)
    images, labels = small.train.images[:128], small.train.labels[:128]

    def apply(layer, layer_params, x):
        outputs: Any = layer.apply({"params": layer_params}, x)
        return nn.relu(outputs)

    def plain_logits(params, x):
        for name, features in (("conv1", 32), ("conv2", 64)):
            x = apply(nn.Conv(features, (3, 3)), params[name], x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = apply(nn.Dense(100), params["dense"], x.reshape(len(x), -1))
        return x @ params["logits"]["kernel"] + params["logits"]["bias"]

    def loss(logits_of):
        def mean(params):
            logits = logits_of(params, jnp.asarray(images, jnp.float32) / 255)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return mean

    def our_logits(params, x):
        logits: Any = state.model.apply({"params": params}, x, train=False)
        return logits

    ours = jax.grad(loss(our_logits))(state.params)
    theirs = jax.grad(loss(plain_logits))(state.params)
    errors = jax.tree.map(lambda a, b: jnp.linalg.norm(a - b) / jnp.linalg.norm(b), ours, theirs)
    assert max(jax.tree.leaves(errors)) < 1e-5


def test_on_an_accelerator_the_plain_formulation_is_lowered():
    # Shapes that Winograd's algorithm would take.
    images, kernel = jnp.zeros((2, 8, 8, 8)), jnp.zeros((3, 3, 8, 8))

    def loss(images, kernel):
        return conv(images, kernel).sum()

    def lowered(platform):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(images, kernel)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    # The kernel's gradient as XLA's own differentiation writes it: the batch as the contracted dimension.
    assert "[f, 0, 1, b]x[i, 0, 1, o]->[0, 1, b, f]" in lowered("cuda")
    assert "[f, 0, 1, b]x[i, 0, 1, o]" not in lowered("cpu")
