"""The review of suspects: the command, the page in a browser, and its CSV in the next run."""

import csv
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import cnn
from cnn.__main__ import main
from cnn.data.labels import read_decisions
from cnn.report import review
from cnn.text import read_json
from tests.helpers import ROOT, narrow
from tests.report.pages import set_viewport

CLASSES = ("plain", 'a "quoted", one', "</script><script>harmed=1</script>")


@pytest.fixture(scope="module")
def reviewed(config, splits, tmp_path_factory):
    """A run on 360 of one's own images, three classes with awkward names, and the output of its labels command."""
    root = tmp_path_factory.mktemp("labels")
    chosen = np.concatenate([np.flatnonzero(splits.train.labels == label)[:120] for label in (0, 1, 7)])
    images, classes = splits.train.images[chosen, ..., 0], np.repeat(np.arange(3), 120)
    # Wrong ones, which even a little training finds.
    classes[[5, 125, 245]] = [1, 2, 0]
    np.savez(root / "images.npz", x_train=images, y_train=classes)
    data = cnn.DataConfig(name="images", source=str(root / "images.npz"), class_names=CLASSES)
    optim = dataclasses.replace(config.optim, learning_rate=1e-2, batch_size=16)
    config = dataclasses.replace(narrow(config, epochs=4), data=data, optim=optim)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dropout_rate=0.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "home"))
        cnn.fit(config, root / "run")
        main(["labels", str(root / "run"), "--folds", "3"])
        yield root / "run", config


def test_the_command_lists_the_changed_labels_beside_the_run(reviewed):
    run_dir, config = reviewed
    values = read_json(run_dir.parent / "run-labels" / "labels.json")
    splits = cnn.load_data(config.data)
    given = np.concatenate([splits.train.labels, splits.val.labels])
    assert values["images"] == len(given) and 3 <= len(values["suspects"]) < 60
    for suspect in values["suspects"]:
        assert suspect["label"] == CLASSES[given[suspect["index"]]] != suspect["suggestion"]
        assert (suspect["split"] == "training") == (suspect["index"] < len(splits.train.labels))
        assert suspect["label_probability"] <= values["threshold"] + 1e-6
    ranks = [suspect["label_probability"] for suspect in values["suspects"]]
    assert ranks == sorted(ranks)
    assert [row["images"] for row in values["classes"]] == np.bincount(given).tolist()
    assert sum(row["suspects"] for row in values["classes"]) == len(values["suspects"])
    with pytest.raises(cnn.ConfigError, match="which is in the run .*; name a directory beside it"):
        main(["labels", str(run_dir), "--output", str(run_dir / "labels")])
    with pytest.raises(cnn.ConfigError, match="--folds is 2, but must be an integer from 3 to 20"):
        main(["labels", str(run_dir), "--folds", "2"])


class Review:
    """The page in the browser."""

    def __init__(self, browser, page):
        from selenium.webdriver.support.ui import WebDriverWait

        self.browser = browser
        set_viewport(browser, 1000, "light")
        browser.get(page.as_uri())
        WebDriverWait(browser, 20).until(lambda _: self.find("#review").get_attribute("data-ready") == "true")

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def text(self, selector):
        return self.find(selector).text

    def keys(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser, duration=0).send_keys(*keys).perform()

    def downloaded(self):
        """The content of the file that the button downloads."""
        self.browser.execute_script("URL.createObjectURL = blob => { window.saved = blob.text(); return '#'; }")
        self.find("#download").click()
        return self.browser.execute_async_script("window.saved.then(arguments[0])")


