"""t-SNE against scikit-learn's measure of it, and on groups that nobody could mix up."""

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from cnn.look.tsne import affinities, embed


def _groups(count=150, groups=3, dimensions=20):
    """Points round centres that are far from each other, and the number of each one's centre."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % groups
    centres = rng.normal(0, 10, (groups, dimensions))
    return (centres[labels] + rng.normal(0, 1, (count, dimensions))).astype(np.float32), labels


def test_groups_stay_groups_and_neighbours_stay_neighbours():
    points, labels = _groups()
    plane = np.asarray(embed(points))
    assert plane.shape == (150, 2) and np.isfinite(plane).all()
    apart = np.linalg.norm(plane[:, None] - plane, axis=-1)
    same = labels[:, None] == labels
    assert apart[same].max() < apart[~same].min()
    # That of the two principal components is 0.85.
    assert trustworthiness(points, plane, n_neighbors=10) > 0.9
    np.testing.assert_array_equal(embed(points), plane)


@pytest.mark.parametrize("perplexity", [5.0, 30.0])
def test_affinities_are_symmetric_and_have_the_perplexity_that_is_asked_for(perplexity):
    """Of points on a circle, every one sees the others alike, so that the symmetric affinities are the plain ones."""
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    found = np.asarray(affinities(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32), perplexity))
    np.testing.assert_allclose(found, found.T, atol=1e-9)
    assert found.sum() == pytest.approx(1, abs=1e-4) and not np.diag(found).any()
    shares = found[0][1:] * 100
    assert np.exp(-(shares * np.log(np.maximum(shares, 1e-30))).sum()) == pytest.approx(perplexity, rel=0.01)


@pytest.mark.parametrize("points", [np.zeros((20, 4)), np.eye(3), np.ones((8, 1)) * np.arange(8)[:, None]])
def test_few_equal_or_one_dimensional_points_are_numbers_all_the_same(points):
    assert np.isfinite(embed(points)).all()
