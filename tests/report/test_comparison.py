"""The page that compares runs: differences, verdicts, curves."""

import json
import re
import shutil

import pytest

import cnn
from cnn.__main__ import main
from cnn.report import comparison
from tests.report.pages import open_page


def test_runs_on_other_data_are_refused(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs.second, other)
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(re.sub(r'"data_sha256": "\w', '"data_sha256": "_', text))
    with pytest.raises(
        cnn.RunDirError, match=r"other uses other data, or another split of it, than .*; only runs on the same"
    ):
        main(["report", str(runs.second), str(other), "--output", str(tmp_path / "page.html")])
    assert not (tmp_path / "page.html").exists()


def test_the_comparison_has_differences_and_changed_fields(runs):
    text = runs.comparison.read_text()
    rows = dict(re.findall(r'<th scope="row"><code>([\w.]+)</code></th><td class="text">(.*?)</td>', text))
    assert (rows["train.seed"], rows["model.family"], rows["model.conv1_features"]) == ("0", "cnn", "4")
    assert "optim.learning_rate" not in rows
    results = [json.loads((run / "result.json").read_text())["test_accuracy"] for run in runs.directories]
    for accuracy in results[1:]:
        assert f"<td>{100 * (accuracy - results[0]):+.2f}<small>" in text


@pytest.mark.parametrize(("interval", "kind"), [((0.1, 0.2), "better"), ((-0.2, -0.1), "worse"), ((-0.1, 0.1), "")])
def test_a_difference_counts_if_its_interval_excludes_zero(interval, kind):
    words, actual = comparison.difference_verdict(*interval)
    assert actual == kind and words.startswith("yes" if kind else "no")


def test_the_curves_show_every_run_for_both_splits(browser, runs):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    open_page(browser, runs.comparison)
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in runs.directories]
    histories = [[json.loads(line) for line in run_lines] for run_lines in lines]
    for split in ("val", "train"):
        if split == "train":
            browser.find_element("css selector", "[name=split]:checked").send_keys(Keys.ARROW_RIGHT)
        plot = browser.find_element("css selector", ".u-over")
        half = int(plot.size["width"] / 4)
        ActionChains(browser, duration=0).move_to_element_with_offset(plot, half - 1, 0).move_by_offset(1, 1).perform()
        shown = [cell.text for cell in browser.find_elements("css selector", ".u-value")[:4]]
        assert shown == ["2", *(f"{rows[1][f'{split}_loss']:.4f}" for rows in histories)]
