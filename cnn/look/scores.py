"""Accuracy, confusion and calibration: NumPy on probabilities and labels."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn.intervals import accuracy_interval
from cnn.training.confusion import balanced_accuracy, macro_f1

BINS = 15
"""Of confidence, as in Guo et al."""

MANY = 25
"""Classes of which a table has no space for each one."""


def confusion_matrix(labels_N: np.ndarray, predicted_N: np.ndarray, classes: int) -> np.ndarray:
    """Returns the number of images of each class (row) that were predicted as each class (column), int64 [K, K]."""
    return np.bincount(classes * labels_N.astype(int) + predicted_N, minlength=classes**2).reshape(classes, classes)


def class_scores(confusion_KxK: np.ndarray) -> dict[str, np.ndarray]:
    """Returns precision, recall and f1 of each class, float [K], from a confusion matrix; 0 instead of 0 / 0."""
    correct, predicted, true = np.diag(confusion_KxK), confusion_KxK.sum(0), confusion_KxK.sum(1)
    ratios = {"precision": (correct, predicted), "recall": (correct, true), "f1": (2 * correct, predicted + true)}
    return {name: numerator / np.maximum(denominator, 1) for name, (numerator, denominator) in ratios.items()}


def most_confused(confusion_KxK: np.ndarray, count: int = 5) -> list[tuple[int, int, int]]:
    """Returns (class, predicted class, number of images) of the most confused pairs, the most frequent first."""
    wrong_KxK = confusion_KxK * (1 - np.eye(len(confusion_KxK), dtype=int))
    order = np.argsort(-wrong_KxK, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, wrong_KxK.shape), strict=True)
    return [(int(true), int(other), int(wrong_KxK[true, other])) for true, other in pairs if wrong_KxK[true, other]]


def losses(probabilities_NxK: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Returns the cross-entropy of each image in nats, [N]."""
    return -np.log(np.maximum(probabilities_NxK[np.arange(len(labels_N)), labels_N], np.finfo(np.float32).tiny))


def top_losses(probabilities_NxK: np.ndarray, labels_N: np.ndarray, count: int = 16) -> np.ndarray:
    """Returns the indices of the images with the highest loss, in descending order; ties keep their order."""
    return np.argsort(-losses(probabilities_NxK, labels_N), kind="stable")[:count]


def negative_log_likelihood(probabilities_NxK: np.ndarray, labels_N: np.ndarray) -> float:
    """Returns the mean cross-entropy in nats."""
    return float(losses(probabilities_NxK, labels_N).mean())


class Reliability(NamedTuple):
    """A reliability diagram: values by confidence bin, each float [BINS]; NaN in empty bins."""

    confidence: np.ndarray
    """Mean of the highest probabilities."""
    accuracy: np.ndarray
    """Share of correctly classified images."""
    share: np.ndarray
    """Share of all images; 0 in empty bins."""

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of confidence and accuracy, weighted by share."""
        return float(np.nansum(self.share * np.abs(self.confidence - self.accuracy)))


def reliability(probabilities_NxK: np.ndarray, labels_N: np.ndarray, bins: int = BINS) -> Reliability:
    """Returns accuracy by confidence: C. Guo et al., arXiv:1706.04599, section 2.

    Args:
      probabilities_NxK: of any images.
      labels_N: integers.
      bins: number of bins of equal width, each without its lower end.
    """
    confidence_N, correct_N = probabilities_NxK.max(1), probabilities_NxK.argmax(1) == labels_N
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(bin_N, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bin_N, values_N, minlength=bins) / counts for values_N in (confidence_N, correct_N)]
    return Reliability(means[0], means[1], counts / len(labels_N))


def scale_temperature(probabilities_NxK: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the probabilities [N, K] as if their logits had been divided by a temperature."""
    logits_NxK = np.log(np.maximum(probabilities_NxK.astype(np.float64), np.finfo(np.float32).tiny)) / temperature
    scaled_NxK = np.exp(logits_NxK - logits_NxK.max(1, keepdims=True))
    return scaled_NxK / scaled_NxK.sum(1, keepdims=True)


def fit_temperature(probabilities_NxK: np.ndarray, labels_N: np.ndarray) -> float:
    """Returns the temperature with the lowest negative log-likelihood: C. Guo et al., section 4.2.

    It is 1 if all images are predicted as their class: the lower the temperature, the lower the likelihood's negative
    logarithm, and there is no lowest one.

    Args:
      probabilities_NxK: of images used neither for training nor for reported results.
      labels_N: integers.
    """
    from scipy.optimize import minimize_scalar

    if (probabilities_NxK.argmax(1) == labels_N).all():
        return 1.0

    def loss(log_temperature):
        return negative_log_likelihood(scale_temperature(probabilities_NxK, math.exp(log_temperature)), labels_N)

    minimum: Any = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    return math.exp(minimum.x)


def evaluation(probabilities_NxK: np.ndarray, labels_N: np.ndarray, names: Sequence[str], temperature: float) -> dict:
    """Returns the content of ``evaluation.json``, as plain numbers.

    Args:
      probabilities_NxK: of the test images.
      labels_N: integers.
      names: of the K classes.
      temperature: fitted on other images.
    """
    confusion = confusion_matrix(labels_N, probabilities_NxK.argmax(1), len(names))
    correct, count = int(np.trace(confusion)), len(labels_N)
    scores, scaled_NxK = class_scores(confusion), scale_temperature(probabilities_NxK, temperature)
    in_top2_N = np.sort(probabilities_NxK, 1)[:, -2] <= probabilities_NxK[np.arange(count), labels_N]
    return {
        "images": count,
        "accuracy": correct / count,
        "accuracy_interval": list(accuracy_interval(correct, count)),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        "top2_accuracy": float(in_top2_N.mean()),
        "nll": negative_log_likelihood(probabilities_NxK, labels_N),
        "ece": reliability(probabilities_NxK, labels_N).error,
        "temperature": temperature,
        "nll_scaled": negative_log_likelihood(scaled_NxK, labels_N),
        "ece_scaled": reliability(scaled_NxK, labels_N).error,
        "classes": {
            name: {"images": int(confusion[label].sum()), **{key: float(score[label]) for key, score in scores.items()}}
            for label, name in enumerate(names)
        },
        "most_confused": [[names[label], names[other], wrong] for label, other, wrong in most_confused(confusion)],
        "confusion_matrix": confusion.tolist(),
    }


def calibrated(
    val_NxK: np.ndarray, val_labels_N: np.ndarray, test_MxK: np.ndarray, test_labels_M: np.ndarray, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Reliability]]:
    """Returns ``evaluation`` of the test images, and by title the reliability before and after temperature scaling.

    Args:
      val_NxK: probabilities of the validation images, on which the temperature is fitted.
      val_labels_N: integers.
      test_MxK: probabilities of the M test images.
      test_labels_M: integers.
      names: of the K classes.
    """
    temperature = fit_temperature(val_NxK, val_labels_N)
    bins = {
        "as trained": reliability(test_MxK, test_labels_M),
        f"with temperature {temperature:.2f}": reliability(scale_temperature(test_MxK, temperature), test_labels_M),
    }
    return evaluation(test_MxK, test_labels_M, names, temperature), bins
