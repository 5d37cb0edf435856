from contextlib import contextmanager
from functools import partial
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
from cnn.models.convolution import conv, depthwise_conv, max_pool
from cnn.models.layers import Add, Attention, BatchNorm, Conv, Dense, LayerNorm, PositionEmbedding, Scale


def _assert_close(ours, theirs):
    # Float32 sums of up to some thousand products differ only by their order.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


SHAPES = {
    # Images, kernel and strides.
    "conv1": ((2, 28, 28, 1), (3, 3, 1, 32), (1, 1)),
    "conv2": ((2, 14, 14, 32), (3, 3, 32, 64), (1, 1)),
    "winograd in 2 padded chunks": ((37, 6, 4, 32), (3, 3, 32, 33), (1, 1)),
    "odd size": ((3, 7, 9, 2), (3, 3, 2, 5), (2, 2)),
    "one image": ((1, 11, 8, 3), (5, 2, 3, 4), (3, 1)),
    "1x1": ((2, 6, 5, 16), (1, 1, 16, 3), (2, 3)),
    "more channels": ((2, 9, 9, 8), (4, 4, 8, 2), (3, 2)),
}


def _random(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def _reference_conv(images, kernel, strides, padding):
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _with_gradients(function, *operands):
    """A function's outputs and gradients along a random direction, in one program: many small programs are slow."""

    def outputs_and_gradients(grads, *operands):
        outputs, vjp = jax.vjp(function, *operands)
        return outputs, *vjp(grads)

    outputs = jax.eval_shape(function, *operands)
    (grads,) = _random(1, outputs.shape)
    return jax.jit(outputs_and_gradients)(grads.astype(outputs.dtype), *operands)


def _check_same(ours, theirs, *operands, check=_assert_close):
    """Compares two functions and their gradients."""
    for our_array, their_array in zip(
        _with_gradients(ours, *operands), _with_gradients(theirs, *operands), strict=True
    ):
        check(our_array, their_array)


def _check_conv(images_shape, kernel_shape, strides, padding):
    ours, theirs = (partial(function, strides=strides, padding=padding) for function in (conv, _reference_conv))
    _check_same(ours, theirs, *_random(0, images_shape, kernel_shape))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("images", "kernel", "strides"), SHAPES.values(), ids=SHAPES)
def test_conv_and_its_gradients_equal_lax(images, kernel, strides, padding):
    _check_conv(images, kernel, strides, padding)