def test_decisions_by_keyboard_survive_a_reload_and_change_the_next_run(browser, reviewed, tmp_path):
    from selenium.webdriver.common.keys import Keys

    run_dir, config = reviewed
    page = run_dir.parent / "run-labels" / "labels.html"
    suspects = read_json(page.with_name("labels.json"))["suspects"]
    browser.get(page.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.get_log("browser")
    shown, count = Review(browser, page), len(suspects)
    assert browser.switch_to.active_element.get_attribute("id") == "gallery"
    assert shown.text("#decided") == f"0 of {count} decided" and shown.text("#label") == suspects[0]["label"]
    shown.keys("c")
    assert shown.text("#label") == suspects[1]["label"] and shown.text("#suggestion") == suspects[1]["suggestion"]
    shown.keys("d", "k", "u", "d", Keys.ARROW_LEFT)
    assert shown.text("#decision") == "dropped" and shown.text("#decided") == f"3 of {count} decided"
    # Another class than the suggestion, by the list and with the mouse; the list has keys of its own.
    shown.keys(Keys.HOME)
    assert shown.text("#decision") == f"changed to {suspects[0]['suggestion']}"
    other = next(name for name in CLASSES if name not in (suspects[0]["suggestion"], suspects[0]["label"]))
    shown.find("#class").send_keys(other[:3])
    assert shown.text("#decided") == f"3 of {count} decided"
    shown.find("#change").click()
    shown = Review(browser, page)
    assert shown.text("#decided") == f"3 of {count} decided"
    assert shown.text("#about").startswith(f"4 of {count}: ")
    rows = list(csv.reader(shown.downloaded().splitlines()))
    assert rows == [
        ["index", "given", "action", "label"],
        [str(suspects[0]["index"]), suspects[0]["label"], "change", other],
        [str(suspects[1]["index"]), suspects[1]["label"], "drop", ""],
        [str(suspects[2]["index"]), suspects[2]["label"], "drop", ""],
    ]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return typeof harmed") == "undefined"
    (tmp_path / "labels.csv").write_text(shown.downloaded(), encoding="utf-8")
    before = cnn.load_data(config.data)
    after = cnn.load_data(dataclasses.replace(config.data, labels=str(tmp_path / "labels.csv")))
    expected = np.concatenate([before.train.labels, before.val.labels])
    expected[suspects[0]["index"]] = CLASSES.index(other)
    dropped = [suspect["index"] for suspect in suspects[1:3]]
    np.testing.assert_array_equal(np.concatenate([after.train.labels, after.val.labels]), np.delete(expected, dropped))
    # A decision is taken back after the reload, too.
    shown.keys("u")
    assert shown.text("#decision") == f"changed to {suspects[0]['suggestion']}"


def test_decided_images_are_no_suspects_of_the_next_run_and_its_csv_repeats_them(reviewed, tmp_path):
    run_dir, config = reviewed
    suspects = read_json(run_dir.parent / "run-labels" / "labels.json")["suspects"]
    rows = [(suspects[0]["index"], suspects[0]["label"], "keep", "")]
    rows += [(suspects[1]["index"], suspects[1]["label"], "change", suspects[1]["suggestion"])]
    with (tmp_path / "first.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("index", "given", "action", "label"), *rows])
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, labels=str(tmp_path / "first.csv")))
    cnn.fit(config, tmp_path / "run")
    findings, (_, page) = review.write_labels(tmp_path / "run", tmp_path / "run-labels", 3)
    assert not {row[0] for row in rows} & {suspect["index"] for suspect in findings.values["suspects"]}
    data = json.loads(page.read_text().split('type="application/json">')[1].split("</script>")[0])
    (tmp_path / "second.csv").write_text(data["head"])
    splits = cnn.load_data(dataclasses.replace(config.data, labels=None))
    given = np.concatenate([splits.train.labels, splits.val.labels])
    assert [tuple(row) for row in read_decisions(str(tmp_path / "second.csv"), given, CLASSES)] == rows


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_its_width_and_has_contrast(browser, reviewed, width, scheme):
    from tests.report.test_page import CONTRAST

    shown = Review(browser, reviewed[0].parent / "run-labels" / "labels.html")
    set_viewport(browser, width, scheme)
    shown.keys("k")
    contrasts = [pair for pair in browser.execute_script(CONTRAST) if "Undo" not in pair[1]]
    assert len(contrasts) > 25 and min(contrasts)[0] >= 4.5, min(contrasts)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_of_many_or_large_images_as_many_are_shown_as_the_page_has_room_for(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (60, 150, 140, 3), np.uint8)
    monkeypatch.setattr(review, "SHEET_BYTES", 60_000)
    sheet = review.encode_images(noise)
    assert 0 < sheet.images < 60 and len(sheet.url) < 60_000 * 4 / 3 + 100
    # Each second pixel of those with more than 128.
    assert (sheet.height, sheet.width) == (75, 70)
    assert review.encode_images(noise[:0]).images == 0


def test_a_signal_stops_it_resumably(reviewed, tmp_path):
    run_dir, _ = reviewed
    program = (
        "import os, signal, sys, cnn.__main__ as verbs, cnn.trust.folds as folds\n"
        "fit = folds.fit\n"
        "def stopped(config, place, splits):\n"
        "    return fit(config, place, splits, report=lambda row: os.kill(os.getpid(), signal.SIGTERM))\n"
        "folds.fit = stopped\n"
        f"sys.exit(verbs.exit_status(lambda: verbs.main(['labels', {str(run_dir)!r}, '--folds', '3', "
        f"'--output', {str(tmp_path / 'labels')!r}])))"
    )
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 143, process.stderr
    assert process.stderr.splitlines()[-1] == "stopped; the same command resumes"
    assert (tmp_path / "labels" / "fold-1-of-3" / "metrics.jsonl").read_text().count("\n") == 1
    main(["labels", str(run_dir), "--folds", "3", "--output", str(tmp_path / "labels")])
    actual, expected = (
        read_json(directory / "labels.json") for directory in (tmp_path / "labels", run_dir.parent / "run-labels")
    )
    # Another process has trained a part, whose programs may be compiled otherwise; test_resume compares the bits.
    for suspect, other in zip(actual.pop("suspects"), expected.pop("suspects"), strict=True):
        assert suspect == {name: pytest.approx(value, abs=1e-3) for name, value in other.items()}
    assert actual == expected
