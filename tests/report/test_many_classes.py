"""Pages of runs with many classes, and with images of other shapes."""

import dataclasses

import numpy as np
import pytest

import cnn
from cnn.look import scores
from cnn.look.batches import by_batches
from cnn.report import classes, explorer, report
from cnn.resolution import resolve
from cnn.runs.result import Result
from cnn.text import shortened
from tests.report.pages import Explorer, open_page, set_viewport

NAMES = tuple(f"<b>{'이름' if label % 2 else 'a very long name of a class'} {label}" for label in range(40))


@pytest.fixture(scope="module")
def many(config, tmp_path_factory):
    """The page of a network for 40 classes of colour images that are wider than high, and what it shows."""
    rng, directory = np.random.default_rng(0), tmp_path_factory.mktemp("many")
    labels = np.arange(120, dtype=np.int32) % 40
    splits = cnn.Splits(*(cnn.Split(rng.integers(0, 256, (120, 8, 12, 3), np.uint8), labels) for _ in range(3)))
    data = dataclasses.replace(config.data, name="images", class_names=NAMES)
    config = resolve(dataclasses.replace(config, data=data), (8, 12, 3))
    # Not trained, which would take most of the time.
    state = cnn.create_state(config)
    probabilities = np.asarray(cnn.predict(state, splits.test.images))
    summary = {"test_loss": 0, "val_loss": 0, "val_accuracy": 0, "best_epoch": 0, "stopped_epoch": 0, "params": 0}
    result = Result(state, [], {**summary, "seconds": {}})
    description = {"devices": {}, "versions": {}, "data_sha256": ""}
    run = report.EvaluatedRun(directory, description, config, result, splits, probabilities)
    (directory / "report.html").write_text(report.run_page(run), encoding="utf-8")
    return directory / "report.html", splits.test, state, probabilities


def test_the_matrix_of_many_classes_is_used_with_keys(browser, many):
    from selenium.webdriver.common.keys import Keys

    page, test, _, probabilities = many
    assert len(page.read_text()) < 5_000_000 and "<b>" not in page.read_text()
    confusion = scores.confusion_matrix(test.labels, probabilities.argmax(1), 40)
    browser.get_log("browser")
    open_page(browser, page)
    explorer_page = Explorer(browser, test)
    explorer_page.shown_image()
    assert browser.get_log("browser") == []
    cells = "return [...document.querySelectorAll('.confusion tbody td')].map(cell => +cell.textContent)"
    np.testing.assert_array_equal(browser.execute_script(cells), confusion.ravel())
    label, other, wrong = scores.most_confused(confusion)[0]
    explorer_page.find(".confusion tbody td").send_keys(*[Keys.ARROW_DOWN] * label, *[Keys.ARROW_RIGHT] * other)
    text = f"{NAMES[label]} predicted as {NAMES[other]}: {wrong} of 3, {100 * wrong / 3:.1f} %"
    cell = browser.switch_to.active_element
    assert explorer_page.find("#cell").text == cell.get_attribute("title").replace("\xa0", " ") == text
    assert cell.size["width"] == cell.size["height"] <= 16
    names = [name.text for name in browser.find_elements("css selector", ".confusion .current")]
    assert names == [shortened(NAMES[other], classes.NAME), shortened(NAMES[label], classes.NAME)]
    explorer_page.keys(Keys.ENTER)
    index = explorer_page.shown_image()
    assert (test.labels[index], probabilities[index].argmax()) == (label, other)
    bars = [row.text for row in browser.find_elements("css selector", "#bars .value")]
    assert len(bars) == 10 and bars[0] == f"{100 * probabilities[index].max():.1f} %"
    assert browser.find_elements("css selector", "#bars .true")
    set_viewport(browser, 390, "dark")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_an_images_highest_probabilities_include_the_true_class():
    probabilities = np.arange(30) / 435
    image = explorer._image_data(0, 3, probabilities)
    assert image["classes"] == [29, 28, 27, 26, 25, 24, 23, 22, 21, 3] and image["predicted"] == 29
    np.testing.assert_allclose(image["probabilities"], probabilities[image["classes"]], atol=1e-7)
    assert explorer._image_data(0, 3, probabilities[:10])["classes"] == list(range(10))


def test_of_very_many_classes_those_with_the_most_errors_are_in_the_matrix():
    confusion = np.eye(6, dtype=int)
    confusion[1, 4], confusion[2, 1] = 5, 1
    assert classes.most_mistaken(confusion.tolist(), 3) == [1, 2, 4]
    assert classes.most_mistaken(confusion.tolist()) == list(range(6))


def test_large_maps_and_images_are_reduced_to_some_of_their_pixels(many, monkeypatch):
    _, test, state, probabilities = many
    monkeypatch.setattr(explorer, "MAP_SIDE", 6)
    monkeypatch.setattr(explorer, "IMAGE_SIDE", 4)
    full = {"conv1": (4, 6, 2), "pool1": (4, 6, 1), "conv2": (4, 6, 1), "pool2": (2, 3, 1)}
    reduced = explorer.explorer_data(state, test, probabilities)
    assert {layer["name"]: (layer["height"], layer["width"], layer["step"]) for layer in reduced.data["layers"]} == full
    assert reduced.data["size"] == (3, 4)
    assert "of maps larger than 6 pixels, up to one in 2 rows and columns is included" in reduced.layers_note


def test_many_large_photographs_are_compressed_to_the_size_limit(many, monkeypatch):
    _, test, state, probabilities = many
    monkeypatch.setattr(explorer, "LOSSLESS_BYTES", 20_000)
    monkeypatch.setattr(explorer, "SHEET_BYTES", 0)
    monkeypatch.setattr(explorer, "MAX_BYTES", 30_000)
    data = explorer.explorer_data(state, test, probabilities).data
    assert 0 < len(data["images"]) < 120
    assert len(data["src"]) + sum(len(layer["src"]) + len(layer["cam"]) for layer in data["layers"]) < 30_000 * 4 / 3


def test_batches_hold_at_most_a_number_of_pixels():
    images, calls = np.arange(5 * 2 * 3).reshape(5, 2, 3, 1), []

    def sums(images_BxHxWxC, factors_B):
        calls.append(len(images_BxHxWxC))
        return {"sums": images_BxHxWxC.sum((1, 2, 3)) * factors_B}

    outputs = by_batches(sums, 13, images, np.arange(5))
    np.testing.assert_array_equal(outputs["sums"], images.sum((1, 2, 3)) * np.arange(5))
    assert calls == [2, 2, 1]
    assert len(by_batches(lambda images: images, 1, images)) == 5
