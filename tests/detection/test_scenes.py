"""Scenes: the same bits everywhere, boxes as tight as the pixels are, garments that can be seen."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.detection import scenes
from cnn.detection.scenes import OBJECTS, SIDES, compose

SIDE = 96

DIGEST = "5eb22e4ae4a0132790870fb0c476913648d08855e14fb6dc95def011b16e2986"


@pytest.fixture(scope="module")
def blocks():
    """Images that are a block of one grey level each, so that a scene says which pixel is whose."""
    images = np.zeros((5, 28, 28, 1), np.uint8)
    for index in range(5):
        images[index, 4 : 24 - 2 * index, 2 + index : 26] = 100 + 30 * index
    return images, np.arange(5, dtype=np.int32)


@pytest.fixture(scope="module")
def composed(blocks):
    return jax.device_get(compose(jax.random.key(0), *blocks, 5, scenes=64, side=SIDE))


def test_scenes_have_the_same_bits_on_every_machine(blocks):
    images, labels = jax.device_get(compose(jax.random.key(3), *blocks, 5, scenes=8, side=SIDE))
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == DIGEST, (
        "scenes, and so the digests of runs, have changed"
    )


def test_a_scene_has_0_to_6_objects_and_its_boxes_are_whole_pixels_within_it(composed):
    images, labels = composed
    assert (images.shape, images.dtype) == ((64, SIDE, SIDE, 1), np.uint8)
    counts = (labels[..., 4] >= 0).sum(1)
    assert set(counts) == set(range(OBJECTS + 1))
    boxes = labels[labels[..., 4] >= 0]
    np.testing.assert_array_equal(boxes, boxes.round())
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:4] <= SIDE).all() and (boxes[:, 2:4] > boxes[:, :2]).all()
    assert (boxes[:, 2:4] - boxes[:, :2]).max() <= SIDES[1]
    assert (labels[labels[..., 4] < 0] == (0, 0, 0, 0, -1)).all()


def test_a_box_is_tight_around_the_pixels_of_its_object(monkeypatch, blocks):
    # Without clutter, slope and noise, only an object is light.
    monkeypatch.setattr(scenes, "_background", lambda key, side, channels: np.zeros((channels, side, side), np.int32))
    monkeypatch.setattr(scenes, "NOISE", 1)
    garments, classes = map(jnp.asarray, blocks)
    draw = jax.jit(jax.vmap(lambda key: scenes._scene(key, garments, classes, 5, SIDE)))
    images, labels = jax.device_get(draw(jax.random.split(jax.random.key(1), 64)))
    alone = (labels[..., 4] >= 0).sum(1) == 1
    assert alone.sum() > 3
    for image, rows in zip(images[alone], labels[alone], strict=True):
        x_min, y_min, x_max, y_max, label = rows[rows[:, 4] >= 0][0]
        # Half of the block's grey level: where half of a pixel is the object's.
        y, x = np.nonzero(image[..., 0] >= (100 + 30 * label) / 2)
        assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == (x_min, y_min, x_max, y_max)


def test_an_object_of_which_less_than_half_can_be_seen_is_left_out():
    solid = np.full((3, 28, 28, 1), 255, np.uint8)
    key, count, left_out = jax.random.key(2), 64, 0
    labels = jax.device_get(compose(key, solid, np.arange(3), 3, scenes=count, side=SIDE)[1])
    limits = jnp.array([3, SIDES[1] + 1 - SIDES[0], 2**20, 2**20, 2, scenes.NOISE * (OBJECTS + 1)])
    keys = jax.vmap(lambda key: jax.random.split(key, 3)[0])(jax.random.split(key, count))
    drawn = jax.device_get(jax.vmap(lambda key: scenes._integers(key, (OBJECTS, 6), limits))(keys))
    for objects, rows in zip(drawn, labels, strict=True):
        free, expected = np.ones((SIDE, SIDE), bool), np.tile(np.array([0, 0, 0, 0, -1]), (OBJECTS, 1))
        for number in range(objects[0, 5] // scenes.NOISE):
            label, size, y, x = objects[number, :4] + (0, SIDES[0], 0, 0)
            top, left = (place * (SIDE + 1 - size) >> 20 for place in (y, x))
            seen = np.zeros_like(free)
            seen[top : top + size, left : left + size] = free[top : top + size, left : left + size]
            if 2 * seen.sum() < size**2:
                left_out += 1
                continue
            free &= ~seen
            y, x = np.nonzero(seen)
            expected[number] = x.min(), y.min(), x.max() + 1, y.max() + 1, label
        np.testing.assert_array_equal(rows, expected)
    assert left_out > 5


def test_only_the_first_images_are_drawn_of_a_padded_batch(blocks):
    labels = jax.device_get(compose(jax.random.key(0), *blocks, 2, scenes=32, side=SIDE))[1][..., 4]
    assert set(np.unique(labels)) == {-1, 0, 1}


def test_another_key_makes_other_scenes_and_colour_is_kept(blocks, composed):
    colour = np.concatenate([blocks[0], blocks[0] // 2, blocks[0] // 4], -1)
    images, labels = jax.device_get(compose(jax.random.key(0), colour, blocks[1], 5, scenes=4, side=SIDE))
    assert images.shape == (4, SIDE, SIDE, 3)
    assert not np.array_equal(compose(jax.random.key(1), *blocks, 5, scenes=4, side=SIDE)[1], labels)
    assert (images[..., 0] != images[..., 2]).any()
