"""JPEG compression against Pillow's."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from cnn.trust.jpeg import jpeg

COMPILED = jax.jit(jpeg)


def _pillow(image, quality):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(file)).reshape(image.shape)


@pytest.fixture(scope="module")
def photo():
    """Smooth colours with some noise, of a size that fills no whole number of blocks."""
    rows, columns = np.mgrid[:45, :61]
    waves = np.sin(rows / 11 + columns / 7), np.cos(columns / 13), np.sin(rows / 5)
    noise = np.random.default_rng(0).normal(0, 8, (45, 61, 3))
    return np.clip(128 + 100 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def _compare(images, quality):
    """The share of the pixels within 2 levels of Pillow's, the mean distance from them, and from the images."""
    expected = np.stack([_pillow(image, quality) for image in images]).astype(float)
    actual = 255 * np.asarray(COMPILED(np.float32(images / 255), quality))
    distance = np.abs(actual - expected)
    return (distance < 2.01).mean(), distance.mean(), np.abs(actual - images).mean()


@pytest.mark.parametrize("quality", [7, 10, 15, 18, 25, 75])
def test_compression_equals_pillows(photo, splits, quality):
    """But for a few coefficients halfway between two steps, of which libjpeg's integers round some to the other one.

    Each changes the 64 pixels of its block, by a wave of the height of a step.
    """
    for images in (splits.test.images[:20], photo[None], photo[None, ..., :1]):
        near, distance, change = _compare(images, quality)
        assert near > 0.98 and distance < change / 25, (near, distance, change)


def test_an_image_without_detail_keeps_its_levels_within_rounding(photo):
    flat = np.arange(0, 256, 15, dtype=np.uint8).repeat(10 * 12).reshape(-1, 10, 12, 1)
    near, distance, _ = _compare(flat, 100)
    assert near == 1 and distance < 0.01
    np.testing.assert_allclose(COMPILED(np.float32(flat / 255), 100) * 255, flat, atol=0.51)


def test_channels_that_are_no_colours_are_compressed_one_by_one(photo):
    pair = (photo[None, ..., :2] / 255).astype(np.float32)
    both = COMPILED(pair, 25)
    for channel in range(2):
        alone = COMPILED(pair[..., channel : channel + 1], 25)
        np.testing.assert_allclose(both[..., channel : channel + 1], alone, atol=1e-6)
