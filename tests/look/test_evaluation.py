"""Evaluation as a command on a real run."""

import json

import numpy as np
import pytest

import cnn
from cnn.__main__ import main
from cnn.figures import plots
from tests.helpers import narrow


def test_evaluate_prints_and_writes_json_and_figures(config, small, splits, tmp_path, capsys, monkeypatch):
    data = cnn.Splits(small.train, *(cnn.Split(split.images[:600], split.labels[:600]) for split in splits[1:]))
    monkeypatch.setattr("cnn.runs.result.load_data", lambda config: data)
    cnn.fit(narrow(config, epochs=1), tmp_path, data)
    main(["evaluate", str(tmp_path)])
    printed = capsys.readouterr().out
    values = json.loads((tmp_path / "evaluation.json").read_text())
    assert f"{values['accuracy']:.4f}" in printed and "most confused" in printed
    state, _ = cnn.load_best(tmp_path)
    assert values["accuracy"] == pytest.approx(float(cnn.evaluate(state, data.test).accuracy))
    assert values["nll"] == pytest.approx(float(cnn.evaluate(state, data.test).loss), rel=1e-5)
    assert np.sum(values["confusion_matrix"]) == 600
    for name in ("confusion_matrix", "reliability", "top_losses", "embedding"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    # The run directory is still that of a finished run.
    assert cnn.fit(narrow(config, epochs=1), tmp_path).summary["best_epoch"] == 1


@pytest.mark.parametrize("verb", ["evaluate", "report", "look"])
def test_a_run_on_other_images_is_refused(config, small, tmp_path, verb):
    cnn.fit(narrow(config, epochs=1), tmp_path / "run", small)
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(cnn.RunDirError, match="run was trained on other images than those of fashion_mnist; cnn.load"):
        main([verb, str(tmp_path / "run")])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_a_confusion_matrix_must_be_square():
    with pytest.raises(ValueError, match=r"counts must be \[K,K\]"):
        plots.confusion_matrix(np.zeros(3, int), ["a", "b", "c"])
