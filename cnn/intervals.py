"""Confidence intervals: of an accuracy, of a difference of two accuracies, of a mean over seeds."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Z_95 = 1.959964
"""Half width of the central 95 % interval of a normal distribution, in standard deviations."""


RESAMPLES = 10_000
"""Number of bootstrap resamples."""


def accuracy_interval(correct: int, count: int) -> tuple[float, float]:
    """Returns the 95 % score interval of an accuracy, which stays within 0 and 1: E. B. Wilson, JASA 22 (1927)."""
    share, z2 = correct / count, Z_95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return middle - half, middle + half


def difference_interval(right: np.ndarray, other: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % interval of the accuracy of one network minus that of another, by a paired bootstrap.

    The images are resampled with replacement ``RESAMPLES`` times, each with the results of both networks: B. Efron and
    R. Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3, by percentiles.

    Args:
      right: whether the first network classifies each image correctly, bool [N].
      other: whether the second one does, for the same images in the same order.
      seed: seed of the resampling.
    """
    # A resample's difference is that of two counts: images that only the first, or only the second, has right.
    only, other_only = np.mean(right & ~other), np.mean(other & ~right)
    generator, count = np.random.default_rng(seed), len(right)
    counts = generator.multinomial(count, np.maximum([only, other_only, 1 - only - other_only], 0), RESAMPLES)
    low, high = np.percentile((counts[:, 0] - counts[:, 1]) / count, [2.5, 97.5])
    return float(low), float(high)


class Estimate(NamedTuple):
    """Statistics of a number over seeds."""

    mean: float
    std: float
    """Standard deviation over seeds, with n - 1; NaN for one seed."""
    low: float
    """Lower end of the 95 % interval of the mean, by Student's t; NaN for one seed."""
    high: float
    """Upper end of the same interval."""


def estimate(values: Sequence[float]) -> Estimate:
    """Returns mean, standard deviation and the 95 % interval of the mean."""
    from scipy.special import stdtrit

    mean, count = statistics.fmean(values), len(values)
    std = statistics.stdev(values) if count > 1 else float("nan")
    half = float(stdtrit(count - 1, 0.975)) * std / count**0.5 if count > 1 else float("nan")
    return Estimate(mean, std, mean - half, mean + half)
