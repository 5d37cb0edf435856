"""Each augmentation by its properties: what it may change, what it must keep, and that a key gives the same again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn
from cnn.run import result_table
from cnn.training import augment
from cnn.training.augment import tta_views
from cnn.training.optim import learning_rate_schedule
from cnn.training.state import Stream, stream_key
from cnn.training.steps import apply_model, evaluate_views, scale, train_loss
from tests.helpers import NARROW, narrow

KEY = 3
"""Made a key of anew each time, as JAX' check allows no key to be used twice."""
EACH = {
    "shift": cnn.AugmentConfig(shift=2),
    "flip": cnn.AugmentConfig(flip=True),
    "cutout": cnn.AugmentConfig(cutout=8),
    "erase": cnn.AugmentConfig(erase=1.0),
    "mixup": cnn.AugmentConfig(mixup=0.5),
    "cutmix": cnn.AugmentConfig(cutmix=1.0),
}


@pytest.fixture(scope="module")
def images(splits):
    return jnp.asarray(splits.train.images[:16], jnp.float32) / 255


@pytest.fixture(scope="module")
def targets(splits):
    return jax.nn.one_hot(splits.train.labels[:16], 10)


def test_nothing_changes_by_default(images, targets):
    for before, after in zip(
        (images, targets), augment.augment(jax.random.key(KEY), images, targets, cnn.AugmentConfig()), strict=True
    ):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("config", EACH.values(), ids=EACH)
def test_a_key_gives_the_same_again_and_another_key_something_else(images, targets, config):
    (first, mixed), (again, _) = (augment.augment(jax.random.key(KEY), images, targets, config) for _ in range(2))
    other, _ = augment.augment(jax.random.key(4), images, targets, config)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != images).any()
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 1
    np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["shift", "flip", "cutout", "erase"])
def test_labels_are_kept(images, targets, name):
    np.testing.assert_array_equal(augment.augment(jax.random.key(KEY), images, targets, EACH[name])[1], targets)


def test_a_shifted_image_is_one_of_the_crops_of_the_padded_one(images):
    shifted = np.asarray(augment.shift(jax.random.key(KEY), images, 2))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    places = set()
    for image, wide in zip(shifted, padded, strict=True):
        fits = [(y, x) for y in range(5) for x in range(5) if (wide[y : y + 28, x : x + 28] == image).all()]
        assert fits
        places.add(fits[0])
    assert len(places) > 5


def test_a_flipped_image_is_the_image_or_its_mirror_image(images):
    flipped = augment.flip(jax.random.key(KEY), images)
    mirrored = [(f == i[:, ::-1]).all() for f, i in zip(flipped, images, strict=True)]
    kept = [(f == i).all() for f, i in zip(flipped, images, strict=True)]
    assert all(m or k for m, k in zip(mirrored, kept, strict=True))
    assert 0 < sum(kept) < 16


def _changed(before, after):
    """Rows and columns of the smallest rectangle round the changed pixels."""
    rows, columns, _ = np.nonzero(np.asarray(before != after))
    return np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)


def test_cutout_sets_a_square_to_zero_which_the_edge_may_cut(splits):
    white = jnp.ones((64, 28, 28, 1))
    sizes = [_changed(*pair) for pair in zip(white, augment.cutout(jax.random.key(KEY), white, 8), strict=True)]
    assert all(height * width == count for height, width, count in sizes)
    assert max(sizes) == (8, 8, 64) and min(sizes)[0] >= 4


