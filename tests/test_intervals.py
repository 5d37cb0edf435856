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


def test_the_auroc_interval_at_one_half_has_the_mann_whitney_variance():
    """Without a difference, U / (n m) has the variance (n + m + 1) / (12 n m), exactly."""
    low, high = intervals.auroc_interval(0.5 + 1.959964 * np.sqrt(141 / (12 * 60 * 80)), 60, 80)
    assert low == pytest.approx(0.5, abs=1e-9) and high > 0.5


def test_the_auroc_interval_of_one_pair_is_that_of_an_accuracy():
    assert intervals.auroc_interval(1.0, 1, 1) == pytest.approx(intervals.accuracy_interval(1, 1))


@pytest.mark.parametrize("area", [0, 0.02, 0.3, 0.98, 1])
def test_the_auroc_interval_stays_within_0_and_1_and_contains_the_area(area):
    low, high = intervals.auroc_interval(area, 30, 50)
    assert 0 <= low <= area <= high <= 1 and high - low > 0.01
    assert intervals.auroc_interval(1 - area, 50, 30) == pytest.approx((1 - high, 1 - low))


def test_the_auroc_interval_covers_the_true_area():
    """Scores of two normal distributions; of 400 intervals, 95 % should contain the area, give or take 3 %."""
    rng, true = np.random.default_rng(0), 0.7602499389
    known, unknown = rng.normal(size=(400, 60)), rng.normal(1, size=(400, 40))
    areas = (unknown[:, None] > known[:, :, None]).mean((1, 2))
    ends = np.array([intervals.auroc_interval(area, 60, 40) for area in areas])
    assert ((ends[:, 0] <= true) & (true <= ends[:, 1])).mean() == pytest.approx(0.95, abs=0.03)
