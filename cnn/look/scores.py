"""Accuracy, confusion and calibration: NumPy on probabilities and labels."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn.intervals import accuracy_interval

BINS = 15
"""Of confidence, as in Guo et al."""


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Returns how many images of each class (row) were taken for each class (column), int64 [K, K]."""
    return np.bincount(classes * labels.astype(int) + predicted, minlength=classes**2).reshape(classes, classes)


def class_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Returns precision, recall and f1 of each class, float [K], from a confusion matrix; 0 where there is nothing."""
    correct, taken, there = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    pairs = {"precision": (correct, taken), "recall": (correct, there), "f1": (2 * correct, taken + there)}
    return {name: part / np.maximum(whole, 1) for name, (part, whole) in pairs.items()}


def most_confused(confusion: np.ndarray, count: int = 5) -> list[tuple[int, int, int]]:
    """Returns (class, taken for, how many) of the pairs that are confused most, the worst first."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(label), int(other), int(wrong[label, other])) for label, other in pairs if wrong[label, other]]


def losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns -log of the probability of each image's class, in nats, [N]."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float32).tiny))


def top_losses(probabilities: np.ndarray, labels: np.ndarray, count: int = 16) -> np.ndarray:
    """Returns the indices of the images with the highest loss, the highest first, of equal ones the first first."""
    return np.argsort(-losses(probabilities, labels), kind="stable")[:count]


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean of -log of the probability of each image's class, in nats."""
    return float(losses(probabilities, labels).mean())


class Reliability(NamedTuple):
    """By bins of confidence, each float [BINS]; NaN where no image is."""

    confidence: np.ndarray
    """Mean of the highest probabilities."""
    accuracy: np.ndarray
    """Share of images that are classified rightly."""
    share: np.ndarray
    """Share of all images; 0 where none is."""

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of confidence and accuracy over all images."""
        return float(np.nansum(self.share * np.abs(self.confidence - self.accuracy)))


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Returns how often a network that is so sure is right: C. Guo et al., arXiv:1706.04599, section 2.

    Args:
      probabilities: [N, K].
      labels: integers [N].
      bins: as many of equal width, each without its lower end.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, minlength=bins) / counts for values in (confidence, right)]
    return Reliability(means[0], means[1], counts / len(labels))


def scale_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the probabilities [N, K] as if their logits had been divided by a temperature."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny)) / temperature
    scaled = np.exp(logits - logits.max(1, keepdims=True))
    return scaled / scaled.sum(1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature with the least negative log likelihood: C. Guo et al., section 4.2.

    Args:
      probabilities: of images that the network was not trained on, and that nothing is reported of, [N, K].
      labels: integers [N].
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature):
        return negative_log_likelihood(scale_temperature(probabilities, math.exp(log_temperature)), labels)

    found: Any = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    return math.exp(found.x)


def evaluation(probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str], temperature: float) -> dict:
    """Returns all that ``evaluation.json`` holds, as plain numbers.

    Args:
      probabilities: of the test images, [N, K].
      labels: integers [N].
      names: of the classes, [K].
      temperature: fitted on other images.
    """
    confusion = confusion_matrix(labels, probabilities.argmax(1), len(names))
    correct, count = int(np.trace(confusion)), len(labels)
    scores, scaled = class_scores(confusion), scale_temperature(probabilities, temperature)
    second = np.sort(probabilities, 1)[:, -2] <= probabilities[np.arange(count), labels]
    return {
        "images": count,
        "accuracy": correct / count,
        "accuracy_interval": list(accuracy_interval(correct, count)),
        "top2_accuracy": float(second.mean()),
        "nll": negative_log_likelihood(probabilities, labels),
        "ece": reliability(probabilities, labels).error,
        "temperature": temperature,
        "nll_scaled": negative_log_likelihood(scaled, labels),
        "ece_scaled": reliability(scaled, labels).error,
        "classes": {
            name: {"images": int(confusion[label].sum()), **{score: float(of[label]) for score, of in scores.items()}}
            for label, name in enumerate(names)
        },
        "most_confused": [[names[label], names[other], wrong] for label, other, wrong in most_confused(confusion)],
        "confusion_matrix": confusion.tolist(),
    }


def calibrated(
    val: np.ndarray, val_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Reliability]]:
    """Returns ``evaluation`` of the test images, and by its title how sure the network may be before and after scaling.

    Args:
      val: probabilities of the validation images, to which the temperature is fitted, [N, K].
      val_labels: integers [N].
      test: probabilities of the test images, [M, K].
      test_labels: integers [M].
      names: of the classes, [K].
    """
    temperature = fit_temperature(val, val_labels)
    bins = {
        "as trained": reliability(test, test_labels),
        f"with temperature {temperature:.2f}": reliability(scale_temperature(test, temperature), test_labels),
    }
    return evaluation(test, test_labels, names, temperature), bins