@contextmanager
def _little_optimization():
    """XLA takes half of the time for a program, of which each shape needs two."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


# The same shapes in every run, so that the compilation cache holds their programs.
@settings(max_examples=25, derandomize=True)
@given(data=st.data())
def test_conv_and_its_gradients_equal_lax_for_any_shape(data):
    size = st.integers(1, 5)
    kernel = (data.draw(size), data.draw(size), data.draw(size), data.draw(size))
    height, width = (k + data.draw(st.integers(0, 7)) for k in kernel[:2])
    strides = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    padding = data.draw(st.sampled_from(["SAME", "VALID"]))
    with _little_optimization():
        _check_conv((data.draw(size), height, width, kernel[2]), kernel, strides, padding)


@pytest.mark.parametrize(("size", "strides"), [((8, 6), (1, 1)), ((7, 9), (2, 2)), ((5, 5), (1, 3))])
def test_depthwise_conv_and_its_gradients_equal_lax(size, strides):
    images, kernel = _random(0, (3, *size, 5), (3, 3, 1, 5))

    def reference(x, k):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, k, strides, "SAME", dimension_numbers=dimensions, feature_group_count=5)

    _check_same(lambda x, k: depthwise_conv(x, k, strides), reference, images, kernel)


@settings(max_examples=15, derandomize=True)
@given(data=st.data())
def test_gradients_of_depthwise_conv_equal_sums_in_float64_for_any_shape(data):
    (height, width), window = ([data.draw(st.integers(1, high)) for _ in "hw"] for high in (9, 5))
    strides, channels = tuple(data.draw(st.integers(1, 3)) for _ in "hw"), data.draw(st.integers(1, 3))
    images, kernel = _random(0, (2, height, width, channels), (*window, 1, channels))
    with _little_optimization():
        outputs, vjp = jax.vjp(partial(depthwise_conv, strides=strides), images, kernel)
        (grads,) = _random(1, outputs.shape)
        actual = vjp(grads)
    # What lax adds before and after, from its documentation: the larger half after.
    sizes = outputs.shape[1:3]
    totals = [
        max((out - 1) * s + k - n, 0) for out, s, k, n in zip(sizes, strides, window, (height, width), strict=True)
    ]
    pads = ((0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0))
    padded = np.pad(np.float64(images), pads)
    images_gradient = np.zeros_like(padded)
    kernel_gradient = np.zeros(kernel.shape)
    for i, j in np.ndindex(*window):
        place = np.s_[
            :,
            i : i + (sizes[0] - 1) * strides[0] + 1 : strides[0],
            j : j + (sizes[1] - 1) * strides[1] + 1 : strides[1],
        ]
        images_gradient[place] += np.float64(grads) * np.float64(kernel[i, j, 0])
        kernel_gradient[i, j, 0] = (padded[place] * np.float64(grads)).sum((0, 1, 2))
    top, left = pads[1][0], pads[2][0]
    np.testing.assert_allclose(actual[0], images_gradient[:, top : top + height, left : left + width], atol=1e-5)
    np.testing.assert_allclose(actual[1], kernel_gradient, atol=1e-5)


def test_depthwise_conv_in_bfloat16_is_the_float32_sum_rounded_once():
    images, kernel = _random(0, (40, 5, 5, 3), (3, 3, 1, 3))
    rounded = [array.astype(jnp.bfloat16) for array in (images, kernel)]
    ours, our_vjp = jax.vjp(depthwise_conv, *rounded)
    theirs, their_vjp = jax.vjp(depthwise_conv, *(array.astype(jnp.float32) for array in rounded))
    (grads,) = _random(1, ours.shape)
    grads = grads.astype(jnp.bfloat16)
    pairs = zip([ours, our_vjp(grads)[1]], [theirs, their_vjp(grads.astype(jnp.float32))[1]], strict=True)
    for actual, expected in pairs:
        # Half of the distance between two bfloat16 numbers.
        np.testing.assert_allclose(actual.astype(jnp.float32), expected, rtol=2**-8)


def test_batch_norm_in_bfloat16_is_the_float32_result_rounded_once():
    (images,) = _random(0, (6, 5, 4, 3))
    # A mean that is large compared to the deviation.
    images = (images + 20).astype(jnp.bfloat16)
    layer = BatchNorm(activation=None)
    variables = layer.init(jax.random.key(0), images, train=False)
    ours, _ = layer.apply(variables, images, train=True, mutable="batch_stats")
    expected, _ = layer.apply(variables, images.astype(jnp.float32), train=True, mutable="batch_stats")
    np.testing.assert_allclose(ours.astype(jnp.float32), expected, rtol=2**-8)


def test_batch_norm_equals_flax_in_training_and_evaluation():
    (images,) = _random(0, (6, 5, 4, 3))
    ours, theirs = BatchNorm(activation=None), nn.BatchNorm(use_running_average=False, momentum=0.9)
    variables = ours.init(jax.random.key(0), images, train=False)
    their_variables = theirs.init(jax.random.key(0), images)
    outputs, stats = ours.apply(variables, images, train=True, mutable="batch_stats")
    their_outputs, their_stats = theirs.apply(their_variables, images, mutable="batch_stats")
    _assert_close(outputs, their_outputs)
    _assert_close(stats["batch_stats"]["mean"], their_stats["batch_stats"]["mean"])
    _assert_close(stats["batch_stats"]["variance"], their_stats["batch_stats"]["var"])
    after = {"params": variables["params"], **stats}
    mean, variance = (np.asarray(stats["batch_stats"][name]) for name in ("mean", "variance"))
    _assert_close(ours.apply(after, images, train=False), (np.asarray(images) - mean) / np.sqrt(variance + 1e-5))


def test_batch_norm_statistics_ignore_padding():
    images, others = _random(0, (6, 5, 4, 3), (2, 5, 4, 3))
    layer, mask = BatchNorm(), jnp.arange(8) < 6
    variables = layer.init(jax.random.key(0), images, train=False)
    expected, stats = layer.apply(variables, images, train=True, mutable="batch_stats")
    padded = jnp.concatenate([images, 100 * others])
    outputs, masked_stats = layer.apply(variables, padded, train=True, mask_B=mask, mutable="batch_stats")
    _assert_close(outputs[:6], expected)
    jax.tree.map(_assert_close, masked_stats, stats)


def test_layer_norm_equals_flax():
    (tokens,) = _random(0, (2, 5, 8))
    ours, theirs = LayerNorm(), nn.LayerNorm()
    keys = jax.random.split(jax.random.key(0))
    _assert_close(ours.apply(ours.init(keys[0], tokens), tokens), theirs.apply(theirs.init(keys[1], tokens), tokens))


def test_attention_equals_the_formula():
    """softmax(q k' / sqrt(d)) v for each head, the heads side by side."""
    (inputs,) = _random(0, (2, 5, 24))
    queries, keys, values = np.split(np.asarray(inputs), 3, axis=2)
    expected = np.zeros((2, 5, 8))
    for head in (slice(0, 4), slice(4, 8)):
        scores = queries[..., head] @ keys[..., head].swapaxes(1, 2) / np.sqrt(4)
        weights = np.exp(scores) / np.exp(scores).sum(2, keepdims=True)
        expected[..., head] = weights @ values[..., head]
    _assert_close(Attention(heads=2).apply({}, inputs), expected)


def test_shortcut_subsamples_pixels_and_zero_pads_channels():
    images, shortcut = _random(0, (2, 3, 3, 4), (2, 5, 5, 2))
    outputs: Any = Add(activation=None).apply({}, images, shortcut)
    _assert_close(outputs[..., :2], images[..., :2] + shortcut[:, ::2, ::2])
    _assert_close(outputs[..., 2:], images[..., 2:])


def test_conv_of_few_channels_in_float64_equals_lax():
    with jax.enable_x64(True):
        images, kernel = (np.random.default_rng(0).standard_normal(shape) for shape in ((2, 9, 9, 1), (3, 3, 1, 5)))
        ours, theirs = (f(jnp.asarray(images), jnp.asarray(kernel), (1, 1), "SAME") for f in (conv, _reference_conv))
        assert ours.dtype == jnp.float64
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_winograd_takes_2_25_times_fewer_multiplications():
    def flops(images_shape):
        images, kernel = _random(0, images_shape, (3, 3, 32, 64))
        analysis: Any = jax.jit(conv).lower(images, kernel).compile().cost_analysis()
        return analysis["flops"]

    # 2 * 9 * 32 * 64 FLOPs a pixel by the direct sum, 4 / 9 of it by Winograd's, and the transforms' additions.
    direct = 2 * 9 * 32 * 64 * 14 * 14
    assert direct * 4 / 9 < flops((1, 14, 14, 32)) < direct * 0.6
    assert flops((1, 13, 13, 32)) > direct * 0.6


def test_conv_of_a_known_image():
    images = jnp.arange(9.0).reshape(1, 3, 3, 1)
    total = conv(images, jnp.ones((3, 3, 1, 1)), (1, 1), "SAME")
    assert total[0, :, :, 0].tolist() == [[8, 15, 12], [21, 36, 27], [20, 33, 24]]


def _check_pool(images, window):
    def reference(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *window, 1), "VALID")

    _check_same(lambda x: max_pool(x, window), reference, images, check=np.testing.assert_array_equal)


