"""The page of a run: its values against the run's files."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import cnn
from cnn import intervals
from cnn.__main__ import main
from cnn.datasets import DATASETS
from cnn.look import scores
from cnn.report import run_parts


def test_the_page_has_the_results_of_the_run(runs, expected):
    text, result = (runs.first / "report.html").read_text(), json.loads((runs.first / "result.json").read_text())
    low, high = intervals.accuracy_interval(round(600 * result["test_accuracy"]), 600)

    def percent(share):
        return f"{100 * share:.2f}\u00a0%"

    for value in (percent(result["test_accuracy"]), f"{percent(low)} to {percent(high)}", f"{result['params']:,}"):
        assert value in text
    assert all(name in text for name in DATASETS["fashion_mnist"].korean_names)
    # Epochs, and the three widths of a narrow network.
    assert re.search(r"\b4 of \d\d fields differ from the defaults", text)
    match = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert match
    data = json.loads(match[1])
    labels = runs.splits.test.labels
    confusion = scores.confusion_matrix(labels, expected.probabilities.argmax(1), 10)
    np.testing.assert_array_equal(data["confusion"], confusion)
    shown = [image["test"] for image in data["explorer"]["images"]]
    probabilities = [image["probabilities"] for image in data["explorer"]["images"]]
    np.testing.assert_allclose(probabilities, expected.probabilities[shown], atol=1e-6)


def test_figures_are_in_the_page_with_captions(runs):
    figures = (runs.first / "report.html").read_text().split('<section id="figures"')[1]
    captions = re.findall(r'<img src="[^"]+" width="\d+" height="\d+" alt="([^"]+)"', figures)
    assert [caption.split(",")[0] for caption in captions] == [
        "Loss and accuracy by epoch",
        "Feature maps of conv1 for the first training image",
        "Mine",
    ]
    assert '<section id="figures"' not in (runs.dense / "report.html").read_text()


def test_a_damaged_figure_is_one_line(runs, tmp_path):
    shutil.copytree(runs.dense, tmp_path / "run")
    (tmp_path / "run" / "figures").mkdir()
    (tmp_path / "run" / "figures" / "model.png").write_bytes(b"\x89PNG")
    with pytest.raises(cnn.RunDirError, match=r"model\.png is not a readable picture; python -m cnn look "):
        run_parts.figures_section(tmp_path / "run")


@pytest.mark.timeout(60)
def test_a_pipe_among_the_figures_is_one_line_and_waits_for_nothing(runs, tmp_path):
    shutil.copytree(runs.dense, tmp_path / "run")
    (tmp_path / "run" / "figures").mkdir()
    os.mkfifo(tmp_path / "run" / "figures" / "pipe.png")
    with pytest.raises(cnn.RunDirError, match=r"pipe\.png is not a readable picture; .* or remove it$"):
        run_parts.figures_section(tmp_path / "run")


def test_a_figure_beyond_the_limit_is_not_read(runs, tmp_path, monkeypatch):
    shutil.copytree(runs.dense, tmp_path / "run")
    (tmp_path / "run" / "figures").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "run" / "figures" / "model.png")
    assert 'width="8"' in run_parts.figures_section(tmp_path / "run")
    monkeypatch.setattr(run_parts, "FILE_BYTES", 10)
    with pytest.raises(cnn.RunDirError, match=r"model\.png is not a readable picture"):
        run_parts.figures_section(tmp_path / "run")


def test_a_wrong_run_or_output_is_one_line(runs, tmp_path):
    with pytest.raises(cnn.RunDirError, match=r"config\.json"):
        main(["report", str(tmp_path)])
    with pytest.raises(cnn.ConfigError, match="no run is named"):
        main(["report"])
    with pytest.raises(
        cnn.ConfigError, match="--output is .*nowhere.* which is in .*nowhere, which is not a directory"
    ):
        main(["report", str(runs.first), "--output", str(tmp_path / "nowhere" / "page.html")])
    with pytest.raises(cnn.ConfigError, match=f"{runs.second} is named more than once"):
        main(["report", str(runs.dense), str(runs.second), str(runs.second)])


def test_pointing_at_a_curve_shows_the_values_of_its_epoch(page, runs):
    rows = [json.loads(line) for line in (runs.first / "metrics.jsonl").read_text().splitlines()]
    best = json.loads((runs.first / "result.json").read_text())["best_epoch"]
    for epoch, position in ((best, None), (1, 0.25), (2, 0.75)):
        if position:
            plot = page.find(".u-over")
            page.point(plot, position * plot.size["width"], 50).perform()
        row = rows[epoch - 1]
        shown = [cell.text for cell in page.browser.find_elements("css selector", ".u-value")[:3]]
        assert shown == [str(epoch), f"{row['train_loss']:.4f}", f"{row['val_loss']:.4f}"]
