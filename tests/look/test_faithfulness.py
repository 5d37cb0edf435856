"""Deletion and insertion curves: their ends, the order of the pixels, and the best order for a linear network."""

from itertools import combinations

import numpy as np
import pytest

import cnn
from cnn.look import faithfulness
from cnn.look.attribution import integrated_gradients
from cnn.look.faithfulness import RANDOM, STEPS, Curves, deletion_and_insertion, explain
from tests.look.networks import linear_state, softmax

GENERATOR = np.random.default_rng(0)


def _counts(pixels):
    return [round(pixels * step / STEPS) for step in range(STEPS + 1)]


def test_curves_lead_from_the_image_to_black_and_back(state, small):
    images, labels = small.test.images[:3], np.array([9, 2, 1])
    curves = deletion_and_insertion(state, images, labels, GENERATOR.normal(size=(3, 28, 28)))
    whole, black = (np.asarray(cnn.predict(state, batch))[range(3), labels] for batch in (images, 0 * images))
    for start, end, curve in ((whole, black, curves.deletion), (black, whole, curves.insertion)):
        assert curve.shape == (3, STEPS + 1)
        np.testing.assert_allclose(curve[:, 0], start, rtol=1e-6)
        np.testing.assert_allclose(curve[:, -1], end, rtol=1e-6)


def test_equal_pixels_are_taken_in_reading_order():
    kernel, images = GENERATOR.normal(size=(3, 5, 3, 2)), GENERATOR.integers(0, 256, (1, 3, 5, 3), np.uint8)
    state, labels = linear_state(kernel), np.array([1])
    curves = deletion_and_insertion(state, images, labels, np.ones((1, 3, 5)))
    for number, count in enumerate(_counts(15)):
        deleted, inserted = images.copy(), np.zeros_like(images)
        for pixel in range(count):
            place = 0, *divmod(pixel, 5)
            deleted[place], inserted[place] = 0, images[place]
        for curve, masked in zip(curves, (deleted, inserted), strict=True):
            expected = softmax(np.tensordot(masked / 255, kernel, 3))[0, 1]
            np.testing.assert_allclose(curve[0, number], expected, rtol=1e-4)


def test_integrated_gradients_are_the_best_order_for_a_linear_network():
    """Of two classes with opposite weights, no set of as many pixels lowers or raises the probability more."""
    weights = GENERATOR.normal(size=(2, 3, 1))
    state, images = linear_state(np.stack([-weights, weights], -1)), GENERATOR.integers(50, 256, (1, 2, 3, 1), np.uint8)
    maps = np.asarray(integrated_gradients(state, images, np.array([1]))).sum(-1)
    deletion, insertion = deletion_and_insertion(state, images, np.array([1]), maps)
    products = (images[0] / 255 * weights).ravel()
    for number, count in enumerate(_counts(6)):
        sums = np.array([sum(products[list(pixels)]) for pixels in combinations(range(6), count)])
        best = (1 / (1 + np.exp(-2 * (products.sum() - sums)))).min(), (1 / (1 + np.exp(-2 * sums))).max()
        np.testing.assert_allclose((deletion[0, number], insertion[0, number]), best, rtol=1e-4)
    reverse = deletion_and_insertion(state, images, np.array([1]), -maps).areas
    areas = Curves(deletion, insertion).areas
    assert areas.deletion[0] < reverse.deletion[0] and areas.insertion[0] > reverse.insertion[0]


def test_areas_are_those_of_the_lines_between_the_points():
    fall, step = np.linspace(1, 0, 5), np.array([1.0, 1, 0, 0, 0])
    areas = Curves(np.stack([fall, step]), np.full((2, 5), 0.3)).areas
    np.testing.assert_allclose(areas.deletion, [0.5, 1.5 / 4])
    np.testing.assert_allclose(areas.insertion, [0.3, 0.3])


@pytest.mark.parametrize("pixels", [1, 24, 1000])
def test_any_number_of_images_is_explained_in_parts(monkeypatch, pixels):
    state = linear_state(GENERATOR.normal(size=(3, 4, 1, 2)))
    images, labels = GENERATOR.integers(0, 256, (5, 3, 4, 1), np.uint8), np.array([0, 1, 1, 0, 1])
    monkeypatch.setattr(faithfulness, "BATCH_PIXELS", pixels)
    explained = explain(state, images, labels, None)
    assert list(explained) == ["Integrated gradients", "SmoothGrad", "Occlusion", RANDOM]
    for one in explained.values():
        expected = deletion_and_insertion(state, images, labels, one.maps)
        np.testing.assert_allclose(one.curves.deletion, expected.deletion, rtol=1e-5)
        np.testing.assert_allclose(one.curves.insertion, expected.insertion, rtol=1e-5)
    # One order, which has each pixel once, for all images.
    assert sorted(explained[RANDOM].maps[0].ravel()) == list(range(12))
    assert (explained[RANDOM].maps == explained[RANDOM].maps[0]).all()
