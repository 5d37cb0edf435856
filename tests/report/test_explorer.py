"""The explorer: its data against NumPy, and its use with keys and mouse."""

import re
import time

import numpy as np
import pytest

import cnn
from cnn.look import scores
from cnn.report import explorer
from tests.report.pages import NAMES, Explorer, open_page


def test_half_of_the_images_are_the_worst_mistakes_of_each_pair():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), 2000), rng.integers(0, 4, 2000)
    selected, predicted = explorer.select_images(probabilities, labels, 100), probabilities.argmax(1)
    assert len(set(selected)) == 100 and list(selected) == sorted(selected)
    for pair in ((label, other) for label in range(4) for other in range(4) if label != other):
        mistakes = np.flatnonzero((labels == pair[0]) & (predicted == pair[1]))
        worst = mistakes[np.argsort(probabilities[mistakes, pair[0]])]
        # 50 mistakes of 12 pairs: four or five of each.
        assert set(worst[:4]) <= set(selected)
    for label in range(4):
        assert set(np.flatnonzero(labels == label)[:8]) <= set(selected)


def test_few_images_are_all_selected():
    probabilities, labels = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1])
    assert explorer.select_images(probabilities, labels).tolist() == [0, 1, 2, 3]


def test_many_layers_are_reduced_to_blocks():
    assert explorer.select_layers(["conv1", "pool1", "conv2"]) == ["conv1", "pool1", "conv2"]
    names = ["conv", *(f"block{i}{part}" for i in range(1, 10) for part in ("_conv", "_norm", ""))]
    assert explorer.select_layers(names, 4) == ["conv", "block3", "block6", "block9"]


def test_quantization_errors_are_at_most_half_a_level():
    maps = np.random.default_rng(0).normal(size=(3, 5, 4, 2)).astype(np.float32)
    sheet, lowest, highest = explorer.quantize(maps)
    tiles = sheet.reshape(3, 5, 2, 4).transpose(0, 1, 3, 2) / 255
    scale = (highest - lowest)[:, None, None, None]
    assert np.abs(lowest[:, None, None, None] + tiles * scale - maps).max() <= scale.max() / 15 / 2 + 1e-6
    assert set(np.unique(sheet)) <= {17 * level for level in range(explorer.LEVELS)}