def test_erasing_takes_an_area_within_its_bounds_from_as_many_as_asked_for():
    white = jnp.full((400, 28, 28, 1), 2.0)
    erased = augment.erase(jax.random.key(KEY), white, 0.25)
    changed = [pair for pair in zip(white, erased, strict=True) if (pair[0] != pair[1]).any()]
    # Binomial: 100 +- 4 standard deviations of 8.7.
    assert 65 <= len(changed) <= 135
    for height, width, count in (_changed(*pair) for pair in changed):
        assert height * width == count
        # Rounding each side of the smallest, 2.2 pixels, to whole pixels.
        assert 0.01 * 784 <= count <= 784 * 0.37


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), alpha=st.floats(0.1, 4))
def test_mixup_is_the_same_line_between_images_as_between_targets(images, targets, seed, alpha):
    mixed, shares = augment.mixup(jax.random.key(seed), images, targets, alpha)
    # The share, from two targets of different classes.
    index = next(i for i in range(1, 16) if (targets[i] != targets[i - 1]).any())
    share = shares[index, targets[index].argmax()]
    np.testing.assert_allclose(mixed, share * images + (1 - share) * jnp.roll(images, 1, 0), atol=1e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_cutmix_mixes_targets_by_the_share_of_the_pixels(seed):
    images = jnp.arange(4.0)[:, None, None, None] + jnp.zeros((4, 28, 28, 1))
    mixed, shares = augment.cutmix(jax.random.key(seed), images, jnp.eye(4), 1.0)
    for i in range(4):
        np.testing.assert_allclose((mixed[i] == i).mean(), shares[i, i], atol=1e-6)
        np.testing.assert_allclose((mixed[i] == (i - 1) % 4).mean(), shares[i, i - 1], atol=1e-6)


def test_training_uses_it_and_evaluation_does_not(config, small):
    batch = cnn.Batch(small.train.images[:32], small.train.labels[:32])
    plain = cnn.create_state(narrow(config))
    changed = cnn.create_state(dataclasses.replace(narrow(config), augment=cnn.AugmentConfig(cutout=20)))
    np.testing.assert_array_equal(cnn.eval_step(plain, batch).loss, cnn.eval_step(changed, batch).loss)
    assert cnn.train_step(plain, batch)[1].loss != cnn.train_step(changed, batch)[1].loss


def test_smoothed_targets_cost_what_the_formula_says(config, small):
    """With a share s, -(1 - s) log p(label) - s mean(log p), averaged over the images."""
    batch = cnn.Batch(small.train.images[:32], small.train.labels[:32])
    optim = dataclasses.replace(config.optim, label_smoothing=0.2)
    smooth = cnn.create_state(dataclasses.replace(narrow(config), optim=optim))
    key = stream_key(smooth.key, Stream.DROPOUT, smooth.step)
    logits, _ = apply_model(smooth, smooth.params, scale(batch.images), train=True, dropout_key=key)
    log_p = jax.nn.log_softmax(logits)
    at_label = np.take_along_axis(np.asarray(log_p), np.asarray(batch.labels)[:, None], 1)[:, 0]
    wanted = -(0.8 * at_label + 0.2 * np.asarray(log_p).mean(1)).mean()
    np.testing.assert_allclose(train_loss(smooth.params, smooth, batch)[0], wanted, rtol=1e-5)


def test_the_average_of_the_weights_is_the_closed_form(config, small):
    """With weights k_t kept at step t, it is the sum of (1 - k_t) times the product of the later k, of params t."""
    optim = dataclasses.replace(config.optim, average_decay=0.3)
    state = cnn.create_state(dataclasses.replace(narrow(config), optim=optim))
    batch = cnn.Batch(small.train.images[:32], small.train.labels[:32])
    seen = [np.asarray(state.params["logits"]["kernel"])]
    for _ in range(5):
        state, _ = cnn.train_step(state, batch)
        seen.append(np.asarray(state.params["logits"]["kernel"]))
    kept = [min(0.3, (1 + step) / (10 + step)) for step in range(5)]
    weights = [np.prod(kept)] + [(1 - kept[t]) * np.prod(kept[t + 1 :]) for t in range(5)]
    wanted = sum(w * params for w, params in zip(weights, seen, strict=True))
    np.testing.assert_allclose(state.ema["params"]["logits"]["kernel"], wanted, rtol=1e-5)
    assert state.eval_state.params is state.ema["params"]


def test_evaluation_takes_the_average(config, small):
    optim = dataclasses.replace(config.optim, average_decay=0.9)
    state, _ = cnn.train_epoch(
        cnn.create_state(dataclasses.replace(narrow(config), optim=optim)), small.train, batch_size=50
    )
    of_average = cnn.evaluate(state, small.val).loss
    assert of_average == cnn.evaluate(state.replace(params=state.ema["params"], ema={}), small.val).loss
    assert of_average != cnn.evaluate(state.replace(ema={}), small.val).loss


def test_accumulated_steps_are_one_step_on_all_of_their_images(config, small):
    """The mean of the gradients of equal batches is that of their images together; without dropout, as keys differ."""
    model = dataclasses.replace(NARROW, dropout_rate=0.0)
    one, many = (
        cnn.create_state(
            dataclasses.replace(config, model=model, optim=cnn.OptimConfig(name="sgd", accumulate_steps=steps))
        )
        for steps in (1, 4)
    )
    begin = jax.tree.map(np.asarray, one.params)
    for first in (0, 8, 16, 24):
        np.testing.assert_array_equal(many.params["logits"]["kernel"], begin["logits"]["kernel"])
        batch = cnn.Batch(small.train.images[first : first + 8], small.train.labels[first : first + 8])
        many, _ = cnn.train_step(many, batch)
    one, _ = cnn.train_step(one, cnn.Batch(small.train.images[:32], small.train.labels[:32]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), many.params, one.params)


def test_a_schedule_of_accumulated_steps_ends_with_the_run(config, small, tmp_path):
    optim = cnn.OptimConfig(schedule="cosine", accumulate_steps=3, batch_size=50)
    rates = [
        row["learning_rate"]
        for row in cnn.fit(dataclasses.replace(narrow(config), optim=optim), tmp_path, small).history
    ]
    # Two epochs of ten steps are seven updates, of which the fourth is the last that begins in the first epoch.
    assert rates == pytest.approx([1e-3 * (1 + np.cos(np.pi * update / 7)) / 2 for update in (3, 6)], rel=1e-4)


def test_warm_up_rises_to_the_highest_rate_and_falls_as_a_cosine():
    schedule = learning_rate_schedule(cnn.OptimConfig(schedule="warmup_cosine", warmup=0.2, learning_rate=0.1), 50)
    assert [float(schedule(step)) for step in (0, 5, 10, 30, 50)] == pytest.approx([0, 0.05, 0.1, 0.05, 0], abs=1e-6)


def test_views_are_the_image_its_mirror_image_and_each_moved_by_a_pixel():
    images = jnp.asarray(np.random.default_rng(0).integers(1, 256, (2, 5, 4, 1)), jnp.uint8)
    found = tta_views(images, cnn.AugmentConfig(flip=True, shift=3))
    assert found.shape == (10, 2, 5, 4, 1)
    np.testing.assert_array_equal(found[0], images)
    np.testing.assert_array_equal(found[1], images[:, :, ::-1])
    np.testing.assert_array_equal(found[2, :, 1:], images[:, :-1])
    np.testing.assert_array_equal(found[5, :, :, :-1], images[:, :, 1:])
    assert len(tta_views(images, cnn.AugmentConfig(shift=1))) == 5 and len(tta_views(images, cnn.AugmentConfig())) == 1


def test_test_time_augmentation_is_reported_apart(config, small, tmp_path, capsys):
    plain = dataclasses.replace(narrow(config, epochs=1), augment=cnn.AugmentConfig(flip=True))
    varied = dataclasses.replace(plain, augment=cnn.AugmentConfig(flip=True, test_time=True))
    results = [cnn.fit(one, tmp_path / name, small) for one, name in ((plain, "plain"), (varied, "varied"))]
    assert results[0].summary["test_loss"] == results[1].summary["test_loss"]
    assert "tta_test_loss" not in results[0].summary
    state, images = results[1].state, small.test.images
    mean = (np.asarray(cnn.predict(state, images)) + np.asarray(cnn.predict(state, images[:, :, ::-1]))) / 2
    labels = small.test.labels
    assert results[1].summary["tta_test_accuracy"] == pytest.approx((mean.argmax(1) == labels).mean())
    wanted = -np.log(mean[np.arange(len(labels)), labels]).mean()
    assert results[1].summary["tta_test_loss"] == pytest.approx(wanted, rel=1e-5)
    assert "test, TTA" in result_table(results[1].summary)


def test_test_time_augmentation_of_an_image_that_is_surely_wrong_is_finite(config, small):
    state = cnn.create_state(dataclasses.replace(narrow(config), augment=cnn.AugmentConfig(flip=True)))
    params = state.params | {"logits": jax.tree.map(jnp.zeros_like, state.params["logits"])}
    params["logits"]["bias"] = params["logits"]["bias"].at[0].set(1000.0)
    images = cnn.Split(small.test.images[:4], np.array([1, 1, 1, 0], np.int32))
    metrics = evaluate_views(state.replace(params=params), images)
    assert float(metrics.loss) == pytest.approx(750) and int(metrics.correct) == 1


def test_the_average_moves_with_updates_alone(config, small):
    optim = cnn.OptimConfig(name="sgd", average_decay=0.5, accumulate_steps=2)
    state = cnn.create_state(dataclasses.replace(narrow(config), optim=optim))
    batch = cnn.Batch(small.train.images[:8], small.train.labels[:8])
    begin = np.asarray(state.params["logits"]["kernel"])
    state, _ = cnn.train_step(state, batch)
    np.testing.assert_array_equal(state.ema["params"]["logits"]["kernel"], begin)
    state, _ = cnn.train_step(state, batch)
    wanted = 0.1 * begin + 0.9 * np.asarray(state.params["logits"]["kernel"])
    np.testing.assert_allclose(state.ema["params"]["logits"]["kernel"], wanted, rtol=1e-5)


def test_test_time_augmentation_without_any_augmentation_is_refused():
    with pytest.raises(cnn.ConfigError, match="--augment.test_time is True"):
        cnn.AugmentConfig(test_time=True)
