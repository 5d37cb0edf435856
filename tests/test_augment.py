"""Each augmentation by its properties: what it may change, what it must keep, and that a key gives the same again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn
from cnn import augment
from cnn.steps import apply_model, loss_and_metrics, scale
from tests.helpers import narrow

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
    key = jax.random.key(5)
    log_p = jax.nn.log_softmax(apply_model(smooth, smooth.params, scale(smooth, batch.images), dropout_key=key)[0])
    at_label = np.take_along_axis(np.asarray(log_p), np.asarray(batch.labels)[:, None], 1)[:, 0]
    wanted = -(0.8 * at_label + 0.2 * np.asarray(log_p).mean(1)).mean()
    np.testing.assert_allclose(loss_and_metrics(smooth.params, smooth, batch, key)[0], wanted, rtol=1e-5)


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
    np.testing.assert_allclose(state.average["params"]["logits"]["kernel"], wanted, rtol=1e-5)
    assert state.evaluated.params is state.average["params"]


def test_evaluation_takes_the_average(config, small):
    optim = dataclasses.replace(config.optim, average_decay=0.9)
    state, _ = cnn.train_epoch(
        cnn.create_state(dataclasses.replace(narrow(config), optim=optim)), small.train, batch_size=50
    )
    of_average = cnn.evaluate(state, small.val).loss
    assert of_average == cnn.evaluate(state.replace(params=state.average["params"], average={}), small.val).loss
    assert of_average != cnn.evaluate(state.replace(average={}), small.val).loss
