"""Scores that count all classes alike, and the loss that does, against scikit-learn."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight

import cnn
from cnn.config import OptimConfig
from cnn.data.splits import check_splits
from cnn.training.confusion import balanced_accuracy, confusion_matrix, macro_f1
from cnn.training.optim import class_weights, loss_targets

PAIRS = st.integers(1, 60).flatmap(
    lambda count: st.tuples(*[st.lists(st.integers(0, 4), min_size=count, max_size=count)] * 2)
)


@given(PAIRS)
def test_scores_equal_scikit_learns(pairs):
    labels, predicted = map(np.array, pairs)
    counts = metrics.confusion_matrix(labels, predicted, labels=range(5))
    assert macro_f1(counts) == pytest.approx(
        metrics.f1_score(labels, predicted, average="macro", zero_division=cast(Any, 0))
    )
    # scikit-learn warns where a class is predicted that has no image.
    recalls = [np.mean(predicted[labels == label] == label) for label in np.unique(labels)]
    assert balanced_accuracy(counts) == pytest.approx(np.mean(recalls))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_balanced_weights_equal_scikit_learns(labels):
    present = np.unique(labels)
    weights = class_weights(
        OptimConfig(class_weights="balanced"), tuple(np.bincount(labels, minlength=present[-1] + 1).tolist())
    )
    expected = compute_class_weight("balanced", classes=present, y=labels)
    np.testing.assert_allclose(np.array(weights)[present], expected)


def test_weights_multiply_the_loss_of_their_class():
    targets = jnp.eye(3)[jnp.array([0, 2])]
    mixed = jnp.array([[0.5, 0, 0.5]])
    np.testing.assert_allclose(loss_targets(targets, 0.0, (0.5, 1.0, 3.0)), [[0.5, 0, 0], [0, 0, 3]])
    np.testing.assert_allclose(loss_targets(mixed, 0.0, (0.5, 1.0, 3.0)), 1.75 * mixed)
    np.testing.assert_array_equal(loss_targets(targets, 0.0, ()), targets)


def test_weights_need_counted_images():
    with pytest.raises(cnn.ConfigError, match="^--optim.class_weights is 'balanced', but must be none where"):
        class_weights(OptimConfig(class_weights="balanced"), ())


def test_the_matrix_counts_the_predictions(state, small):
    counts = jax.device_get(confusion_matrix(state, small.val))
    predicted = np.argmax(cnn.predict(state, small.val.images), axis=1)
    np.testing.assert_array_equal(counts, metrics.confusion_matrix(small.val.labels, predicted, labels=range(10)))


def test_a_run_monitors_balanced_accuracy(config, small, tmp_path):
    train = dataclasses.replace(config.train, monitor="val_balanced_accuracy")
    optim = dataclasses.replace(config.optim, class_weights="balanced")
    result = cnn.fit(dataclasses.replace(config, train=train, optim=optim), tmp_path / "run", small)
    scores = [row["val_balanced_accuracy"] for row in result.history]
    assert result.summary["best_epoch"] == 1 + int(np.argmax(scores))
    assert result.summary["stopped_by"] == "epochs"
    predicted = np.argmax(cnn.predict(result.state, small.val.images), axis=1)
    assert max(scores) == pytest.approx(metrics.balanced_accuracy_score(small.val.labels, predicted))
    weights = compute_class_weight("balanced", classes=np.arange(10), y=small.train.labels)
    np.testing.assert_allclose(result.state.spec.class_weights, weights)
    assert check_splits(config, small).data.class_counts == tuple(np.bincount(small.train.labels))
