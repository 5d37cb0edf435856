"""The report's section on the unknown, and the explorer's words on each image."""

import json
import re
import shutil

import numpy as np
import pytest

import cnn
from cnn.report import unknown
from cnn.runs import outputs
from cnn.trust import reference
from cnn.trust.novelty import BEST, SCORES
from tests.report.pages import Explorer, open_page

ROW = {"images": 9, "auroc": 0.75, "auroc_interval": [0.5, 0.875], "fpr": 0.25, "fpr_interval": [0.125, 0.5]}


@pytest.fixture
def run(runs, tmp_path):
    """A copy of a run, and its best state."""
    run_dir = shutil.copytree(runs.first, tmp_path / "run")
    return run_dir, cnn.load_best(run_dir)[0]


def _values(run_dir, state):
    kinds = {"digits": {**ROW, "flagged": 1.0}, "<b>noise": {**ROW, "flagged": 0.5}}
    score = {"threshold": 1.0, "flagged": 0.0625, "unknown": kinds}
    return {
        "best_score": BEST,
        "images": 1234,
        "scores": {name: {**score, "name": f"name of {name}"} for name in SCORES},
        "network_sha256": reference.network_digest(run_dir, state),
    }


def test_the_section_has_a_row_for_each_kind_and_score_and_no_markup_of_others(run):
    run_dir, state = run
    assert unknown.unknown_section(run_dir, state) == ""
    (run_dir / "unknown.json").write_text(json.dumps(_values(run_dir, state)))
    section = unknown.unknown_section(run_dir, state)
    assert section.count('<th scope="row">digits') == section.count("&lt;b&gt;noise") == len(SCORES)
    assert "<b>" not in section and section.count(f"<strong>name of {BEST}</strong>") == 2
    for text in ("0.7500", "0.5000 to 0.8750", "0.2500", "0.1250 to 0.5000", "1,234", "6.2\u00a0%", "100.0\u00a0%"):
        assert text in section


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {}},
        {"scores": {BEST: {"unknown": {"digits": {}}}}},
        {"best_score": "mine"},
        {"images": None},
    ],
    ids=str,
)
def test_a_damaged_file_is_one_line_as_one_of_robustness_is(run, change):
    run_dir, state = run
    (run_dir / "unknown.json").write_text(json.dumps({**_values(run_dir, state), **change}))
    # A page without the section would look like that of a run of which this was never measured.
    with pytest.raises(cnn.RunDirError, match=r"cannot read .*unknown\.json.*; remove it, or python -m cnn evaluate "):
        unknown.unknown_section(run_dir, state)


def test_numbers_outside_of_their_range_are_one_line(run):
    run_dir, state = run
    values = _values(run_dir, state)
    values["scores"][BEST]["unknown"]["digits"]["auroc"] = 7.5
    (run_dir / "unknown.json").write_text(json.dumps(values))
    with pytest.raises(cnn.RunDirError, match=r"cannot read .*unknown\.json"):
        unknown.unknown_section(run_dir, state)


def test_numbers_of_another_network_are_said_to_be_such(run):
    run_dir, state = run
    values, note = _values(run_dir, state), "These are the numbers of another network"
    (run_dir / "unknown.json").write_text(json.dumps(values))
    assert note not in unknown.unknown_section(run_dir, state)
    for change in ({"network_sha256": "other"}, {"network_sha256": None}):
        (run_dir / "unknown.json").write_text(json.dumps({**values, **change}))
        section = unknown.unknown_section(run_dir, state)
        assert note in section and "0.7500" in section


@pytest.mark.parametrize("is_writable", [True, False])
def test_the_explorers_images_are_marked_also_if_the_run_does_not_keep_what_that_needs(run, runs, is_writable):
    run_dir, state = run
    entries = [{"test": 5}, {"test": 17}]
    images = np.array(runs.splits.test.images)
    images[17] = np.random.default_rng(0).integers(0, 256, images[17].shape, np.uint8)
    images[5] = runs.splits.train.images[3]
    (run_dir / outputs.NOVELTY).unlink(missing_ok=True)
    if not is_writable:
        (run_dir / outputs.NOVELTY / "mine").mkdir(parents=True)
    splits = runs.splits._replace(test=runs.splits.test._replace(images=images))
    for _ in range(2):
        unknown.mark_unlike(run_dir, state, splits, entries)
        assert entries == [{"test": 5, "unlike": False}, {"test": 17, "unlike": True}]
    assert (run_dir / outputs.NOVELTY).is_file() == is_writable


@pytest.mark.parametrize(("unlike", "words"), [("true", "unlike"), ("false", "like")])
def test_the_explorer_says_whether_an_image_is_unlike_the_training_images(browser, runs, tmp_path, unlike, words):
    text = (runs.first / "report.html").read_text()
    (tmp_path / "page.html").write_text(re.sub(r'"unlike":\w+', f'"unlike":{unlike}', text))
    open_page(browser, tmp_path / "page.html")
    page = Explorer(browser, runs.splits.test)
    page.shown_image()
    assert page.find("#prediction").text.endswith(f" %; {words} the training images.")
