import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from cnn.layers import conv, max_pool


def _assert_close(ours, theirs):
    # Float32 sums of up to some thousand products differ by their order alone.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


SHAPES = [
    # images, kernel, strides: the model's own two, then odd sizes, strides, windows, one row, and more channels.
    ((2, 28, 28, 1), (3, 3, 1, 32), (1, 1)),
    ((2, 14, 14, 32), (3, 3, 32, 64), (1, 1)),
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


def test_conv_of_a_known_picture():
    images = jnp.arange(9.0).reshape(1, 3, 3, 1)
    total = conv(images, jnp.ones((3, 3, 1, 1)), (1, 1), "SAME")
    assert total[0, :, :, 0].tolist() == [[8, 15, 12], [21, 36, 27], [20, 33, 24]]


def _check_pool(shape, window, strides, padding, seed=0):
    # A permutation has no ties, so the gradient is unique.
    images = jnp.asarray(np.random.default_rng(seed).permutation(int(np.prod(shape))).reshape(shape), jnp.float32)
    dims, steps = (1, *window, 1), (1, *strides, 1)
    ours, our_vjp = jax.vjp(lambda x: max_pool(x, window, strides, padding), images)
    theirs, their_vjp = jax.vjp(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, dims, steps, padding), images)
    np.testing.assert_array_equal(ours, theirs)
    (grads,) = _random(seed, theirs.shape)
    _assert_close(our_vjp(grads)[0], their_vjp(grads)[0])


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("window, strides", [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((2, 3), (1, 3)), ((1, 2), (3, 1))])
def test_max_pool_and_its_gradient_equal_reduce_window(window, strides, padding):
    _check_pool((2, 7, 9, 3), window, strides, padding)


@settings(max_examples=25)
@given(data=st.data())
def test_max_pool_and_its_gradient_equal_reduce_window_for_any_shape(data):
    window = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    strides = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    shape = (1, window[0] + data.draw(st.integers(0, 6)), window[1] + data.draw(st.integers(0, 6)), 2)
    _check_pool(shape, window, strides, data.draw(st.sampled_from(["SAME", "VALID"])))


def test_on_an_accelerator_the_plain_formulation_is_lowered():
    images, kernel = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 4, 4))

    def loss(images, kernel):
        return max_pool(conv(images, kernel)).sum()

    def lowered(platform):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(images, kernel)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "reduce_window" in lowered("cuda") or "select_and_scatter" in lowered("cuda")
    assert "select_and_scatter" not in lowered("cpu")
    # The kernel's gradient as XLA's own differentiation writes it: the batch as the contracted dimension.
    assert "[f, 0, 1, b]x[i, 0, 1, o]->[0, 1, b, f]" in lowered("cuda")
    assert "[f, 0, 1, b]x[i, 0, 1, o]" not in lowered("cpu")
