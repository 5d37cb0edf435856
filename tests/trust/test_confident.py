"""Confident learning beside cleanlab, and the suspects among labels that were changed at random."""

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint, estimate_joint
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_self_confidence_for_each_label
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from cnn.trust import confident


def noisy(seed, count=600, classes=6, rate=0.15):
    """Probabilities that are right more often than not, and labels of which some were changed."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, count)
    probabilities = rng.dirichlet(np.full(classes, 0.4), count)
    probabilities[np.arange(count), true] += rng.random(count) * 2
    labels = np.where(rng.random(count) < rate, rng.integers(0, classes, count), true)
    return probabilities / probabilities.sum(1, keepdims=True), labels


@pytest.mark.parametrize("seed", range(4))
def test_the_confident_joint_is_that_of_cleanlab(seed):
    probabilities, labels = noisy(seed)
    joint = confident.confident_joint(probabilities, labels)
    np.testing.assert_array_equal(joint, compute_confident_joint(labels, probabilities, calibrate=False))
    classes = confident.confident_classes(probabilities, labels)
    issues = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    # It also spares images whose label is the most probable class, though another one is confident.
    np.testing.assert_array_equal(
        issues, (classes >= 0) & (classes != labels) & (probabilities.argmax(1) != labels), strict=True
    )
    estimated = confident.estimate_joint(joint, labels)
    np.testing.assert_allclose(
        estimated, estimate_joint(labels, probabilities, confident_joint=joint), atol=1 / len(labels)
    )
    np.testing.assert_allclose(estimated.sum(1), np.bincount(labels, minlength=6) / len(labels))
    np.testing.assert_allclose(confident.noise_matrix(estimated).sum(0), 1)


def test_suspects_are_ranked_by_self_confidence_as_cleanlab_does():
    probabilities, labels = noisy(0)
    suspects = confident.find_suspects(probabilities, labels)
    ranked = np.argsort(get_self_confidence_for_each_label(labels, probabilities), kind="stable")
    wrong = ranked[probabilities.argmax(1)[ranked] != labels[ranked]]
    np.testing.assert_array_equal(suspects.images, wrong[: len(suspects.images)])
    np.testing.assert_array_equal(suspects.suggestions, probabilities.argmax(1)[suspects.images])
    below = probabilities[wrong, labels[wrong]] <= suspects.threshold
    assert below[: len(suspects.images)].all() and not below[len(suspects.images) :].any()


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_the_threshold_is_above_the_given_share_of_labels_drawn_at_random(seed, recall):
    probabilities, labels = noisy(seed, count=40, classes=4)
    threshold = confident.find_suspects(probabilities, labels, recall).threshold
    others = [probabilities[n, k] for n in range(40) for k in range(4) if k != labels[n]]
    assert np.mean(np.array(others) <= threshold) == pytest.approx(recall, abs=1 / len(others) + 1e-12)


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_labels_changed_at_random_are_found(rate):
    """Digits and nearest neighbours: neither the data nor the classifier for which the rule was made."""
    images, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    recalls, precisions = [], []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        flipped = rng.permutation(len(labels))[: round(rate * len(labels))]
        changed = labels.copy()
        changed[flipped] = (labels[flipped] + rng.integers(1, 10, len(flipped))) % 10
        classifier = KNeighborsClassifier(20, weights="distance")
        probabilities = np.asarray(cross_val_predict(classifier, images, changed, cv=3, method="predict_proba"))
        found = confident.find_suspects(probabilities, changed).images
        recalls.append(np.isin(flipped, found).mean())
        precisions.append(np.isin(found, flipped).mean())
    assert np.mean(recalls) >= 0.85 and np.mean(precisions) >= 0.9, (recalls, precisions)


def test_a_class_without_images_and_one_without_confident_images_are_no_noise():
    probabilities = np.array([[0.6, 0.4, 0.0], [0.7, 0.3, 0.0], [0.9, 0.1, 0.0]])
    labels = np.array([0, 0, 1])
    # Class 0 is confident from 0.65 and class 1 from 0.1: the first image has only class 1, the others have both.
    np.testing.assert_array_equal(confident.confident_joint(probabilities, labels), [[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    estimated = confident.estimate_joint(np.array([[2, 0, 0], [0, 0, 0], [0, 0, 0]]), labels)
    np.testing.assert_allclose(estimated, np.diag([2 / 3, 1 / 3, 0]))
    np.testing.assert_array_equal(confident.noise_matrix(estimated), np.diag([1, 1, 0]))
