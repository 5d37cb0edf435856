from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn
from cnn.training import border, steps
from cnn.training.metrics import make_metrics


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


IMAGES, LABELS = np.zeros((4, 28, 28, 1), np.uint8), np.arange(4, dtype=np.int32)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (cnn.Batch(IMAGES, LABELS + np.int64(2**32)), "label 0 is 4294967296, but must be from 0 to 9"),
        (cnn.Batch(IMAGES, LABELS.astype(np.uint32) - 1), "label 0 is 4294967295, but must be from 0 to 9"),
        (cnn.Batch(IMAGES, LABELS - 1), "label 0 is -1, but must be from 0 to 9"),
        (cnn.Batch(IMAGES, LABELS.tolist()), "labels are a list, but must be an array"),  # pyright: ignore
        (
            cnn.Batch(IMAGES, LABELS, np.ones(4, np.int32)),
            r"mask is array.*, but must be an array, bool",
        ),
        (cnn.Batch(IMAGES, LABELS, np.ones((4, 1), bool)), r"but must be an array, bool \[4\]"),
        (cnn.Batch(IMAGES, LABELS, [True] * 4), r"mask is \[True, True, True, True\], but must be an array"),  # pyright: ignore
        (cnn.Split(IMAGES, LABELS), "is given no cnn.Batch; make one of images and labels"),
        (None, "is given no cnn.Batch"),
    ],
)
def test_a_batch_that_jax_would_convert_is_refused(state, batch, message):
    for function in (cnn.train_step, cnn.eval_step):
        with pytest.raises(cnn.DataError, match=message):
            function(state, batch)


def test_a_label_of_padding_may_be_anything(state):
    masked = cnn.Batch(IMAGES, np.array([0, 1, 2, -1], np.int32), np.array([True, True, True, False]))
    assert cnn.eval_step(state, masked).count == 3


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "16", None, 10**400])
def test_a_number_of_steps_or_images_that_is_none_is_refused(state, value):
    split, metrics = cnn.Split(IMAGES, LABELS), make_metrics(0, 0, 0)
    for call in (
        lambda: cnn.train_epoch(state, split, batch_size=value),
        lambda: cnn.evaluate(state, split, batch_size=value),
        lambda: cnn.predict(state, IMAGES, batch_size=value),
    ):
        with pytest.raises(cnn.ConfigError, match="batch_size is .*, but must be an integer"):
            call()
    if value != 0:
        with pytest.raises(cnn.ConfigError, match="steps is .*, but must be an integer"):
            cnn.train_steps(state, metrics, split, value, batch_size=2)


def test_arguments_of_another_kind_are_named(config, state, small, tmp_path):
    # To a type checker, these calls are wrong.
    untyped: Any = cnn
    calls = {
        "splits are": lambda: untyped.fit(config, tmp_path / "run", []),
        "report is 3": lambda: untyped.fit(config, tmp_path / "run", small, report=3),
        "track is 'x'": lambda: untyped.fit(config, tmp_path / "run", small, track="x"),
        "config is None": lambda: untyped.fit(None, tmp_path / "run", small),
        r"run_dir is 'a\\x00b'": lambda: untyped.fit(config, "a\0b", small),
        "run_dir is ''": lambda: untyped.load_best(""),
        "invert is 'no'": lambda: untyped.read_image("x.png", invert="no"),
        r"shape is \(28,\)": lambda: untyped.read_image("x.png", (28,)),
        r"patterns is \[\]": lambda: untyped.take_layers(state, state, []),
        "seeds are 3": lambda: untyped.fit_seeds(config, 3),
        "seeds are range": lambda: untyped.fit_seeds(config, range(10**9)),
        "grid is": lambda: untyped.sweep(config, {"optim.learning_rate": 0.1}, [0], tmp_path),
        "state is": lambda: untyped.layer_table(state.params),
        "as state": lambda: untyped.predict(state.params, small.test.images),
        "metrics are": lambda: untyped.train_steps(state, 0, small.train, 1, batch_size=32),
    }
    for message, call in calls.items():
        with pytest.raises(cnn.UserError, match=message):
            call()
    assert list(tmp_path.iterdir()) == []
