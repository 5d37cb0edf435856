"""Properties of each augmentation: what it may change, what it must keep, and that it is a function of its key."""

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
from cnn.training.classification import train_inputs
from cnn.training.optim import learning_rate_schedule
from cnn.training.state import Stream, stream_key
from cnn.training.steps import apply_model, evaluate_views, train_loss
from cnn.training.task import scale
from tests.helpers import NARROW, assert_same, narrow

KEY = 3
"""A new key is made of it each time, as JAX' check allows no key to be used twice."""
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


def test_default_augmentation_changes_nothing(images, targets):
    assert_same(augment.augment(jax.random.key(KEY), images, targets, cnn.AugmentConfig()), (images, targets))


@pytest.mark.parametrize("config", EACH.values(), ids=EACH)
def test_augmentation_is_a_function_of_its_key(images, targets, config):
    (first, mixed), (again, _) = (augment.augment(jax.random.key(KEY), images, targets, config) for _ in range(2))
    other, _ = augment.augment(jax.random.key(4), images, targets, config)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != images).any()
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 1
    np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["shift", "flip", "cutout", "erase"])
def test_labels_are_unchanged(images, targets, name):
    np.testing.assert_array_equal(augment.augment(jax.random.key(KEY), images, targets, EACH[name])[1], targets)


def test_shifted_image_is_a_crop_of_the_padded_image(images):
    shifted = np.asarray(augment.shift(jax.random.key(KEY), images, 2))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    positions = set()
    for image, wide in zip(shifted, padded, strict=True):
        fits = [(y, x) for y in range(5) for x in range(5) if (wide[y : y + 28, x : x + 28] == image).all()]
        assert fits
        positions.add(fits[0])
    assert len(positions) > 5


def test_flipped_image_is_the_image_or_its_mirror_image(images):
    flipped = augment.flip(jax.random.key(KEY), images)
    mirrored = [(f == i[:, ::-1]).all() for f, i in zip(flipped, images, strict=True)]
    kept = [(f == i).all() for f, i in zip(flipped, images, strict=True)]
    assert all(m or k for m, k in zip(mirrored, kept, strict=True))
    assert 0 < sum(kept) < 16


def _changed(before, after):
    """Height and width of the smallest rectangle around the changed pixels, and their number."""
    rows, columns, _ = np.nonzero(np.asarray(before != after))
    return np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)


def test_cutout_zeros_a_square_clipped_at_the_edge(splits):
    white = jnp.ones((64, 28, 28, 1))
    sizes = [_changed(*pair) for pair in zip(white, augment.cutout(jax.random.key(KEY), white, 8), strict=True)]
    assert all(height * width == count for height, width, count in sizes)
    assert max(sizes) == (8, 8, 64) and min(sizes)[0] >= 4


def test_erase_keeps_to_its_area_bounds_and_probability():
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
def test_mixup_mixes_images_and_targets_by_the_same_weight(images, targets, seed, alpha):
    mixed, mixed_targets = augment.mixup(jax.random.key(seed), images, targets, alpha)
    # The weight, from two targets of different classes.
    index = next(i for i in range(1, 16) if (targets[i] != targets[i - 1]).any())
    weight = mixed_targets[index, targets[index].argmax()]
    np.testing.assert_allclose(mixed, weight * images + (1 - weight) * jnp.roll(images, 1, 0), atol=1e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_cutmix_mixes_targets_by_the_share_of_the_pixels(seed):
    images = jnp.arange(4.0)[:, None, None, None] + jnp.zeros((4, 28, 28, 1))
    mixed, shares = augment.cutmix(jax.random.key(seed), images, jnp.eye(4), 1.0)
    for i in range(4):
        np.testing.assert_allclose((mixed[i] == i).mean(), shares[i, i], atol=1e-6)
        np.testing.assert_allclose((mixed[i] == (i - 1) % 4).mean(), shares[i, i - 1], atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([1, 1, 1, 1, 1], [4, 0, 1, 2, 3]),
        # As in the last batch of an epoch; what is mixed into padding does not count.
        ([1, 1, 1, 0, 0], [2, 0, 1, None, None]),
        ([0, 1, 0, 1, 1], [None, 4, None, 1, 3]),
        ([0, 0, 1, 0, 0], [None, None, 2, None, None]),
    ],
)
def test_an_image_is_mixed_with_the_one_before_it_that_is_not_padding(mask, expected):
    mixed_B = augment.partners(jnp.arange(5), jnp.array(mask, bool))
    assert [int(index) if real else None for index, real in zip(mixed_B, mask, strict=True)] == expected


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_padding_is_mixed_into_no_image(config, images, name):
    spec = cnn.create_state(dataclasses.replace(narrow(config), augment=EACH[name])).spec
    pixels, mask = np.array(images * 255, np.uint8), np.arange(16) < 11

    def inputs(padding, label):
        batch = cnn.Batch(np.where(mask[:, None, None, None], pixels, padding), np.where(mask, 3, label), mask)
        inputs_BxHxWxC, targets, _ = train_inputs(jax.random.key(KEY), batch, spec)
        return inputs_BxHxWxC[:11], targets.probabilities[:11]

    black, white = inputs(0, 0), inputs(255, 7)
    assert_same(black, white)
    assert (black[0] != scale(pixels[:11])).any()
    args = images, images[:, 0, :10, 0], EACH[name]
    assert_same(*(augment.augment(jax.random.key(KEY), *args, all_B) for all_B in (None, np.ones(16, bool))))


