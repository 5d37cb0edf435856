"""The nearest training images against brute force, scikit-learn, and images that are their own neighbours."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.neighbors import NearestNeighbors

import cnn
from cnn.look import neighbours
from cnn.look.features import feature_maps, pooled_outputs
from cnn.training.state import abstract_state
from cnn.training.summary import layer_table


@given(arrays.arrays(np.int8, st.tuples(st.integers(1, 12), st.just(3))), st.integers(1, 15))
def test_neighbours_are_those_of_brute_force_also_with_ties(points, count):
    found, distances = neighbours.nearest(points, points[::-1], count)
    exact = np.linalg.norm(points[None].astype(float) - points[::-1, None], axis=2)
    expected = np.sort(exact, axis=1)[:, :count]
    np.testing.assert_allclose(distances, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(exact, found, 1), expected, rtol=1e-12, atol=1e-12)
    assert all(len(set(row)) == min(count, len(points)) for row in found)


def test_neighbours_in_parts_are_those_of_scikit_learn(monkeypatch):
    rng = np.random.default_rng(0)
    train, queries = rng.normal(size=(300, 8)).astype(np.float32), rng.normal(size=(101, 8)).astype(np.float32)
    oracle = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(train.astype(float))
    distances, indices = oracle.kneighbors(queries.astype(float))
    monkeypatch.setattr(neighbours, "_DISTANCES", 7 * 300)
    found, ours = neighbours.nearest(train, queries)
    np.testing.assert_array_equal(found, indices)
    np.testing.assert_allclose(ours, distances, rtol=1e-6)


def test_a_training_image_is_its_own_nearest_at_distance_0():
    train = neighbours.unit(np.random.default_rng(0).normal(size=(50, 40)))
    found, distances = neighbours.nearest(train, train, 1)
    np.testing.assert_array_equal(found[:, 0], np.arange(50))
    assert not distances.any()


def test_zeros_have_no_direction_and_remain_zeros():
    np.testing.assert_array_equal(
        neighbours.unit(np.array([[0, 0], [3, 4]])), np.array([[0, 0], [0.6, 0.8]], np.float32)
    )


@pytest.mark.parametrize(("count", "most"), [(5, 9), (10, 4), (48_000, 5_000), (3, 0)])
def test_evenly_spaced_images_are_different_and_reach_over_all(count, most):
    indices = neighbours.evenly_spaced(count, most)
    assert len(set(indices)) == len(indices) == max(1, min(count, most))
    assert indices[0] == 0 and count - indices[-1] <= -(-count // len(indices))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (cnn.ModelConfig(), "pool2"),
        (cnn.DenseConfig(features=(8,)), "dense1"),
        (cnn.ResNetConfig(blocks=(1, 1, 1), features=4), "block3"),
        (cnn.ViTConfig(blocks=1, features=8, heads=2), "norm"),
    ],
    ids=lambda value: getattr(value, "family", ""),
)
def test_the_pooled_layer_is_the_last_one_with_pixels_or_tokens(config, model, expected):
    rows = layer_table(abstract_state(dataclasses.replace(config, model=model), 500))
    assert neighbours.last_pooled_layer(rows) == expected


def test_pooled_outputs_are_channel_means_whatever_the_parts(state, small, monkeypatch):
    images = small.test.images[:7]
    maps = feature_maps(state, images)
    monkeypatch.setattr("cnn.look.features.POOLED_PIXELS", 5 * 28 * 28)
    logits, pooled = pooled_outputs(state, images, ("pool2", "dense"))
    np.testing.assert_allclose(logits, maps["logits"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled["pool2"], np.asarray(maps["pool2"]).mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled["dense"], maps["dense"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("is_there", "warnings"), [(True, 1), (False, 0)])
def test_images_that_are_there_but_damaged_are_a_warning(
    state, config, small, tmp_path, monkeypatch, is_there, warnings
):
    def damaged(run_dir):
        raise cnn.DataError("labels.csv is damaged")

    monkeypatch.setattr(neighbours, "is_there", lambda data: is_there)
    monkeypatch.setattr(neighbours, "load_images", damaged)
    said = []
    drawings = neighbours.neighbours_figure(
        tmp_path, config, state, small.test.images[0], "pool2", "boot.png", said.append
    )
    assert drawings == {} and said == ["no figure of the nearest training images: labels.csv is damaged"] * warnings