@settings(max_examples=25, derandomize=True)
@given(data=st.data())
def test_max_pool_and_its_gradient_equal_reduce_window_with_ties(data):
    window = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    shape = (2, window[0] + data.draw(st.integers(0, 6)), window[1] + data.draw(st.integers(0, 6)), 3)
    # Few values, so that most windows have several equal maxima.
    values = np.random.default_rng(data.draw(st.integers(0, 9))).integers(-1, 2, shape)
    with _little_optimization():
        _check_pool(jnp.asarray(values, data.draw(st.sampled_from([jnp.float32, jnp.bfloat16]))), window)


def test_max_pool_of_images_smaller_than_the_window_is_empty():
    _check_pool(jnp.ones((2, 1, 5, 3)), (2, 2))


@pytest.mark.parametrize(
    ("layer", "shape", "parameter", "count"),
    [
        (Conv(4, activation=None), (2, 28, 28, 1), "bias", 2 * 28 * 28),
        (Dense(4, activation=None), (600, 8), "bias", 600),
        (PositionEmbedding(), (600, 2, 2, 4), "position", 600),
    ],
    ids=["conv", "dense", "position"],
)
def test_bfloat16_gradients_of_parameters_are_summed_exactly(layer, shape, parameter, count):
    inputs = jnp.ones(shape, jnp.bfloat16)
    params = layer.init(jax.random.key(0), inputs)["params"]
    grads = jax.grad(lambda params: layer.apply({"params": params}, inputs).astype(jnp.float32).sum())(params)
    assert (grads[parameter] == count).all()