def test_augmentation_is_used_only_in_training(config, small):
    batch = cnn.Batch(small.train.images[:32], small.train.labels[:32])
    plain = cnn.create_state(narrow(config))
    changed = cnn.create_state(dataclasses.replace(narrow(config), augment=cnn.AugmentConfig(cutout=20)))
    np.testing.assert_array_equal(cnn.eval_step(plain, batch).loss, cnn.eval_step(changed, batch).loss)
    assert cnn.train_step(plain, batch)[1].loss != cnn.train_step(changed, batch)[1].loss


def test_label_smoothing_loss_equals_the_formula(config, small):
    """With smoothing s, -(1 - s) log p(label) - s mean(log p), averaged over the images."""
    batch = cnn.Batch(small.train.images[:32], small.train.labels[:32])
    optim = dataclasses.replace(config.optim, label_smoothing=0.2)
    smooth = cnn.create_state(dataclasses.replace(narrow(config), optim=optim))
    key = stream_key(smooth.key, Stream.DROPOUT, smooth.step)
    logits, _ = apply_model(smooth, smooth.params, scale(batch.images), train=True, dropout_key=key)
    log_p = jax.nn.log_softmax(logits)
    at_label = np.take_along_axis(np.asarray(log_p), np.asarray(batch.labels)[:, None], 1)[:, 0]
    expected = -(0.8 * at_label + 0.2 * np.asarray(log_p).mean(1)).mean()
    np.testing.assert_allclose(train_loss(smooth.params, smooth, batch)[0], expected, rtol=1e-5)


def test_ema_equals_its_closed_form(config, small):
    """With decay k_t at step t: the sum over t of params_t times (1 - k_t) times the product of the later k."""
    optim = dataclasses.replace(config.optim, average_decay=0.3)
    state = cnn.create_state(dataclasses.replace(narrow(config), optim=optim))
    batch = cnn.Batch(small.train.images[:32], small.train.labels[:32])
    history = [np.asarray(state.params["logits"]["kernel"])]
    for _ in range(5):
        state, _ = cnn.train_step(state, batch)
        history.append(np.asarray(state.params["logits"]["kernel"]))
    decays = [min(0.3, (1 + step) / (10 + step)) for step in range(5)]
    weights = [np.prod(decays)] + [(1 - decays[t]) * np.prod(decays[t + 1 :]) for t in range(5)]
    expected = sum(w * params for w, params in zip(weights, history, strict=True))
    np.testing.assert_allclose(state.ema["params"]["logits"]["kernel"], expected, rtol=1e-5)
    assert state.eval_state.params is state.ema["params"]


def test_evaluation_uses_the_ema(config, small):
    optim = dataclasses.replace(config.optim, average_decay=0.9)
    state, _ = cnn.train_epoch(
        cnn.create_state(dataclasses.replace(narrow(config), optim=optim)), small.train, batch_size=50
    )
    ema_loss = cnn.evaluate(state, small.val).loss
    assert ema_loss == cnn.evaluate(state.replace(params=state.ema["params"], ema={}), small.val).loss
    assert ema_loss != cnn.evaluate(state.replace(ema={}), small.val).loss


def test_accumulated_steps_equal_one_step_on_all_images(config, small):
    """The mean gradient of equal batches is that of all their images; without dropout, as keys differ."""
    model = dataclasses.replace(NARROW, dropout_rate=0.0)
    one, many = (
        cnn.create_state(
            dataclasses.replace(config, model=model, optim=cnn.OptimConfig(name="sgd", accumulate_steps=steps))
        )
        for steps in (1, 4)
    )
    initial = jax.tree.map(np.asarray, one.params)
    for first in (0, 8, 16, 24):
        np.testing.assert_array_equal(many.params["logits"]["kernel"], initial["logits"]["kernel"])
        batch = cnn.Batch(small.train.images[first : first + 8], small.train.labels[first : first + 8])
        many, _ = cnn.train_step(many, batch)
    one, _ = cnn.train_step(one, cnn.Batch(small.train.images[:32], small.train.labels[:32]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), many.params, one.params)


