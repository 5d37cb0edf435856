"""Properties of the augmentations for photographs: what each keeps, and Pillow, SciPy and colorsys as its oracles."""

import colorsys
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

import cnn
from cnn.training import photos
from cnn.training.augment import augment

EACH = {
    "crop": cnn.AugmentConfig(crop=0.25),
    "rotate": cnn.AugmentConfig(rotate=30.0),
    "colour": cnn.AugmentConfig(colour=0.4),
    "trivial": cnn.AugmentConfig(trivial=True),
}
NO_STRENGTH = {
    "crop": lambda key, images: photos.crop(key, images, 1.0),
    "rotate": lambda key, images: photos.rotate(key, images, 0.0),
    "colour": lambda key, images: photos.colour(key, images, 0.0),
}
SHAPES = (8, 8, 1), (9, 14, 3)
COMPILED = jax.jit(augment, static_argnames="config")
OPERATIONS = jax.jit(photos.apply_operations)


def _images(seed, shape, count=6):
    """Images of whole levels, black and white among them."""
    levels = np.random.default_rng(seed).integers(0, 256, (count, *shape))
    return jnp.asarray(levels / 255, jnp.float32)


@pytest.mark.parametrize("config", EACH.values(), ids=EACH)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from(SHAPES))
def test_shape_dtype_range_and_labels_are_kept(config, seed, shape):
    images, targets = _images(seed, shape), jnp.eye(6)
    changed, same_targets = COMPILED(jax.random.key(seed), images, targets, config)
    again, _ = COMPILED(jax.random.key(seed), images, targets, config)
    assert changed.shape == images.shape and changed.dtype == images.dtype
    assert changed.min() >= 0 and changed.max() <= 1 and jnp.isfinite(changed).all()
    np.testing.assert_array_equal(same_targets, targets)
    np.testing.assert_array_equal(changed, again)


@pytest.mark.parametrize("config", EACH.values(), ids=EACH)
def test_each_image_draws_its_own(config):
    images = jnp.repeat(_images(0, (9, 14, 3), 1), 6, 0)
    first, other = (COMPILED(jax.random.key(seed), images, jnp.eye(6), config)[0] for seed in (1, 2))
    assert len(np.unique(np.asarray(first).reshape(6, -1), axis=0)) > 3
    assert (first != other).any()


@pytest.mark.parametrize("function", NO_STRENGTH.values(), ids=NO_STRENGTH)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_strength_changes_no_bit(function, shape):
    images = _images(3, shape)
    np.testing.assert_array_equal(jax.jit(function)(jax.random.key(3), images), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_trivial_operations_without_strength_change_no_bit(channels):
    kept = [i for i, name in enumerate(photos.TRIVIAL) if name not in ("autocontrast", "equalize")]
    images = _images(4, (20, 31, channels))
    for operations in np.split(np.array(kept), 2):
        np.testing.assert_array_equal(OPERATIONS(images, jnp.asarray(operations), jnp.zeros(6)), images)


@pytest.mark.parametrize("config", EACH.values(), ids=EACH)
def test_grey_images_of_three_channels_stay_grey(config):
    images = jnp.repeat(_images(5, (9, 14, 1)), 3, -1)
    for seed in range(10):
        changed, _ = COMPILED(jax.random.key(seed), images, jnp.eye(6), config)
        np.testing.assert_allclose(np.ptp(changed, -1), 0, atol=2e-6)


def test_cropped_gradient_is_part_of_the_gradient():
    """In an image whose values are its rows or columns, the part's share and position can be read."""
    rows, columns = jnp.indices((16, 24)) / 32
    images = jnp.repeat(jnp.stack([rows, columns], -1)[None], 200, 0)
    cropped = np.asarray(jax.jit(photos.crop, static_argnums=2)(jax.random.key(6), images, 0.3)) * 32
    # Away from the edge, whose pixels have no neighbours outside.
    share_y = (cropped[:, 10, 12, 0] - cropped[:, 5, 12, 0]) / 5
    share_x = (cropped[:, 8, 14, 1] - cropped[:, 8, 9, 1]) / 5
    area, ratio = share_y * share_x, share_y / share_x
    assert 0.3 - 1e-3 < area.min() < 0.35 and 0.95 < area.max() < 1 + 1e-3
    assert 3 / 4 - 1e-2 < ratio.min() < 0.8 and 1.25 < ratio.max() < 4 / 3 + 1e-2


def test_rotation_by_right_angles_equals_numpy():
    images, turns = _images(7, (9, 9, 3), 3), np.array([-1, 1, 2])
    # The matrix leads from each pixel to the one that it comes from.
    rotated = photos.warp(images, photos.rotations(jnp.asarray(-turns * np.pi / 2)), jnp.zeros((3, 2)))
    expected = [np.rot90(image, turn) for image, turn in zip(images, turns, strict=True)]
    np.testing.assert_allclose(rotated, expected, atol=1e-5)


@pytest.mark.parametrize(
    "name, matrix, shift",
    [
        ("rotate", lambda s: [[np.cos(s * 2.3562), -np.sin(s * 2.3562)], [np.sin(s * 2.3562), np.cos(s * 2.3562)]], 0),
        ("shear_x", lambda s: [[1, 0], [0.99 * s, 1]], 0),
        ("shear_y", lambda s: [[1, 0.99 * s], [0, 1]], 0),
        ("translate_x", lambda s: np.eye(2), [0, 31]),
        ("translate_y", lambda s: np.eye(2), [20, 0]),
    ],
)
def test_trivial_geometry_equals_scipy(name, matrix, shift):
    images, strengths = _images(8, (20, 31, 3)), np.linspace(-1, 1, 6)
    moved = OPERATIONS(images, jnp.full(6, photos.TRIVIAL.index(name)), jnp.asarray(strengths, jnp.float32))
    center = np.array([9.5, 15])
    for image, result, strength in zip(np.asarray(images), moved, strengths, strict=True):
        linear = np.asarray(matrix(strength))
        # SciPy's annotation knows numbers only.
        offset: Any = center - linear @ center + strength * np.asarray(shift)
        for channel in range(3):
            expected = scipy.ndimage.affine_transform(
                image[..., channel], linear, offset, order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(result[..., channel], expected, atol=1e-4)


PILLOW = {
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.99 * s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.99 * s),
    "colour": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.99 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.99 * s),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(abs(s) * 6)),
    "solarize": lambda image, s: ImageOps.solarize(image, 256 * (1 - abs(s))),
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
}


