"""What each corruption changes, and what it keeps; NumPy and SciPy as oracles."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn
from cnn.trust.corruptions import CORRUPTIONS, SEVERITIES, corrupt

SHAPES = (8, 8, 1), (9, 14, 3), (5, 7, 2)
OF_DEGREE = [name for name, entry in CORRUPTIONS.items() if len(entry.strengths) > 1]
SEVERITY = st.integers(1, SEVERITIES)


def _images(seed, shape, count=6):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def _corrupt(images, severity, name, seed=0):
    """With a new key each time, as JAX' check allows no key to be used twice."""
    return np.asarray(corrupt(images, severity, jax.random.key(seed), name=name))


@pytest.mark.parametrize("name", CORRUPTIONS)
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from(SHAPES), severity=SEVERITY)
def test_images_of_any_shape_stay_images_and_depend_on_the_key_alone(name, seed, shape, severity):
    images = _images(seed, shape)
    changed = _corrupt(images, severity, name, seed)
    assert changed.shape == images.shape and changed.dtype == np.uint8
    np.testing.assert_array_equal(_corrupt(images, severity, name, seed), changed)
    np.testing.assert_array_equal(_corrupt(images, 0, name, seed), images)
    floats = _corrupt(np.float32(images / 255), severity, name, seed)
    assert (np.abs(floats.astype(int) - changed) <= 1).mean() > 0.97


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_one_program_serves_all_severities(name, splits):
    """Which change the images more and more, with the same draws."""
    wrapper: Any = corrupt
    images, program = splits.test.images[:40], wrapper.__wrapped__
    first = _corrupt(images, 1, name)
    compiled = program._cache_size()
    others = [_corrupt(images, severity, name) for severity in range(2, SEVERITIES + 1)]
    assert program._cache_size() == compiled
    distances = [np.abs(images - changed.astype(float)).mean() for changed in (first, *others)]
    expected = np.all(np.diff(distances) > 0) if name in OF_DEGREE else len(set(distances)) == 1
    assert expected and distances[0] > 0.5, distances


@pytest.mark.parametrize("severity", range(1, SEVERITIES + 1))
def test_a_shift_equals_rolling_with_zeros_for_what_came_around(severity):
    # Of 28 pixels, each severity is one more.
    images, pixels = _images(1, (28, 28, 1), 40), severity
    padded, seen = np.pad(images, [(0, 0), (pixels, pixels), (pixels, pixels), (0, 0)]), set()
    moved = _corrupt(images, severity, "shift")
    for image, actual in zip(padded, moved, strict=True):
        rolled = {
            (down, right): np.roll(image, (down * pixels, right * pixels), (0, 1))[pixels:-pixels, pixels:-pixels]
            for down in (-1, 1)
            for right in (-1, 1)
        }
        matches = [signs for signs, expected in rolled.items() if np.array_equal(actual, expected)]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 4