def test_bfloat16_gradients_of_factors_are_summed_exactly():
    images, factors = jnp.ones((2, 28, 28, 3), jnp.bfloat16), jnp.ones((2, 3), jnp.bfloat16)
    grads = jax.grad(lambda factors: jnp.asarray(Scale().apply({}, images, factors)).astype(jnp.float32).sum())(factors)
    assert (grads == 28 * 28).all()


def test_max_pool_over_a_full_map_equals_reduce_window():
    _check_pool(_random(0, (2, 14, 14, 3))[0], (14, 14))


def test_max_pool_of_the_models_shapes_equals_reduce_window():
    _check_pool(_random(0, (2, 28, 28, 32))[0], (2, 2))


def test_gradients_of_the_model_equal_those_of_flax_layers(full_config, small):
    """All layers together, compared to Flax' layers on the same parameters and images."""
    state = cnn.create_state(full_config)
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

    def loss(apply_network):
        def mean(params):
            logits = apply_network(params, jnp.asarray(images, jnp.float32) / 255)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return mean

    def our_logits(params, x):
        logits: Any = state.spec.model.apply({"params": params}, x, train=False)
        return logits

    with _little_optimization():
        ours, theirs = (jax.jit(jax.grad(loss(logits)))(state.params) for logits in (our_logits, plain_logits))
    errors = jax.tree.map(lambda a, b: jnp.linalg.norm(a - b) / jnp.linalg.norm(b), ours, theirs)
    assert max(jax.tree.leaves(errors)) < 1e-5


def test_accelerators_use_the_plain_formulation():
    # Shapes that fit Winograd's algorithm.
    images, kernel = jnp.zeros((2, 8, 8, 8)), jnp.zeros((3, 3, 8, 8))

    def loss(images, kernel):
        return conv(images, kernel).sum()

    def lowered(platform):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(images, kernel)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    # The kernel's gradient as XLA's own differentiation writes it: the batch as the contracted dimension.
    assert "[f, 0, 1, b]x[i, 0, 1, o]->[0, 1, b, f]" in lowered("cuda")
    assert "[f, 0, 1, b]x[i, 0, 1, o]" not in lowered("cpu")