def test_fewer_images_are_included_above_the_size_limit(runs, expected, monkeypatch):
    (state, _), test = cnn.load_best(runs.first), runs.splits.test
    full = explorer.explorer_data(state, test, expected.probabilities).data
    size = sum(len(layer["src"]) for layer in full["layers"])
    monkeypatch.setattr(explorer, "MAX_BYTES", size // 3)
    reduced = explorer.explorer_data(state, test, expected.probabilities)
    assert len(reduced.data["images"]) < len(full["images"]) == 300
    # Base64 turns three bytes into four.
    assert sum(len(layer["src"]) for layer in reduced.data["layers"]) < size // 3 * 4 / 3
    assert reduced.images_note.startswith(f"{len(reduced.data['images'])} of the 600 test images")


def test_arrow_keys_select_images(page, expected):
    from selenium.webdriver.common.keys import Keys

    first = page.shown_image()
    page.check_shown(first, expected.probabilities)
    page.find("#next").send_keys(Keys.TAB)
    assert page.browser.switch_to.active_element.get_attribute("id") == "gallery"
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    second = page.shown_image()
    assert second > first
    page.check_shown(second, expected.probabilities)
    page.keys(Keys.END)
    last = page.shown_image()
    assert page.find("#count").text == "300 of 300"
    page.check_shown(last, expected.probabilities)
    page.keys(Keys.HOME)
    assert page.shown_image() == first


def test_the_mouse_selects_an_image_and_a_layer(page, expected):
    page.shown_image()
    # The third image of the second row, each 32 pixels wide.
    page.point(page.find("#gallery"), 2 * 32 + 16, 32 + 16).click().perform()
    columns = int(page.find("#gallery").size["width"] // 32)
    index = page.shown_image()
    assert index == page.data()["images"][columns + 2]["test"]
    page.check_shown(index, expected.probabilities)
    page.find("#next").click()
    assert page.shown_image() == page.data()["images"][columns + 3]["test"]
    page.find("#layers label:first-of-type").click()
    assert page.find(".layer-name").text == "conv1" and page.shown_image("conv1")


@pytest.mark.parametrize("layer", ["conv1", "pool1", "conv2", "pool2"])
def test_maps_of_every_layer_are_those_of_the_network(page, expected, layer):
    """Selected with keys, then read with the mouse."""
    from selenium.webdriver.common.keys import Keys

    page.shown_image()
    layers = list(_layer_names(page))
    page.find("[name=layer]:checked").send_keys(*[Keys.ARROW_LEFT] * (len(layers) - 1 - layers.index(layer)))
    index = page.shown_image(layer)
    maps = expected.maps[layer][index]
    channel, (height, width) = int(maps.max((0, 1)).argmax()), maps.shape[:2]
    row, column = np.unravel_index(maps[..., channel].argmax(), (height, width))
    canvas = page.find("#maps")
    zoom = canvas.size["width"] / (4 * (width + 1) - 1)
    x, y = (channel * (width + 1) + column + 0.5) * zoom, (row + 0.5) * zoom
    page.point(canvas, x, y).perform()
    read = re.fullmatch(r"Map (\d+) of 4, row (\d+), column (\d+): about (-?[\d.]+)", page.find("#map").text)
    assert read and [int(part) for part in read.groups()[:3]] == [channel + 1, row + 1, column + 1]
    # The highest value of all maps is the end of the scale, and exact.
    assert float(read[4]) == pytest.approx(maps.max(), abs=0.006)
    colours = "const c = arguments[0]; const {data} = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
    colours += "return new Set(new Uint32Array(data.buffer)).size"
    assert 3 < page.browser.execute_script(colours, canvas) <= explorer.LEVELS + 1


def _layer_names(page):
    return [radio.get_attribute("value") for radio in page.browser.find_elements("css selector", "[name=layer]")]


def test_filters_select_mistakes_and_classes(page, expected):
    from selenium.webdriver.common.keys import Keys

    page.shown_image()
    predicted, labels = expected.probabilities.argmax(1), page.test.labels
    included = np.array([image["test"] for image in page.data()["images"]])
    page.find("[name=which]:checked").send_keys(Keys.ARROW_RIGHT)
    wrong = included[predicted[included] != labels[included]]
    assert page.shown_image() in wrong and page.find("#count").text.endswith(f" of {len(wrong)}")
    page.find("#true-class").send_keys("Shirt")
    shirts = wrong[labels[wrong] == 6]
    assert page.shown_image() in shirts and page.find("#count").text.endswith(f" of {len(shirts)}")
    page.find("#predicted-class").send_keys("Shirt")
    time.sleep(0.2)
    assert page.find("#prediction").text == "No image in this page matches."


def test_the_confusion_matrix_shows_counts_and_selects_images(page, expected):
    from selenium.webdriver.common.keys import Keys

    confusion = scores.confusion_matrix(page.test.labels, expected.probabilities.argmax(1), 10)
    label, other, wrong = scores.most_confused(confusion)[0]
    page.find(".confusion tbody td").send_keys(*[Keys.ARROW_DOWN] * label, *[Keys.ARROW_RIGHT] * other)
    share = f"{100 * wrong / confusion[label].sum():.1f} %"
    text = f"{NAMES[label]} predicted as {NAMES[other]}: {wrong} of {confusion[label].sum()}, {share}"
    assert page.find("#cell").text == text
    page.keys(Keys.ENTER)
    index = page.shown_image()
    assert (page.test.labels[index], expected.probabilities[index].argmax()) == (label, other)


def test_a_network_without_maps_shows_its_probabilities(browser, runs):
    open_page(browser, runs.dense / "report.html")
    page = Explorer(browser, runs.splits.test)
    state, _ = cnn.load_best(runs.dense)
    page.find("#next").click()
    page.check_shown(page.shown_image(""), np.asarray(cnn.predict(state, runs.splits.test.images)))
    assert browser.find_elements("css selector", ".layered, #maps, [name=layer]") == []
