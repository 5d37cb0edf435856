from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn
from cnn.training import border, steps


@given(st.integers(0, 100_000), st.sampled_from([1, 32, 100, 128]))
def test_a_padded_size_holds_the_images_in_less_than_twice_the_batches(count, batch_size):
    size = border.padded_size(count, batch_size)
    batches = -(-count // batch_size)
    assert count <= size <= max(2 * batches - 1, 1) * batch_size
    assert size <= batch_size or size % batch_size == 0


def _programs(function: Any) -> int:
    return function._cache_size()


def test_any_number_of_images_is_served_by_a_handful_of_programs(state, small):
    functions: Any = steps.predict, steps.eval_step, border._predict_batches, border._evaluate_batches
    for function in functions:
        function.clear_cache()
    for count in range(1, 500, 13):
        cnn.predict(state, small.train.images[:count])
        cnn.evaluate(state, cnn.Split(small.train.images[:count], small.train.labels[:count]))
    # 1, 14 -> 16, ... -> 128; 256 and 512.
    assert _programs(steps.predict) == _programs(steps.eval_step) <= 6
    assert _programs(border._predict_batches) == _programs(border._evaluate_batches) == 2


def test_a_batch_size_that_is_no_power_of_two_is_the_largest_padded_size(state, small):
    assert border.padded_size(90, 100) == 100
    images = small.train.images[:90]
    np.testing.assert_allclose(cnn.predict(state, images, batch_size=100), cnn.predict(state, images), atol=1e-7)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 64, 100, 128, 129, 256, 300, 500])
def test_padding_changes_no_prediction_and_no_count(state, small, count):
    images, labels = small.train.images[:count], small.train.labels[:count]
    probabilities, exact = cnn.predict(state, images), steps.predict(state, images)
    assert probabilities.shape == (count, 10)
    np.testing.assert_allclose(probabilities, exact, rtol=0, atol=1e-7)
    if count in (1, 2, 64, 128, 256):
        np.testing.assert_array_equal(probabilities, exact)
    if count:
        metrics, expected = (function(state, cnn.Split(images, labels)) for function in (cnn.evaluate, steps.evaluate))
        assert (metrics.count, metrics.correct) == (expected.count, expected.correct) and metrics.count == count
        assert metrics.loss == pytest.approx(float(expected.loss), rel=1e-6)


def test_feature_maps_of_three_images_are_those_of_four_without_the_last(state, small):
    three, four = (cnn.feature_maps(state, small.train.images[:count]) for count in (3, 4))
    assert list(three) == list(four)
    for name, maps in three.items():
        np.testing.assert_array_equal(maps, four[name][:3], err_msg=name)


def test_the_functions_can_be_called_in_a_users_own_jit(state, small):
    inside = jax.jit(lambda state, images: cnn.predict(state, images) + 0)(state, small.train.images[:5])
    np.testing.assert_allclose(inside, cnn.predict(state, small.train.images[:5]), atol=1e-7)


def test_arrays_on_a_device_are_evaluated_like_arrays_of_the_host(state, small):
    on_device = jax.device_put(small.val)
    assert cnn.evaluate(state, on_device).loss == cnn.evaluate(state, small.val).loss


@pytest.mark.parametrize(
    "call",
    [
        lambda state, split: cnn.train_step(state, cnn.Batch(*split)),
        lambda state, split: cnn.train_epoch(state, split, batch_size=32),
        lambda state, split: cnn.evaluate(state, split),
        lambda state, split: cnn.predict(state, split.images),
        lambda state, split: cnn.feature_maps(state, split.images),
    ],
    ids=["train_step", "train_epoch", "evaluate", "predict", "feature_maps"],
)
def test_wrong_images_and_a_donated_state_are_named(config, small, call):
    state = cnn.create_state(config)
    for dtype in (np.int64, np.float64):
        with pytest.raises(cnn.DataError, match=f"images are {dtype.__name__} .*, but must be uint8"):
            call(state, small.val._replace(images=small.val.images.astype(dtype)))
    cnn.train_step(state, cnn.Batch(small.val.images[:32], small.val.labels[:32]))
    with pytest.raises(cnn.UserError, match="was donated to an earlier step; use the state which that step returned"):
        call(state, small.val)
