"""Intervals of numbers that were measured: an accuracy, a difference of two, a mean over seeds."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Z_95 = 1.959964
"""Standard deviations on each side of a normal distribution's mean within which 95 % of it lie."""


RESAMPLES = 10_000
"""Of a bootstrap."""


def accuracy_interval(correct: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of an accuracy: E. B. Wilson, JASA 22 (1927), which stays within 0 and 1."""
    share, z2 = correct / count, Z_95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return middle - half, middle + half


def difference_interval(right: np.ndarray, other: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % interval of how much more accurate one network is than another, by a paired bootstrap.

    The images are drawn anew with replacement, ``RESAMPLES`` times, each with what both networks make of it: B. Efron
    and R. Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3, by percentiles.

    Args:
      right: whether the one classifies each image rightly, bool [N].
      other: whether the other does, of the same images in the same order.
      seed: of the draws.
    """
    # A draw's difference is that of two counts: the images that only the one, and only the other, has right.
    only, other_only = np.mean(right & ~other), np.mean(other & ~right)
    generator, count = np.random.default_rng(seed), len(right)
    drawn = generator.multinomial(count, np.maximum([only, other_only, 1 - only - other_only], 0), RESAMPLES)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / count, [2.5, 97.5])
    return float(low), float(high)


class Estimate(NamedTuple):
    """What a number is over the seeds."""

    mean: float
    std: float
    """Standard deviation of a seed, with n - 1; NaN for one seed."""
    low: float
    """Lower end of the 95 % interval of the mean, by Student's t; NaN for one seed."""
    high: float
    """Its upper end."""


def estimate(values: Sequence[float]) -> Estimate:
    """Returns mean, standard deviation and the 95 % interval of the mean."""
    from scipy.special import stdtrit

    mean, count = statistics.fmean(values), len(values)
    std = statistics.stdev(values) if count > 1 else float("nan")
    half = float(stdtrit(count - 1, 0.975)) * std / count**0.5 if count > 1 else float("nan")
    return Estimate(mean, std, mean - half, mean + half)
