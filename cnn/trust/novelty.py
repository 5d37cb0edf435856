"""How unlike the training images an image is: scores that need no retraining, and how well they tell images apart.

Every score is higher for what is more unknown. ``BEST`` is the one that ``predict`` uses. It was found with the digits,
noise and flat images of ``evaluate --unknown`` on one seed, and checked on other images: with the chapter's network,
trained on 12,000 images of eight classes, its AUROC is the highest of the four against bags and ankle boots, which were
left out (0.87; energy 0.72, distance in the last hidden layer 0.81), inverted images (1.00; 0.90 and 1.00) and images
turned by 90 degrees (0.98; 0.93 and 0.97). It is not always the best: against images upside down, the last hidden layer
is better (0.95; 0.75).
Against sneakers and shirts, which other classes resemble, none of the four is above 0.76. One seed each.
"""

from typing import NamedTuple

import numpy as np

from cnn.intervals import accuracy_interval, auroc_interval
from cnn.look.neighbours import nearest

BEST = "nearest_pooled"
"""Name of the score that ``predict`` uses: of ``SCORES``."""

SCORES = {
    "max_probability": "1 - highest probability",
    "energy": "energy",
    "nearest_hidden": "distance in {hidden}",
    "nearest_pooled": "distance in {pooled}",
}
"""What each score is, in a few words, with the names of the layers."""

ACCEPTED = 0.95
"""Share of known images that are accepted: the true-positive rate at which false positives are counted."""


def max_probability(logits_NxK: np.ndarray) -> np.ndarray:
    """Returns 1 minus the highest probability, float64 [N]: D. Hendrycks and K. Gimpel, arXiv:1610.02136, section 2."""
    shares_NxK = np.sort(np.exp(logits_NxK - logits_NxK.max(1, keepdims=True).astype(np.float64)), axis=1)
    # The sum of the others: 1 - 0.99999999 would be rounded, and many images would be equal.
    return shares_NxK[:, :-1].sum(1) / shares_NxK.sum(1)


def energy(logits_NxK: np.ndarray) -> np.ndarray:
    """Returns -log of the sum of exp(logits), float64 [N]: W. Liu et al., arXiv:2010.03759, section 3.1."""
    highest_N = logits_NxK.max(1).astype(np.float64)
    return -highest_N - np.log(np.exp(logits_NxK - highest_N[:, None]).sum(1))


def nearest_distance(train_MxF: np.ndarray, features_NxF: np.ndarray, k: int = 1) -> np.ndarray:
    """Returns the distance to the k-th nearest training image in a layer's outputs, float64 [N].

    Deep nearest neighbours: Y. Sun et al., arXiv:2204.06507, section 3, where the outputs are those of the last hidden
    layer. A ResNet's are the channel means of its last convolution, which are used here of any network, too.

    Args:
      train_MxF: outputs of the training images, each of length 1.
      features_NxF: outputs of other images, likewise.
      k: at least 1; the last one if there are fewer training images.
    """
    return nearest(train_MxF, features_NxF, k)[1][:, -1]


class Separation(NamedTuple):
    """How well a score tells unknown images from known ones."""

    images: int
    """Number of unknown images."""
    auroc: float
    """Probability that an unknown image has a higher score than a known one; equal scores count half."""
    auroc_interval: tuple[float, float]
    """Its 95 % interval."""
    fpr: float
    """Share of the unknown images that are accepted with the threshold that accepts 95 % of the known ones."""
    fpr_interval: tuple[float, float]
    """Its 95 % interval, for that threshold."""
    flagged: float
    """Share of the unknown images above the run's threshold, which follows from the validation images."""


def auroc(known_N: np.ndarray, unknown_M: np.ndarray) -> float:
    """Returns the area under the ROC curve, exact with ties: the Mann-Whitney statistic U / (N M)."""
    ordered_N = np.sort(known_N)
    below, up_to = (np.searchsorted(ordered_N, unknown_M, side).sum(dtype=np.int64) for side in ("left", "right"))
    return float(below + up_to) / (2 * len(known_N) * len(unknown_M))


def threshold(known_N: np.ndarray, accepted: float = ACCEPTED) -> float:
    """Returns the lowest score that at least this share of the images do not exceed; one of the scores."""
    # Without the rounding of, for example, 0.95 x 20 = 19.000000000000004.
    rank = int(np.ceil(np.round(accepted * len(known_N), 9)))
    return float(np.sort(known_N)[max(rank, 1) - 1])


def separation(known_N: np.ndarray, unknown_M: np.ndarray, run_threshold: float) -> Separation:
    """Returns how well a score tells unknown images from known ones.

    Args:
      known_N: scores of test images of the known classes.
      unknown_M: scores of the unknown images.
      run_threshold: that of the run.
    """
    area, count = auroc(known_N, unknown_M), len(unknown_M)
    accepted = int((unknown_M <= threshold(known_N)).sum())
    return Separation(
        count,
        area,
        auroc_interval(area, len(known_N), count),
        accepted / count,
        accuracy_interval(accepted, count),
        float((unknown_M > run_threshold).mean()),
    )