def test_schedule_with_accumulation_ends_with_the_run(config, small, tmp_path):
    optim = cnn.OptimConfig(schedule="cosine", accumulate_steps=3, batch_size=50)
    rates = [
        row["learning_rate"]
        for row in cnn.fit(dataclasses.replace(narrow(config), optim=optim), tmp_path, small).history
    ]
    # Two epochs of ten steps are seven updates; the fourth is the last that starts in the first epoch.
    assert rates == pytest.approx([1e-3 * (1 + np.cos(np.pi * update / 7)) / 2 for update in (3, 6)], rel=1e-4)


def test_warmup_rises_to_the_peak_and_decays_as_a_cosine():
    schedule = learning_rate_schedule(cnn.OptimConfig(schedule="warmup_cosine", warmup=0.2, learning_rate=0.1), 50)
    assert [float(schedule(step)) for step in (0, 5, 10, 30, 50)] == pytest.approx([0, 0.05, 0.1, 0.05, 0], abs=1e-6)


def test_tta_views_are_mirrored_and_shifted_by_a_pixel():
    images = jnp.asarray(np.random.default_rng(0).integers(1, 256, (2, 5, 4, 1)), jnp.uint8)
    views = tta_views(images, cnn.AugmentConfig(flip=True, shift=3))
    assert views.shape == (10, 2, 5, 4, 1)
    np.testing.assert_array_equal(views[0], images)
    np.testing.assert_array_equal(views[1], images[:, :, ::-1])
    np.testing.assert_array_equal(views[2, :, 1:], images[:, :-1])
    np.testing.assert_array_equal(views[5, :, :, :-1], images[:, :, 1:])
    assert len(tta_views(images, cnn.AugmentConfig(shift=1))) == 5 and len(tta_views(images, cnn.AugmentConfig())) == 1


def test_tta_metrics_are_reported_separately(config, small, tmp_path, capsys):
    plain = dataclasses.replace(narrow(config, epochs=1), augment=cnn.AugmentConfig(flip=True))
    with_tta = dataclasses.replace(plain, augment=cnn.AugmentConfig(flip=True, test_time=True))
    results = [cnn.fit(one, tmp_path / name, small) for one, name in ((plain, "plain"), (with_tta, "tta"))]
    assert results[0].summary["test_loss"] == results[1].summary["test_loss"]
    assert "tta_test_loss" not in results[0].summary
    state, images = results[1].state, small.test.images
    mean = (np.asarray(cnn.predict(state, images)) + np.asarray(cnn.predict(state, images[:, :, ::-1]))) / 2
    labels = small.test.labels
    assert results[1].summary["tta_test_accuracy"] == pytest.approx((mean.argmax(1) == labels).mean())
    expected = -np.log(mean[np.arange(len(labels)), labels]).mean()
    assert results[1].summary["tta_test_loss"] == pytest.approx(expected, rel=1e-5)
    assert "test, TTA" in result_table(results[1].summary)


def test_tta_loss_is_finite_where_a_probability_underflows(config, small):
    state = cnn.create_state(dataclasses.replace(narrow(config), augment=cnn.AugmentConfig(flip=True)))
    params = state.params | {"logits": jax.tree.map(jnp.zeros_like, state.params["logits"])}
    params["logits"]["bias"] = params["logits"]["bias"].at[0].set(1000.0)
    images = cnn.Split(small.test.images[:4], np.array([1, 1, 1, 0], np.int32))
    metrics = evaluate_views(state.replace(params=params), images)
    assert float(metrics.loss) == pytest.approx(750) and int(metrics.correct) == 1


def test_ema_changes_only_with_updates(config, small):
    optim = cnn.OptimConfig(name="sgd", average_decay=0.5, accumulate_steps=2)
    state = cnn.create_state(dataclasses.replace(narrow(config), optim=optim))
    batch = cnn.Batch(small.train.images[:8], small.train.labels[:8])
    initial = np.asarray(state.params["logits"]["kernel"])
    state, _ = cnn.train_step(state, batch)
    np.testing.assert_array_equal(state.ema["params"]["logits"]["kernel"], initial)
    state, _ = cnn.train_step(state, batch)
    expected = 0.1 * initial + 0.9 * np.asarray(state.params["logits"]["kernel"])
    np.testing.assert_allclose(state.ema["params"]["logits"]["kernel"], expected, rtol=1e-5)


def test_tta_without_augmentation_is_refused():
    with pytest.raises(cnn.ConfigError, match="--augment.test_time is True"):
        cnn.AugmentConfig(test_time=True)
