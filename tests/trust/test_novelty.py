"""Scores of novelty, AUROC and false positives: known answers, properties, and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score, roc_curve

from cnn.trust import novelty

VALUES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40).map(np.array)
"""Few values, so that many are equal."""


@settings(max_examples=40)
@given(VALUES, VALUES)
def test_auroc_and_false_positives_are_scikit_learns_with_ties(known, unknown):
    is_known = np.repeat([1, 0], [len(known), len(unknown)])
    scores = np.concatenate([known, unknown])
    assert novelty.auroc(known, unknown) == pytest.approx(roc_auc_score(1 - is_known, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(is_known, -scores, drop_intermediate=False)
    expected = fpr[np.argmax(tpr >= novelty.ACCEPTED - 1e-12)]
    assert novelty.separation(known, unknown, 0.0).fpr == pytest.approx(expected, abs=1e-12)


@given(VALUES, VALUES)
def test_the_order_of_the_kinds_mirrors_the_auroc(known, unknown):
    assert novelty.auroc(known, unknown) + novelty.auroc(unknown, known) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (19, 18), (20, 18), (21, 19), (100, 94), (12_000, 11_399)])
def test_the_threshold_is_the_lowest_that_95_percent_do_not_exceed(count, expected):
    scores = np.random.default_rng(0).permutation(count).astype(float)
    assert novelty.threshold(scores) == expected
    assert (scores <= novelty.threshold(scores)).mean() >= 0.95


def test_kinds_apart_have_an_area_of_1_and_no_false_positives():
    apart = novelty.separation(np.arange(100.0), np.arange(200.0, 250), 225.0)
    assert (apart.images, apart.auroc, apart.fpr, apart.flagged) == (50, 1, 0, 24 / 50)
    assert 0.95 < apart.auroc_interval[0] < 1 and apart.auroc_interval[1] == 1
    assert apart.fpr_interval[0] == pytest.approx(0, abs=1e-12) and 0.05 < apart.fpr_interval[1] < 0.1


def test_scores_of_logits_are_those_of_scipy():
    logits = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32) * 5
    wide = logits.astype(float)
    np.testing.assert_allclose(novelty.max_probability(logits), 1 - softmax(wide, 1).max(1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(novelty.energy(logits), -logsumexp(wide, axis=1), rtol=1e-12)


def test_confident_logits_do_not_tie():
    """Two classes: the other one has the probability 1 / (1 + e^a), which is lost in 1 - p for large a."""
    scores = novelty.max_probability(np.array([[40.0, 0.0], [41.0, 0.0]], np.float32))
    np.testing.assert_allclose(scores, np.exp([-40.0, -41.0]), rtol=1e-9)
    assert novelty.energy(np.array([[1000.0, 0.0]], np.float32)) == [-1000]


def test_the_distance_is_that_of_the_kth_nearest():
    train = np.array([[1.0, 0], [0, 1], [-1, 0]])
    query = np.array([[1.0, 0]])
    expected = [0, np.sqrt(2), 2, 2]
    assert [novelty.nearest_distance(train, query, k)[0] for k in (1, 2, 3, 4)] == pytest.approx(expected)
