"""Confident learning: which labels are wrong, from probabilities of networks that have not seen them.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", arXiv:1911.00068.
"""

from typing import NamedTuple

import numpy as np

RECALL = 0.9
"""Share of randomly wrong labels that become suspects, unless the network agrees with them."""

TOLERANCE = 1e-6
"""By which a probability may be below its threshold, as the mean of equal probabilities is rounded."""


class Suspects(NamedTuple):
    """Images whose label is doubtful, the most doubtful first."""

    images: np.ndarray
    """Positions in the arrays, integers [M]."""
    suggestions: np.ndarray
    """The most probable class of each, integers [M]."""
    threshold: float
    """Highest probability of a suspect's label."""


def find_suspects(probabilities_NxK: np.ndarray, labels_N: np.ndarray, recall: float = RECALL) -> Suspects:
    """Returns the images whose label the network finds as improbable as labels that are certainly wrong.

    An image is a suspect if another class is more probable, and the probability of its label (its self-confidence) is
    at most the threshold. The threshold is the ``recall`` quantile of the probabilities of all other classes of all
    images: of labels drawn at random, that share is below it. As no network has seen the images, this holds for
    wrong labels in the data too, whatever the network; how many right labels are below it is the network's matter.

    The paper's own rule (section 3.2), the off-diagonal entries of the confident joint, also lists what is between
    two similar classes, and spares what is confidently no member of its class, but of no other class either.

    Args:
      probabilities_NxK: out of sample, rows sum to 1.
      labels_N: given labels, integers.
      recall: share of randomly wrong labels below the threshold, 0 to 1.
    """
    rows_N = np.arange(len(labels_N))
    of_label_N = probabilities_NxK[rows_N, labels_N]
    is_other_NxK = np.ones(probabilities_NxK.shape, bool)
    is_other_NxK[rows_N, labels_N] = False
    threshold = float(np.quantile(probabilities_NxK[is_other_NxK], recall))
    predicted_N = probabilities_NxK.argmax(1)
    doubtful = np.flatnonzero((of_label_N <= threshold) & (predicted_N != labels_N))
    ranked_M = doubtful[np.argsort(of_label_N[doubtful], kind="stable")]
    return Suspects(ranked_M, predicted_N[ranked_M], threshold)


def confident_classes(probabilities_NxK: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Returns the class that each image is confidently of, integers [N]; -1 for none (section 3.1, equation 1).

    A class is confident if its probability is at least its mean over the images that have it as their label. Of
    several, it is the most probable of all classes.
    """
    sums_K = np.zeros(probabilities_NxK.shape[1])
    np.add.at(sums_K, labels_N, probabilities_NxK[np.arange(len(labels_N)), labels_N].astype(float))
    counts_K = np.bincount(labels_N, minlength=len(sums_K))
    thresholds_K = np.where(counts_K > 0, sums_K / np.maximum(counts_K, 1), np.inf)
    is_confident_NxK = probabilities_NxK >= thresholds_K - TOLERANCE
    one_N = np.where(is_confident_NxK.sum(1) > 1, probabilities_NxK.argmax(1), is_confident_NxK.argmax(1))
    return np.where(is_confident_NxK.any(1), one_N, -1)


def confident_joint(probabilities_NxK: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Returns the number of images by label (rows) and confident class (columns), integers [K, K] (section 3.1)."""
    classes, confident_N = probabilities_NxK.shape[1], confident_classes(probabilities_NxK, labels_N)
    counted = confident_N >= 0
    pairs = labels_N[counted].astype(np.int64) * classes + confident_N[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def estimate_joint(joint_KxK: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Returns the estimated joint distribution of given (rows) and true labels (columns), [K, K] (equation 3).

    Args:
      joint_KxK: the confident joint. A class without a confident image counts as right.
      labels_N: given labels, integers.
    """
    counts_KxK = joint_KxK + np.diag(joint_KxK.sum(1) == 0)
    shares_K = np.bincount(labels_N, minlength=len(joint_KxK)) / len(labels_N)
    return counts_KxK / counts_KxK.sum(1, keepdims=True) * shares_K[:, None]


def noise_matrix(estimated_KxK: np.ndarray) -> np.ndarray:
    """Returns the probability of each given label (rows) by true label (columns), [K, K]; 0 for classes without images.

    Args:
      estimated_KxK: as of ``estimate_joint``.
    """
    totals_K = estimated_KxK.sum(0)
    return estimated_KxK / np.where(totals_K > 0, totals_K, 1)
