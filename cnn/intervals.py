"""Confidence intervals: of an accuracy, of a difference of two accuracies, of an AUROC, of a mean over seeds."""

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


def auroc_interval(area: float, first: int, second: int) -> tuple[float, float]:
    """Returns the 95 % score interval of an area under the ROC curve, which stays within 0 and 1.

    The areas from which the given one is at most 1.96 standard errors away, with the standard error of J. A. Hanley and
    B. J. McNeil, Radiology 143 (1982), at the area in question, not at the estimate: R. G. Newcombe, Statistics in
    Medicine 25 (2006), page 559, method 5. So an area of 1 does not have an interval of width 0.

    Args:
      area: the estimate.
      first: number of images of one kind.
      second: number of images of the other kind.
    """

    def distance(other: float) -> float:
        """How many standard errors, squared, an area is away from the estimate, relative to 1.96 of them."""
        pairs = (first + second) / 2 - 1
        variance = other * (1 - other) * (1 + pairs * ((1 - other) / (2 - other) + other / (1 + other)))
        return (area - other) ** 2 * first * second - Z_95**2 * variance

    def end(bound: float) -> float:
        """Halves the distance from the estimate to 0 or 1 until it is that of the interval's end."""
        inside, outside = area, bound
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if distance(middle) > 0 else (middle, outside)
        return outside

    return end(0.0), end(1.0)


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
