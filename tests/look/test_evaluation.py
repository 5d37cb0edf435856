"""Evaluation as a command on a real run."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

import cnn
from cnn.__main__ import main
from cnn.figures import evaluation_plots
from cnn.look import evaluation, scores
from cnn.runs import outputs
from cnn.text import columns
from tests.helpers import narrow, shrink


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
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(evaluation.FIGURES)
    for name in evaluation.FIGURES:
        assert (tmp_path / "figures" / name).read_bytes().startswith(b"\x89PNG")
    assert outputs.check_file(tmp_path / "evaluation.json", "evaluation", [tmp_path])
    # The run directory is still that of a finished run.
    assert cnn.fit(narrow(config, epochs=1), tmp_path).summary["best_epoch"] == 1


@pytest.mark.parametrize("verb", ["evaluate", "report", "look"])
def test_a_run_on_other_images_is_refused(config, small, tmp_path, verb):
    cnn.fit(narrow(config, epochs=1), tmp_path / "run", small)
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(cnn.RunDirError, match="run was trained on other images than those of fashion_mnist; cnn.load"):
        main([verb, str(tmp_path / "run")])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_a_run_whose_folder_has_changed_names_it_and_what_to_do(config, small, tmp_path, monkeypatch):
    source = dataclasses.replace(config.data, source="photos")
    cnn.fit(narrow(dataclasses.replace(config, data=source), epochs=1), tmp_path / "run", small)
    monkeypatch.setattr("cnn.runs.result.load_data", lambda data: shrink(small, 99))
    with pytest.raises(cnn.RunDirError, match="other images than those of photos; restore them, or train on these"):
        main(["evaluate", str(tmp_path / "run")])


@pytest.fixture
def read_only(config, small, tmp_path, monkeypatch):
    """A finished run on a file system that is read-only, for root as well."""
    run_dir, replace, mkdir = tmp_path / "run", os.replace, os.mkdir
    monkeypatch.setattr("cnn.runs.result.load_data", lambda config: small)
    cnn.fit(narrow(config, epochs=1), run_dir, small)

    def refusing(function):
        def call(*paths, **options):
            if any(run_dir in Path(path).parents for path in paths if isinstance(path, (str, Path))):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return function(*paths, **options)

        return call

    monkeypatch.setattr(os, "replace", refusing(replace))
    monkeypatch.setattr(os, "mkdir", refusing(mkdir))
    return run_dir


def test_a_read_only_run_is_evaluated_and_drawn_elsewhere(read_only, tmp_path, capsys):
    before = sorted(path.name for path in read_only.rglob("*"))
    with pytest.raises(cnn.RunDirError, match="figures: Read-only file system; fix that, or name .* with --output$"):
        main(["evaluate", str(read_only)])
    numbers = capsys.readouterr().out
    assert "most confused" in numbers
    with pytest.raises(cnn.RunDirError, match=r"Read-only file system; .*\[--output DIR\]"):
        main(["look", str(read_only)])
    capsys.readouterr()
    main(["evaluate", str(read_only), "--output", str(tmp_path / "there")])
    assert capsys.readouterr().out.startswith(numbers)
    assert json.loads((tmp_path / "there" / "evaluation.json").read_text())["accuracy"]
    main(["look", str(read_only), "--output", str(tmp_path / "there")])
    main(["look", str(read_only), "--layer", "conv1", "--output", str(tmp_path / "there")])
    for line in capsys.readouterr().out.splitlines():
        assert Path(line).parent == tmp_path / "there" and Path(line).read_bytes().startswith(b"\x89PNG")
    expected = {"embedding", "kernels_conv1_trained", "look_conv1_maps"}
    assert expected <= {path.stem for path in (tmp_path / "there").iterdir()}
    assert sorted(path.name for path in read_only.rglob("*")) == before


@pytest.mark.parametrize("verb", ["evaluate", "look"])
def test_an_output_that_cannot_be_a_directory_is_refused_before_anything_is_computed(tmp_path, verb):
    (tmp_path / "file").write_text("")
    with pytest.raises(cnn.ConfigError, match="--output is '.*file', which is a file; name a directory"):
        main([verb, "no run", "--output", str(tmp_path / "file")])
    with pytest.raises(cnn.ConfigError, match="--output is '.*', which is in .*nowhere, which is not a directory"):
        main([verb, "no run", "--output", str(tmp_path / "nowhere" / "there")])


def test_a_confusion_matrix_must_be_square():
    with pytest.raises(ValueError, match=r"counts must be \[K,K\]"):
        evaluation_plots.confusion_matrix(np.zeros(3, int), ["a", "b", "c"])


def test_of_many_classes_the_worst_are_printed():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 60, 900)
    probabilities = rng.dirichlet(np.ones(60), 900) + np.eye(60)[labels] * rng.random(60)[labels, None]
    names = [f"{'자전거 ' * 20}{label}" for label in range(60)]
    values = scores.evaluation(probabilities / probabilities.sum(1, keepdims=True), labels, names, 1.0)
    lines = evaluation.format_evaluation(values).splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("class "))
    rows = lines[head + 1 : head + 1 + evaluation.WORST]
    assert [float(row.split()[-2]) for row in rows] == sorted(
        float(f"{one['f1']:.4f}") for one in values["classes"].values()
    )[:20]
    assert lines[head + 1 + evaluation.WORST] == "and 40 other classes, whose F1 is not lower, in evaluation.json"
    assert {columns(line) for line in lines[head : head + 1 + evaluation.WORST]} == {columns(lines[head])}
    assert max(map(columns, lines)) <= 120