@pytest.mark.parametrize("name", PILLOW)
@pytest.mark.parametrize("channels", [1, 3])
def test_trivial_photometry_equals_pillow(name, channels):
    strengths = np.array([-1, -0.4, 0, 0.3, 0.7, 1])
    # Neither black nor white, so that autocontrast has something to stretch.
    images = 0.1 + 0.7 * _images(9, (20, 31, channels))
    levels = np.asarray(jnp.round(images * 255), np.uint8)
    changed = OPERATIONS(
        jnp.asarray(levels / 255, jnp.float32),
        jnp.full(6, photos.TRIVIAL.index(name)),
        jnp.asarray(strengths, jnp.float32),
    )
    for image, result, strength in zip(levels, np.asarray(changed), strengths, strict=True):
        pillow = PILLOW[name](Image.fromarray(image[..., 0] if channels == 1 else image), strength)
        expected = np.asarray(pillow).reshape(image.shape)
        # Pillow rounds the grey image and the result to whole levels.
        np.testing.assert_allclose(result * 255, expected, atol=0.01 if name in ("posterize", "solarize") else 2.01)


def test_hue_turns_as_in_colorsys():
    """In YIQ: luma and the distance from grey stay, and the angle turns."""
    images, turns = 0.4 + 0.2 * _images(10, (2, 2, 3), 3), np.array([-0.25, 0.1, 0.25])
    turned = photos._recolour(images, jnp.asarray(turns, jnp.float32), jnp.ones(3))
    for image, result, turn in zip(np.asarray(images), np.asarray(turned), turns, strict=True):
        for before, after in zip(image.reshape(-1, 3).tolist(), result.reshape(-1, 3).tolist(), strict=True):
            (y0, i0, q0), (y1, i1, q1) = colorsys.rgb_to_yiq(*before), colorsys.rgb_to_yiq(*after)
            ratio = complex(i1, q1) / complex(i0, q0)
            # Its coefficients have two digits.
            assert y1 == pytest.approx(y0, abs=5e-3) and abs(ratio) == pytest.approx(1, abs=0.1)
            assert np.angle(ratio * np.exp(-2j * np.pi * turn)) == pytest.approx(0, abs=0.1)


def test_each_operation_is_drawn_about_equally_often(monkeypatch):
    drawn = []
    monkeypatch.setattr(photos, "apply_operations", lambda _, *draws: drawn.extend(map(np.asarray, draws)))
    photos.trivial(jax.random.key(11), jnp.zeros((2800, 8, 8, 1)))
    operations, strengths = drawn
    # Binomial: 200 +- 5 standard deviations of 13.6.
    counts = np.bincount(operations, minlength=len(photos.TRIVIAL))
    assert len(counts) == 14 and counts.min() > 132 and counts.max() < 268
    np.testing.assert_allclose(np.unique(strengths), np.arange(-30, 31) / 30, atol=1e-6)


@pytest.mark.parametrize("field", ["rotate", "colour"])
def test_trivial_with_an_operation_that_it_includes_is_refused(field):
    with pytest.raises(cnn.ConfigError, match="--augment.trivial is True, but must be false with rotate or colour"):
        dataclasses.replace(EACH[field], trivial=True)


@pytest.mark.parametrize("field, value", [("crop", 1.01), ("crop", 0.001), ("rotate", 181), ("colour", -0.1)])
def test_strength_out_of_bounds_is_refused(field, value):
    with pytest.raises(cnn.ConfigError, match=f"--augment.{field} is {value}, but must be"):
        cnn.AugmentConfig(**{field: value})
