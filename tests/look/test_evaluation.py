"""Evaluation against scikit-learn, against numbers that a reader can recompute, and as a command on a real run."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

import cnn
from cnn import intervals
from cnn.__main__ import main
from cnn.figures import plots
from cnn.look import scores
from tests.helpers import narrow


def _made_up(seed=0, count=400, classes=5, sharpness=2.0):
    rng = np.random.default_rng(seed)
    logits, labels = rng.standard_normal((count, classes)), rng.integers(0, classes, count)
    logits[np.arange(count), labels] += 1
    exponentials = np.exp(sharpness * logits)
    return exponentials / exponentials.sum(1, keepdims=True), labels


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60))
def test_scores_are_those_of_scikit_learn(seed, count):
    probabilities, labels = _made_up(seed, count)
    predicted = probabilities.argmax(1)
    confusion = scores.confusion_matrix(labels, predicted, 5)
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, predicted, labels=range(5)))
    # Its annotations allow a string alone where its documentation has 0.
    zero: Any = 0
    theirs: Any = metrics.precision_recall_fscore_support(labels, predicted, labels=range(5), zero_division=zero)
    for ours, wanted in zip(scores.class_scores(confusion).values(), theirs, strict=False):
        np.testing.assert_allclose(ours, wanted)
    loss = metrics.log_loss(labels, probabilities, labels=range(5))
    assert scores.negative_log_likelihood(probabilities, labels) == pytest.approx(loss)
    values = scores.evaluation(probabilities, labels, list("abcde"), 1.0)
    wanted = metrics.top_k_accuracy_score(labels, probabilities, k=2, labels=range(5))
    assert values["top2_accuracy"] == pytest.approx(wanted)
    assert values["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))


def test_the_interval_is_wilsons():
    """Of 8 in 10: (0.8 + 0.1921 +- 1.96 sqrt(0.016 + 0.0096)) / 1.3841, to three digits."""
    assert intervals.accuracy_interval(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert intervals.accuracy_interval(10, 10)[1] == pytest.approx(1)


def test_the_most_confused_pairs_come_first_and_right_ones_never():
    confusion = np.array([[90, 3, 7], [0, 99, 1], [4, 0, 96]])
    assert scores.most_confused(confusion) == [(0, 2, 7), (2, 0, 4), (0, 1, 3), (1, 2, 1)]


def test_calibration_error_is_the_mean_distance_by_bins():
    """Two bins of two images: 0.9 sure and half right, then 0.6 sure and all right."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    found = scores.reliability(probabilities, np.array([0, 1, 0, 1]))
    assert found.error == pytest.approx((0.4 + 0.4) / 2)
    assert found.share.sum() == pytest.approx(1) and np.nonzero(found.share)[0].tolist() == [8, 13]


def test_temperature_undoes_what_made_the_network_too_sure():
    probabilities, labels = _made_up(count=20_000, sharpness=1.0)
    # Logits of which the label's is 1 higher in the mean are calibrated as they are.
    assert scores.fit_temperature(probabilities, labels) == pytest.approx(1, abs=0.05)
    sure = scores.scale_temperature(probabilities, 0.4)
    np.testing.assert_allclose(scores.scale_temperature(sure, 1 / 0.4), probabilities, rtol=1e-6)
    assert scores.fit_temperature(sure, labels) == pytest.approx(2.5, abs=0.13)


def test_the_highest_losses_come_first_and_of_equal_ones_the_first():
    """Probabilities of the own class: 0.2, 0.9, 0, 0.2 and 0, of which no logarithm is taken."""
    probabilities = np.array([[0.2, 0.8], [0.1, 0.9], [1.0, 0.0], [0.2, 0.8], [1.0, 0.0]])
    labels = np.array([0, 1, 1, 0, 1])
    assert scores.top_losses(probabilities, labels, 4).tolist() == [2, 4, 0, 3]
    assert scores.losses(probabilities, labels)[:2] == pytest.approx([-np.log(0.2), -np.log(0.9)])


def test_the_command_prints_writes_and_draws(config, small, splits, tmp_path, capsys, monkeypatch):
    some = cnn.Splits(small.train, *(cnn.Split(split.images[:600], split.labels[:600]) for split in splits[1:]))
    monkeypatch.setattr("cnn.runs.result.load_data", lambda config: some)
    cnn.fit(narrow(config, epochs=1), tmp_path, some)
    main(["evaluate", str(tmp_path)])
    printed = capsys.readouterr().out
    values = json.loads((tmp_path / "evaluation.json").read_text())
    assert f"{values['accuracy']:.4f}" in printed and "most confused" in printed
    state, _ = cnn.load_best(tmp_path)
    assert values["accuracy"] == pytest.approx(float(cnn.evaluate(state, some.test).accuracy))
    assert values["nll"] == pytest.approx(float(cnn.evaluate(state, some.test).loss), rel=1e-5)
    assert np.sum(values["confusion_matrix"]) == 600
    for name in ("confusion_matrix", "reliability", "top_losses", "embedding"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    # The same command on the run goes on as before.
    assert cnn.fit(narrow(config, epochs=1), tmp_path).summary["best_epoch"] == 1


@pytest.mark.parametrize("verb", ["evaluate", "report", "look"])
def test_a_run_on_images_of_ones_own_is_not_measured_on_others(config, small, tmp_path, verb):
    cnn.fit(narrow(config, epochs=1), tmp_path / "run", small)
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(cnn.RunDirError, match="run was trained on other images than those of fashion_mnist; cnn.load"):
        main([verb, str(tmp_path / "run")])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_a_confusion_matrix_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"counts must be \[K,K\]"):
        plots.confusion_matrix(np.zeros(3, int), ["a", "b", "c"])
