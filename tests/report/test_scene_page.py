"""The pages of a detector's run: report.html as the run writes it, and live.html."""

import json
import re
import shutil
from typing import Any

import numpy as np
import pytest

import cnn
from cnn.__main__ import main
from cnn.detection.boxes import Detections
from cnn.figures import plots
from cnn.look import detection
from cnn.report import live, live_scenes
from cnn.report.live_parts import Progress, Subject
from cnn.run import epoch_line, result_table, run
from cnn.runs import rundir


def _data(page):
    return json.loads(re.findall(r'type="application/json">(.*?)</script>', page)[0])


@pytest.fixture(scope="module")
def finished(detector, tmp_path_factory):
    """The detector's run after the end of its command: with figures and report, and what was printed."""
    run_dir = shutil.copytree(detector.run_dir, tmp_path_factory.mktemp("pages") / "run")
    png = plots.png(plots.Figure(figsize=(1, 1)))
    with pytest.MonkeyPatch.context() as patch:
        # Rendering takes longer than all else.
        patch.setattr(plots, "png", lambda figure: png)
        run(detector.config, run_dir, detector.splits)
    return run_dir


def test_the_run_ends_with_figures_and_a_report_of_its_numbers(detector, finished):
    names, page = cnn.class_names(detector.config.data), (finished / "report.html").read_text(encoding="utf-8")
    values = detection.evaluate_detector(detector.result.state, detector.splits, names).values
    assert f"{100 * values['map']:.2f}\N{NO-BREAK SPACE}%" in page and f"{values['threshold']:.2f}" in page
    row = [f"{values['classes']['Bag'][key]:.3f}" for key in ("ap", "ap_50", "ap_75")]
    assert f'<th scope="row">Bag</th><td>{"</td><td>".join(row)}</td>' in page
    curves, history = _data(page)["curves"]["all"], detector.result.history
    assert curves["map"][0]["values"] == [round(epoch["val_map"], 6) for epoch in history]
    assert page.count('class="chart"') == 3 and "<h3>Mean average precision</h3>" in page
    drawn = {path.stem for path in (finished / rundir.FIGURES).iterdir()}
    assert {"scenes", "objectness", "sample", "feature_maps_head"} <= drawn and not {"probabilities"} & drawn
    assert page.count("<img ") == len(drawn) + 4
    assert "Feature maps of head for a test scene" in page
    # What tells a classifier's unknown images is of no use here.
    assert not (finished / "novelty.npz").exists()


def test_the_result_and_the_epochs_have_the_mean_average_precision(detector):
    row, summary = detector.result.history[-1], detector.result.summary
    line = epoch_line(row, 2)
    assert f"val mAP {row['val_map']:.4f} (IoU 0.5 {row['val_map_50']:.4f})" in line and len(line) < 80
    lines = result_table({**summary, "test_map": 0.6, "test_map_50": 0.81}).splitlines()
    assert lines[1].split() == ["loss", "accuracy", "mAP", "mAP", "0.5"] and len(lines[2]) == 58
    assert (
        lines[4] == f"test      {summary['test_loss']:>12.4f}{summary['test_accuracy']:>12.4f}      0.6000      0.8100"
    )
    # Of a classifier, as ever.
    others = {key: value for key, value in summary.items() if "_map" not in key}
    assert result_table(others).splitlines()[1:3] == [f"{'':12}{'loss':>10}{'accuracy':>12}", "-" * 34]


def test_a_comparison_of_detectors_is_refused_in_one_line(detector, finished):
    with pytest.raises(cnn.ConfigError, match="^a report of several runs is for classification, but .*yolo"):
        main(["report", str(detector.run_dir), str(finished)])


def test_the_live_page_has_the_boxes_of_validation_scenes(detector):
    state, epochs = detector.result.state, Progress([])
    for row in detector.result.history:
        epochs = epochs.after(row, "val_map")
    subject = live.prepare(detector.run_dir, detector.splits, state)
    looks = live.mistakes(subject, state, 2)
    page = live.render(detector.run_dir, epochs._replace(looks=looks), "training", "Training", 1)
    truth = detector.splits.val.labels[subject.indices[: live_scenes.SCENES]]
    assert page.count('<rect class="true"') == (truth[..., 4] >= 0).sum() > 0
    assert page.count("<svg viewBox") == live_scenes.SCENES and page.count('class="chart"') == 3
    assert "Validation mAP" in page and "by validation mAP: loss" in page
    assert "Scenes are shown here after" in live.mistakes(None, state, 1)


def test_a_box_lies_where_it_is_found_and_a_hostile_name_is_text():
    image, truth = np.zeros((1, 20, 30, 3), np.uint8), np.array([[[1, 2, 11, 6, 0], [0, 0, 0, 0, -1]]])
    fields: Any = np.array([[[5.25, 1, 29, 20], [0, 0, 9, 9]]]), np.array([[0.9, 0.2]]), np.array([[1, 1]])
    found = Detections(*fields)
    html = live_scenes.scenes_section(Subject(("<b>", "<i>"), np.array([4]), image, truth), found, 3)
    assert '<rect class="true" x="1.0" y="2.0" width="10.0" height="4.0"><title>&lt;b&gt;</title>' in html
    assert re.findall('class="predicted" x="([^"]+)" y="([^"]+)" width="([^"]+)"', html) == [("5.2", "1.0", "23.8")]
    assert "<i>" not in html and "&lt;i&gt; 0.90" in html and 'viewBox="0 0 30 20"' in html
