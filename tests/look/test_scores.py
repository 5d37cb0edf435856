"""Scores against scikit-learn, and against numbers that a reader can recompute."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from cnn.look import scores


def _random_predictions(seed=0, count=400, classes=5, sharpness=2.0):
    rng = np.random.default_rng(seed)
    logits, labels = rng.standard_normal((count, classes)), rng.integers(0, classes, count)
    logits[np.arange(count), labels] += 1
    exponentials = np.exp(sharpness * logits)
    return exponentials / exponentials.sum(1, keepdims=True), labels


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60))
def test_scores_equal_scikit_learns(seed, count):
    probabilities, labels = _random_predictions(seed, count)
    predicted = probabilities.argmax(1)
    confusion = scores.confusion_matrix(labels, predicted, 5)
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, predicted, labels=range(5)))
    # Its annotations allow only a string where its documentation has 0.
    zero: Any = 0
    theirs: Any = metrics.precision_recall_fscore_support(labels, predicted, labels=range(5), zero_division=zero)
    for ours, expected in zip(scores.class_scores(confusion).values(), theirs, strict=False):
        np.testing.assert_allclose(ours, expected)
    loss = metrics.log_loss(labels, probabilities, labels=range(5))
    assert scores.negative_log_likelihood(probabilities, labels) == pytest.approx(loss)
    values = scores.evaluation(probabilities, labels, list("abcde"), 1.0)
    expected = metrics.top_k_accuracy_score(labels, probabilities, k=2, labels=range(5))
    assert values["top2_accuracy"] == pytest.approx(expected)
    assert values["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))


def test_most_confused_pairs_are_sorted_without_the_diagonal():
    confusion = np.array([[90, 3, 7], [0, 99, 1], [4, 0, 96]])
    assert scores.most_confused(confusion) == [(0, 2, 7), (2, 0, 4), (0, 1, 3), (1, 2, 1)]


def test_calibration_error_is_the_weighted_mean_distance_of_bins():
    """Two bins of two images: confidence 0.9 and accuracy 0.5, then confidence 0.6 and accuracy 1."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    bins = scores.reliability(probabilities, np.array([0, 1, 0, 1]))
    assert bins.error == pytest.approx((0.4 + 0.4) / 2)
    assert bins.share.sum() == pytest.approx(1) and np.nonzero(bins.share)[0].tolist() == [8, 13]


def test_without_a_mistake_no_temperature_is_fitted():
    """The lower, the better: the bound of a search would be returned, with which one mistake costs all."""
    assert scores.fit_temperature(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1])) == 1


def test_the_fitted_temperature_undoes_overconfidence():
    probabilities, labels = _random_predictions(count=20_000, sharpness=1.0)
    # Logits that are higher by 1 in the mean for the label are calibrated as they are.
    assert scores.fit_temperature(probabilities, labels) == pytest.approx(1, abs=0.05)
    overconfident = scores.scale_temperature(probabilities, 0.4)
    np.testing.assert_allclose(scores.scale_temperature(overconfident, 1 / 0.4), probabilities, rtol=1e-6)
    assert scores.fit_temperature(overconfident, labels) == pytest.approx(2.5, abs=0.13)


def test_top_losses_are_descending_and_ties_keep_their_order():
    """Probabilities of the true class: 0.2, 0.9, 0, 0.2 and 0, whose logarithm is clipped."""
    probabilities = np.array([[0.2, 0.8], [0.1, 0.9], [1.0, 0.0], [0.2, 0.8], [1.0, 0.0]])
    labels = np.array([0, 1, 1, 0, 1])
    assert scores.top_losses(probabilities, labels, 4).tolist() == [2, 4, 0, 3]
    assert scores.losses(probabilities, labels)[:2] == pytest.approx([-np.log(0.2), -np.log(0.9)])
