"""t-SNE against scikit-learn's trustworthiness, and on well separated groups."""

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from cnn.look.tsne import affinities, embed


def _groups(count=150, groups=3, dimensions=20):
    """Points around distant centres, and the index of each point's centre."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % groups
    centres = rng.normal(0, 10, (groups, dimensions))
    return (centres[labels] + rng.normal(0, 1, (count, dimensions))).astype(np.float32), labels


def test_groups_and_neighbours_are_preserved():
    points, labels = _groups()
    plane = np.asarray(embed(points))
    assert plane.shape == (150, 2) and np.isfinite(plane).all()
    distances = np.linalg.norm(plane[:, None] - plane, axis=-1)
    same = labels[:, None] == labels
    assert distances[same].max() < distances[~same].min()
    # The two principal components have 0.85.
    assert trustworthiness(points, plane, n_neighbors=10) > 0.9
    np.testing.assert_array_equal(embed(points), plane)


@pytest.mark.parametrize("perplexity", [5.0, 30.0])
def test_affinities_are_symmetric_with_the_given_perplexity(perplexity):
    """All points on a circle have the same distances, so the joint probabilities are the conditional ones over N."""
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    joint = np.asarray(affinities(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32), perplexity))
    np.testing.assert_allclose(joint, joint.T, atol=1e-9)
    assert joint.sum() == pytest.approx(1, abs=1e-4) and not np.diag(joint).any()
    shares = joint[0][1:] * 100
    assert np.exp(-(shares * np.log(np.maximum(shares, 1e-30))).sum()) == pytest.approx(perplexity, rel=0.01)


@pytest.mark.parametrize(
    "points",
    [np.zeros((20, 4)), np.eye(3), np.arange(8.0)[:, None]],
    ids=["equal", "few", "one-dimensional"],
)
def test_few_equal_or_one_dimensional_points_stay_finite(points):
    assert np.isfinite(embed(points)).all()