@pytest.mark.parametrize("severity", range(1, SEVERITIES + 1))
def test_a_severity_means_the_same_for_images_of_twice_the_size(severity):
    images = _images(2, (28, 28, 1))
    larger = images.repeat(2, 1).repeat(2, 2)
    # The share of height and width that is left, and that is hidden.
    np.testing.assert_array_equal(
        _corrupt(larger, severity, "shift"), _corrupt(images, severity, "shift").repeat(2, 1).repeat(2, 2)
    )
    shares = [(_corrupt(pictures, severity, "occlusion") == 128).mean() for pictures in (larger, images)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_inversion_and_mirror_are_their_own_inverses():
    images = _images(3, (9, 14, 3))
    np.testing.assert_array_equal(_corrupt(images, 1, "inversion"), 255 - images)
    np.testing.assert_array_equal(_corrupt(images, 4, "mirror"), images[:, :, ::-1])
    for name in ("inversion", "mirror"):
        np.testing.assert_array_equal(_corrupt(_corrupt(images, 1, name), 1, name), images)


@pytest.mark.parametrize("severity", range(1, SEVERITIES + 1))
def test_brightness_and_contrast_equal_numpy(severity):
    images = _images(4, (9, 14, 3))
    added = images + 25.5 * severity
    np.testing.assert_allclose(_corrupt(images, severity, "brightness"), np.minimum(added, 255), atol=0.51)
    means, left = images.mean((1, 2), keepdims=True), CORRUPTIONS["contrast"].strengths[severity - 1]
    np.testing.assert_allclose(_corrupt(images, severity, "contrast"), means + left * (images - means), atol=0.51)


@pytest.mark.parametrize("severity", range(1, SEVERITIES + 1))
def test_blur_equals_scipys_without_what_is_outside(severity):
    images, sigma = _images(5, (20, 31, 3)).astype(float), 20 * CORRUPTIONS["blur"].strengths[severity - 1]
    options = {"sigma": sigma, "axes": (1, 2), "mode": "constant", "truncate": 9.0}
    expected = scipy.ndimage.gaussian_filter(images, **options)
    expected /= scipy.ndimage.gaussian_filter(np.ones_like(images), **options)
    np.testing.assert_allclose(_corrupt(images.astype(np.uint8), severity, "blur"), expected, atol=0.51)


@pytest.mark.parametrize("severity", range(1, SEVERITIES + 1))
def test_rotation_and_scale_equal_scipys_in_both_directions(severity):
    images = _images(6, (20, 31, 1), 12)
    degrees, factor = (CORRUPTIONS[name].strengths[severity - 1] for name in ("rotation", "scale"))

    def scaled(image, factor):
        matrix = np.array([1 / factor, 1 / factor, 1])
        # SciPy's annotation knows numbers only.
        offset: Any = np.array([9.5, 15, 0]) * (1 - matrix)
        return scipy.ndimage.affine_transform(image, matrix, offset, order=1, mode="grid-constant")

    def rotated(image, degrees):
        return scipy.ndimage.rotate(image, degrees, order=1, mode="grid-constant", reshape=False)

    for name, function, pair in (("rotation", rotated, (degrees, -degrees)), ("scale", scaled, (factor, 1 / factor))):
        seen = set()
        for image, actual in zip(images.astype(float), _corrupt(images, severity, name), strict=True):
            distances = [np.abs(function(image, value) - actual).max() for value in pair]
            assert min(distances) < 0.6 < 2 < max(distances)
            seen.add(int(np.argmin(distances)))
        assert seen == {0, 1}


def test_occlusion_is_one_grey_rectangle_and_keeps_the_rest():
    images = np.minimum(_images(7, (20, 30, 3), 50), 127)
    hidden = _corrupt(images, 3, "occlusion") == 128
    places = set()
    for image, actual, mask in zip(images, _corrupt(images, 3, "occlusion"), hidden, strict=True):
        rows, columns = np.flatnonzero(mask.any((1, 2))), np.flatnonzero(mask.any((0, 2)))
        assert len(rows) == 8 and len(columns) == 12 and mask.sum() == 8 * 12 * 3
        np.testing.assert_array_equal(actual[~mask], image[~mask])
        places.add((rows[0], columns[0]))
    assert len(places) > 30


def test_noise_has_its_standard_deviation_and_no_mean():
    grey = np.full((40, 30, 30, 1), 128, np.uint8)
    change = _corrupt(grey, 1, "noise") - 128.0
    # Of 36,000 pixels: 5 standard errors; hardly any reaches the end of the range.
    assert abs(change.mean()) < 5 * 0.08 * 255 / 190 and change.std() == pytest.approx(0.08 * 255, rel=0.02)


@pytest.mark.parametrize(
    "images, severity, name, message",
    [
        (np.zeros((1, 4, 4, 1), np.uint8), 1, "snow", "name is 'snow', but must be one of noise, blur,"),
        (np.zeros((1, 4, 4, 1), np.uint8), 6, "blur", "severity is 6, but must be an integer from 0 to 5"),
        (np.zeros((1, 4, 4, 1), np.uint8), -1, "blur", "severity is -1, but must be an integer from 0 to 5"),
        (np.zeros((1, 4, 4, 1), np.uint8), 1.5, "blur", "severity is 1.5, but must be an integer from 0 to 5"),
        (np.zeros((1, 4, 4, 1), np.int32), 1, "blur", r"images are int32 \[1, 4, 4, 1\], but must be uint8, or float"),
        (np.zeros((4, 4, 1), np.uint8), 1, "blur", r"images are uint8 \[4, 4, 1\], but must be uint8, or float"),
    ],
)
def test_bad_values_are_one_line(images, severity, name, message):
    with pytest.raises(cnn.UserError, match=f"^{message}"):
        _corrupt(images, severity, name)


def test_a_severity_may_be_traced():
    images = jnp.asarray(_images(8, (8, 8, 1)))
    every = jax.vmap(lambda severity, key: corrupt(images, severity, key, name="contrast"))
    results = every(jnp.arange(6), jax.random.split(jax.random.key(0), 6))
    for severity, result in enumerate(results):
        np.testing.assert_array_equal(result, _corrupt(images, severity, "contrast"))
