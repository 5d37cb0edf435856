"""Confidence intervals against closed forms, and against the bootstrap that they abbreviate."""

import numpy as np
import pytest

from cnn import intervals


def test_the_accuracy_interval_is_wilsons():
    """Of 8 in 10: (0.8 + 0.1921 +- 1.96 sqrt(0.016 + 0.0096)) / 1.3841, to three digits."""
    assert intervals.accuracy_interval(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert intervals.accuracy_interval(10, 10)[1] == pytest.approx(1)


@pytest.mark.parametrize(("ours", "theirs", "both"), [(900, 850, 8000), (30, 60, 500), (5, 5, 90)])
def test_the_difference_interval_has_mcnemars_variance(ours, theirs, both):
    """The normal approximation of a paired difference: sqrt(b + c - (b - c)^2 / n) / n."""
    count = ours + theirs + both + 50
    right = np.repeat([True, False, True, False], [ours, theirs, both, 50])
    other = np.repeat([False, True, True, False], [ours, theirs, both, 50])
    low, high = intervals.difference_interval(right, other)
    half = 1.96 * np.sqrt(ours + theirs - (ours - theirs) ** 2 / count) / count
    # To a tenth: both ends are estimates from resamples, on a grid of 1 / n.
    assert (low + high) / 2 == pytest.approx((ours - theirs) / count, abs=0.1 * half + 1 / count)
    assert (high - low) / 2 == pytest.approx(half, abs=0.1 * half + 1 / count)
    assert intervals.difference_interval(right, other) == (low, high)


def test_resampling_counts_equals_resampling_images():
    """The same interval from resampled images, each with the predictions of both networks."""
    rng = np.random.default_rng(5)
    right, other = rng.random(400) < 0.8, rng.random(400) < 0.7
    samples = rng.integers(0, 400, (4000, 400))
    expected = np.percentile(right[samples].mean(1) - other[samples].mean(1), [2.5, 97.5])
    np.testing.assert_allclose(intervals.difference_interval(right, other), expected, atol=0.006)


def test_a_network_has_no_difference_from_itself():
    right = np.array([True, False, True])
    assert intervals.difference_interval(right, right) == (0, 0)
    # Two that agree on no image; their shares sum to more than 1 by a rounding error.
    right = np.arange(5) < 4
    low, high = intervals.difference_interval(right, ~right)
    assert -1 <= low < 0.6 < high <= 1
