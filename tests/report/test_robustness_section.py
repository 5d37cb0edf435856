"""The section of robustness in a page."""

import json
import re

import pytest

import cnn
from cnn.report.robustness import robustness_section
from tests.trust.examples import robustness_values


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "robustness.json").write_text(json.dumps(robustness_values()))
    return tmp_path


def test_a_run_without_the_file_has_no_section(tmp_path):
    assert robustness_section(tmp_path) == ""


def test_the_section_has_the_numbers_of_the_file(run_dir):
    section, values = robustness_section(run_dir).replace("\u00a0", " "), robustness_values()
    rows = re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', section)
    assert [name for name, _ in rows] == [*values["corruptions"], "FGSM", "PGD"]
    cells = {name: re.findall(r"<td>(.*?)</td>", row) for name, row in rows}
    assert cells["noise"][0] == "75.0 % <small>(0.06)</small>" and len(cells["noise"]) == 5
    assert cells["jpeg"][4] == "64.8 % <small>(0.06)</small>" and cells["mirror"][1:] == [""] * 4
    assert cells["PGD"][5] == "15.5 % <small>(13.4 to 17.9)</small>"
    for text in ("2,000 of the 10,000 test images", "90.00 % (95 % interval", "on 1,000 test images"):
        assert text in section
    assert f"{100 * values['mean_corruption_error']:.2f} %" in section


def test_numbers_of_another_epoch_are_said_to_be_old(run_dir, monkeypatch):
    for epoch, is_old in ((3, False), (7, True)):
        monkeypatch.setattr("cnn.runs.rundir.read_result", lambda run_dir, epoch=epoch: {"best_epoch": epoch})
        assert ("of epoch 3, which is no longer the best one" in robustness_section(run_dir)) == is_old


def test_a_damaged_file_is_one_line(run_dir):
    (run_dir / "robustness.json").write_text("{}")
    with pytest.raises(cnn.RunDirError, match=r"cannot read .*robustness\.json"):
        robustness_section(run_dir)
