"""The report: its numbers against NumPy, and its pages as a reader finds them, in Chromium."""

import dataclasses
import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnn
from cnn import intervals
from cnn.__main__ import main
from cnn.datasets import DATASETS
from cnn.look import scores
from cnn.report import comparison, explorer, report
from tests.helpers import narrow

HOSTILE = "</script><script>harmed=1</script>"
NAMES = (*cnn.class_names(cnn.DataConfig())[:9], HOSTILE)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


# Numbers


@pytest.mark.parametrize(("ours", "theirs", "both"), [(900, 850, 8000), (30, 60, 500), (5, 5, 90)])
def test_the_interval_of_a_difference_is_that_of_mcnemars_variance(ours, theirs, both):
    """The normal approximation of a paired difference: sqrt(b + c - (b - c)^2 / n) / n."""
    count = ours + theirs + both + 50
    right = np.repeat([True, False, True, False], [ours, theirs, both, 50])
    other = np.repeat([False, True, True, False], [ours, theirs, both, 50])
    low, high = intervals.difference_interval(right, other)
    half = 1.96 * np.sqrt(ours + theirs - (ours - theirs) ** 2 / count) / count
    # To a tenth: both ends are estimates from draws, on a grid of 1 / n.
    assert (low + high) / 2 == pytest.approx((ours - theirs) / count, abs=0.1 * half + 1 / count)
    assert (high - low) / 2 == pytest.approx(half, abs=0.1 * half + 1 / count)
    assert intervals.difference_interval(right, other) == (low, high)


def test_counts_are_drawn_as_images_are_drawn():
    """The same interval from drawing the images themselves, each with both networks' answers."""
    rng = np.random.default_rng(5)
    right, other = rng.random(400) < 0.8, rng.random(400) < 0.7
    drawn = rng.integers(0, 400, (4000, 400))
    wanted = np.percentile(right[drawn].mean(1) - other[drawn].mean(1), [2.5, 97.5])
    np.testing.assert_allclose(intervals.difference_interval(right, other), wanted, atol=0.006)


def test_a_network_does_not_differ_from_itself():
    right = np.array([True, False, True])
    assert intervals.difference_interval(right, right) == (0, 0)
    # Two that agree on no image, of whose shares the sum is above 1 by a rounding error.
    right = np.arange(5) < 4
    low, high = intervals.difference_interval(right, ~right)
    assert -1 <= low < 0.6 < high <= 1


def test_half_of_the_chosen_images_are_mistakes_each_pairs_worst_first():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), 2000), rng.integers(0, 4, 2000)
    chosen, predicted = explorer.chosen_images(probabilities, labels, 100), probabilities.argmax(1)
    assert len(set(chosen)) == 100 and list(chosen) == sorted(chosen)
    for pair in ((label, other) for label in range(4) for other in range(4) if label != other):
        there = np.flatnonzero((labels == pair[0]) & (predicted == pair[1]))
        worst = there[np.argsort(probabilities[there, pair[0]])]
        # 50 mistakes of 12 pairs: four or five of each.
        assert set(worst[:4]) <= set(chosen)
    for label in range(4):
        assert set(np.flatnonzero(labels == label)[:8]) <= set(chosen)


def test_few_images_are_all_chosen():
    probabilities, labels = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1])
    assert explorer.chosen_images(probabilities, labels).tolist() == [0, 1, 2, 3]


def test_many_layers_are_thinned_to_whole_blocks():
    assert explorer.chosen_layers(["conv1", "pool1", "conv2"]) == ["conv1", "pool1", "conv2"]
    names = ["conv", *(f"block{i}{part}" for i in range(1, 10) for part in ("_conv", "_norm", ""))]
    assert explorer.chosen_layers(names, 4) == ["conv", "block3", "block6", "block9"]


def test_maps_lose_half_a_step_at_most():
    maps = np.random.default_rng(0).normal(size=(3, 5, 4, 2)).astype(np.float32)
    sheet, lowest, highest = explorer.quantized(maps)
    tiles = sheet.reshape(3, 5, 2, 4).transpose(0, 1, 3, 2) / 255
    scale = (highest - lowest)[:, None, None, None]
    assert np.abs(lowest[:, None, None, None] + tiles * scale - maps).max() <= scale.max() / 15 / 2 + 1e-6
    assert set(np.unique(sheet)) <= {17 * level for level in range(explorer.LEVELS)}


# Pages


@pytest.fixture(scope="module")
def runs(config, splits, tmp_path_factory):
    """Three narrow runs, one of them without pixels in its layers, and their pages; a class has a hostile name."""
    root = tmp_path_factory.mktemp("report")
    data = cnn.Splits(*(cnn.Split(split.images[:600], split.labels[:600]) for split in splits))
    first = narrow(config)
    second = narrow(config, seed=1)
    dense = dataclasses.replace(first, name="dense", model=cnn.DenseConfig())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnn.runs.result.load_data", lambda config: data)
        patch.setattr(report, "model_class_names", lambda config: NAMES)
        run_dirs = [root / name for name in ("first<img src=x onerror=harmed=1>", "second", "dense")]
        for run_dir, configuration in zip(run_dirs, (first, second, dense), strict=True):
            cnn.fit(configuration, run_dir, data)
        # Noise is large however it is compressed.
        noise = np.random.default_rng(0).integers(0, 256, (1600, 1600), np.uint8)
        (run_dirs[0] / "figures").mkdir()
        for name in ("feature_maps_conv1", "learning_curves", "mine"):
            Image.fromarray(noise).save(run_dirs[0] / "figures" / f"{name}.png")
        main(["report", str(run_dirs[0])])
        main(["report", str(run_dirs[2])])
        main(["report", *map(str, run_dirs), "--output", str(root / "all.html")])
    return *run_dirs, root / "all.html", data


@pytest.fixture(scope="module")
def expected(runs):
    """What the first run's network makes of its test images."""
    state, _ = cnn.load_best(runs[0])
    images = runs[-1].test.images
    maps = {name: np.asarray(of) for name, of in cnn.feature_maps(state, images).items()}
    return np.asarray(cnn.predict(state, images)), maps


def _data(page: Path):
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_where_there_is_no_room_fewer_images_are_embedded(runs, expected, monkeypatch):
    (state, _), test = cnn.load_best(runs[0]), runs[-1].test
    whole = explorer.embed(state, test, expected[0]).data
    size = sum(len(layer["src"]) for layer in whole["layers"])
    monkeypatch.setattr(explorer, "MAX_BYTES", size // 3)
    less = explorer.embed(state, test, expected[0])
    assert len(less.data["images"]) < len(whole["images"]) == 300
    # As text, three bytes are four.
    assert sum(len(layer["src"]) for layer in less.data["layers"]) < size // 3 * 4 / 3
    assert less.images.startswith(f"{len(less.data['images'])} of the 600 test images")


class _Addresses(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "style")]


def test_a_page_needs_nothing_else_and_is_small(runs):
    for page in (runs[0] / "report.html", runs[2] / "report.html", runs[3]):
        text, addresses = page.read_text(encoding="utf-8"), _Addresses()
        addresses.feed(text)
        assert all(address.startswith(("#", "data:image/webp;base64,", "data:,")) for address in addresses.found)
        assert "default-src 'none'; script-src 'sha256-" in text and "unsafe" not in text.split("<style>")[0]
        assert text.startswith('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">')
        # Of scripts, the page's own and its data.
        assert addresses.tags.count("script") == text.count("<script") <= 4 and len(text) < 5_000_000


def test_the_page_has_the_numbers_of_the_run(runs, expected):
    text, result = (runs[0] / "report.html").read_text(), json.loads((runs[0] / "result.json").read_text())
    low, high = intervals.accuracy_interval(round(600 * result["test_accuracy"]), 600)

    def percent(share):
        return f"{100 * share:.2f}\u00a0%"

    for wanted in (percent(result["test_accuracy"]), f"{percent(low)} to {percent(high)}", f"{result['params']:,}"):
        assert wanted in text
    assert all(name in text for name in DATASETS["fashion_mnist"].korean_names)
    # Epochs, and the three widths of a narrow network.
    assert re.search(r"\b4 of \d\d fields differ from the defaults", text)
    data = _data(runs[0] / "report.html")
    labels = runs[-1].test.labels
    wanted = scores.confusion_matrix(labels, expected[0].argmax(1), 10)
    np.testing.assert_array_equal(data["confusion"], wanted)
    shown = [image["test"] for image in data["explorer"]["images"]]
    found = [image["probabilities"] for image in data["explorer"]["images"]]
    np.testing.assert_allclose(found, expected[0][shown], atol=1e-6)


def test_figures_are_in_the_page_with_what_is_in_them(runs):
    found = re.findall(
        r'<img src="[^"]+" width="\d+" height="\d+" alt="([^"]+)"', (runs[0] / "report.html").read_text()
    )
    assert [said.split(",")[0] for said in found] == [
        "Loss and accuracy by epoch",
        "What conv1 makes of the first training image",
        "Mine",
    ]
    assert "<img" not in (runs[2] / "report.html").read_text()


def test_a_damaged_figure_is_one_line(runs, tmp_path):
    shutil.copytree(runs[2], tmp_path / "run")
    (tmp_path / "run" / "figures").mkdir()
    (tmp_path / "run" / "figures" / "model.png").write_bytes(b"\x89PNG")
    with pytest.raises(cnn.RunDirError, match=r"model\.png is not a picture that can be read; python -m cnn look "):
        report._figures(tmp_path / "run")


def test_what_a_run_cannot_report_is_one_line(runs, tmp_path):
    with pytest.raises(cnn.RunDirError, match=r"config\.json"):
        main(["report", str(tmp_path)])
    with pytest.raises(cnn.ConfigError, match="no run is named"):
        main(["report"])
    with pytest.raises(cnn.ConfigError, match="--output is .*nowhere.* would lie in"):
        main(["report", str(runs[0]), "--output", str(tmp_path / "nowhere" / "page.html")])
    with pytest.raises(cnn.ConfigError, match=f"{runs[1]} is named more than once"):
        main(["report", str(runs[2]), str(runs[1]), str(runs[1])])


def test_runs_on_other_data_are_not_compared(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(re.sub(r'"data_sha256": "\w', '"data_sha256": "_', text))
    with pytest.raises(
        cnn.RunDirError,
        match=r"other is of other data, or another split of it, than .*; only runs on the same",
    ):
        main(["report", str(runs[1]), str(other), "--output", str(tmp_path / "page.html")])
    assert not (tmp_path / "page.html").exists()


def test_the_comparison_has_differences_and_only_the_fields_that_differ(runs):
    text = runs[3].read_text()
    rows = dict(re.findall(r'<th scope="row"><code>([\w.]+)</code></th><td class="text">(.*?)</td>', text))
    assert (rows["train.seed"], rows["model.family"], rows["model.conv1_features"]) == ("0", "cnn", "4")
    assert "optim.learning_rate" not in rows
    results = [json.loads((run / "result.json").read_text())["test_accuracy"] for run in runs[:3]]
    for accuracy in results[1:]:
        assert f"<td>{100 * (accuracy - results[0]):+.2f}<small>" in text


@pytest.mark.parametrize(("interval", "kind"), [((0.1, 0.2), "better"), ((-0.2, -0.1), "worse"), ((-0.1, 0.1), "")])
def test_a_difference_is_more_than_noise_if_its_interval_has_no_0(interval, kind):
    words, found = comparison.difference_verdict(*interval)
    assert found == kind and words.startswith("yes" if kind else "no")


# In a browser


@pytest.fixture(scope="module")
def browser():
    if not BROWSER or not DRIVER:
        pytest.skip("there is no Chromium with its driver; make browser, or apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # As root, Chromium has no sandbox; it opens nothing but these pages.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def _look(browser, width, scheme):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _open(browser, page: Path):
    _look(browser, 1440, "light")
    browser.get(page.as_uri())


@pytest.fixture
def opened(browser, runs):
    """The first run's page, opened anew, with what is needed to use it."""
    _open(browser, runs[0] / "report.html")
    return Opened(browser, runs[-1].test)


class Opened:
    """The explorer, as a reader sees it."""

    def __init__(self, browser, test):
        self.browser, self.test = browser, test

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def shown(self, layer="pool2"):
        """The number of the test image that is shown, once the pictures are those of the text and the layer."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            said = re.match(r"Test image ([\d,]+) ", self.find("#prediction").text)
            drawn = self.find("#explorer").get_attribute("data-shown")
            if said and drawn == f"{said[1].replace(',', '')} {layer}":
                return int(drawn.split()[0])
            time.sleep(0.02)
        raise AssertionError(f"{self.find('#prediction').text!r} is not drawn")

    def keys(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser, duration=0).send_keys(*keys).perform()

    def point(self, element, x, y):
        """Moves the mouse to a place in an element, in CSS pixels from its top left corner."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.browser.execute_script("arguments[0].parentElement.scrollIntoView({block: 'center'})", element)
        # Selenium would count from the middle of what can be seen of it.
        box = self.browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", element)
        actions = ActionChains(self.browser, duration=0)
        actions.w3c_actions.pointer_action.move_to_location(int(box["x"] + x), int(box["y"] + y))
        return actions

    def pixels(self, canvas):
        return np.array(
            self.browser.execute_script(
                "const c = document.querySelector(arguments[0]);"
                "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]",
                canvas,
            )
        )


def _check_shown(opened, index, probabilities):
    """The page shows this image, to the pixel, and what the network makes of it."""
    said, label = probabilities[index].argmax(), opened.test.labels[index]
    assert opened.find("#prediction").text == (
        f"Test image {index} is of class {NAMES[label]}; the network says {NAMES[said]}, "
        f"with a probability of {100 * probabilities[index, said]:.1f} %."
    )
    np.testing.assert_array_equal(opened.pixels("#image")[::4], 255 - opened.test.images[index].ravel())
    bars = [row.text for row in opened.browser.find_elements("css selector", "#bars .value")]
    assert bars == [f"{100 * probability:.1f} %" for probability in probabilities[index]]


def test_a_page_opens_without_errors_and_asks_nothing_of_the_network(browser, runs):
    browser.get_log("performance")
    pages = [runs[0] / "report.html", runs[2] / "report.html", runs[3]]
    for page in pages:
        _open(browser, page)
        assert browser.execute_script("return document.querySelectorAll('.chart canvas').length") == 2
        assert browser.get_log("browser") == []
        # Neither a name of a class nor that of a directory is run.
        assert browser.execute_script("return typeof harmed") == "undefined"
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri() for page in pages]


def test_arrow_keys_go_through_the_images(opened, expected):
    from selenium.webdriver.common.keys import Keys

    first = opened.shown()
    _check_shown(opened, first, expected[0])
    opened.find("#next").send_keys(Keys.TAB)
    assert opened.browser.switch_to.active_element.get_attribute("id") == "gallery"
    opened.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    second = opened.shown()
    assert second > first
    _check_shown(opened, second, expected[0])
    opened.keys(Keys.END)
    last = opened.shown()
    assert opened.find("#count").text == "300 of 300"
    _check_shown(opened, last, expected[0])
    opened.keys(Keys.HOME)
    assert opened.shown() == first


def test_the_mouse_chooses_an_image_and_a_layer(opened, expected):
    opened.shown()
    # The third image of the second row, each 32 pixels wide.
    opened.point(opened.find("#gallery"), 2 * 32 + 16, 32 + 16).click().perform()
    columns = int(opened.find("#gallery").size["width"] // 32)
    index = opened.shown()
    assert index == _data_of(opened)["images"][columns + 2]["test"]
    _check_shown(opened, index, expected[0])
    opened.find("#next").click()
    assert opened.shown() == _data_of(opened)["images"][columns + 3]["test"]
    opened.find("#layers label:first-of-type").click()
    assert opened.find(".layer-name").text == "conv1" and opened.shown("conv1")


def _data_of(opened):
    return opened.browser.execute_script("return page.explorer")


@pytest.mark.parametrize("layer", ["conv1", "pool1", "conv2", "pool2"])
def test_every_layers_maps_are_those_of_the_network(opened, expected, layer):
    """Chosen by keys alone, then read off with the mouse."""
    from selenium.webdriver.common.keys import Keys

    opened.shown()
    layers = list(_layer_names(opened))
    opened.find("[name=layer]:checked").send_keys(*[Keys.ARROW_LEFT] * (len(layers) - 1 - layers.index(layer)))
    index = opened.shown(layer)
    maps = expected[1][layer][index]
    channel, (height, width) = int(maps.max((0, 1)).argmax()), maps.shape[:2]
    row, column = np.unravel_index(maps[..., channel].argmax(), (height, width))
    canvas = opened.find("#maps")
    zoom = canvas.size["width"] / (4 * (width + 1) - 1)
    x, y = (channel * (width + 1) + column + 0.5) * zoom, (row + 0.5) * zoom
    opened.point(canvas, x, y).perform()
    read = re.fullmatch(r"Map (\d+) of 4, row (\d+), column (\d+): about (-?[\d.]+)", opened.find("#map").text)
    assert read and [int(part) for part in read.groups()[:3]] == [channel + 1, row + 1, column + 1]
    # The highest value of all maps is the scale's end, and is kept as it is.
    assert float(read[4]) == pytest.approx(maps.max(), abs=0.006)
    colours = "const c = arguments[0]; const {data} = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
    colours += "return new Set(new Uint32Array(data.buffer)).size"
    assert 3 < opened.browser.execute_script(colours, canvas) <= explorer.LEVELS + 1


def _layer_names(opened):
    return [radio.get_attribute("value") for radio in opened.browser.find_elements("css selector", "[name=layer]")]


def test_filters_show_mistakes_and_classes(opened, expected):
    from selenium.webdriver.common.keys import Keys

    opened.shown()
    predicted, labels = expected[0].argmax(1), opened.test.labels
    embedded = np.array([image["test"] for image in _data_of(opened)["images"]])
    opened.find("[name=which]:checked").send_keys(Keys.ARROW_RIGHT)
    wrong = embedded[predicted[embedded] != labels[embedded]]
    assert opened.shown() in wrong and opened.find("#count").text.endswith(f" of {len(wrong)}")
    opened.find("#true-class").send_keys("Shirt")
    shirts = wrong[labels[wrong] == 6]
    assert opened.shown() in shirts and opened.find("#count").text.endswith(f" of {len(shirts)}")
    opened.find("#predicted-class").send_keys("Shirt")
    time.sleep(0.2)
    assert opened.find("#prediction").text == "None of the images in this page is such a one."


def test_the_confusion_matrix_says_its_counts_and_leads_to_their_images(opened, expected):
    from selenium.webdriver.common.keys import Keys

    confusion = scores.confusion_matrix(opened.test.labels, expected[0].argmax(1), 10)
    label, other, wrong = scores.most_confused(confusion)[0]
    opened.find(".confusion tbody td").send_keys(*[Keys.ARROW_DOWN] * label, *[Keys.ARROW_RIGHT] * other)
    share = f"{100 * wrong / confusion[label].sum():.1f} %"
    said = f"{NAMES[label]} taken for {NAMES[other]}"
    assert opened.find("#cell").text == f"{said}: {wrong} of {confusion[label].sum()}, {share}".replace(
        "taken", "is taken", 1
    )
    opened.keys(Keys.ENTER)
    index = opened.shown()
    assert (opened.test.labels[index], expected[0][index].argmax()) == (label, other)


def test_pointing_at_a_curve_gives_its_epochs_values(opened, runs):
    rows = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    best = json.loads((runs[0] / "result.json").read_text())["best_epoch"]
    for epoch, act in ((best, None), (1, 0.25), (2, 0.75)):
        if act:
            plot = opened.find(".u-over")
            opened.point(plot, act * plot.size["width"], 50).perform()
        row = rows[epoch - 1]
        shown = [cell.text for cell in opened.browser.find_elements("css selector", ".u-value")[:3]]
        assert shown == [str(epoch), f"{row['train_loss']:.4f}", f"{row['val_loss']:.4f}"]


CONTRAST = """
const parse = text => {
  const numbers = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
  const scale = text.startsWith("color(") ? 255 : 1;
  return [...numbers.slice(0, 3).map(part => part * scale), numbers.length > 3 ? numbers[3] : 1];
};
const over = (top, below) => top.slice(0, 3).map((part, i) => part * top[3] + below[i] * (1 - top[3]));
const behind = element => {
  if (!element) return [255, 255, 255];
  const colour = parse(getComputedStyle(element).backgroundColor);
  return colour[3] === 1 ? colour.slice(0, 3) : over(colour, behind(element.parentElement));
};
const luminance = rgb => rgb.map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92
  : ((part + 0.055) / 1.055) ** 2.4).reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
document.querySelectorAll("details").forEach(part => part.open = true);
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  const style = getComputedStyle(element);
  if (!own || element.matches("script, title, svg *, option") || element.checkVisibility?.() === false) continue;
  const below = behind(element), colour = parse(style.color);
  if (colour[3] === 0) continue;
  const [high, low] = [luminance(over(colour, below)), luminance(below)].sort((a, b) => b - a);
  const name = `${element.tagName} ${element.className} ${element.textContent.slice(0, 30)}`;
  found.push([(high + 0.05) / (low + 0.05), name]);
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_pages_fit_and_can_be_read(browser, runs, width, scheme):
    """All words have the contrast of WCAG 2.2, 1.4.3: 4.5."""
    for page in (runs[0] / "report.html", runs[3]):
        _open(browser, page)
        _look(browser, width, scheme)
        found = browser.execute_script(CONTRAST)
        assert len(found) > 60 and min(found)[0] >= 4.5, min(found)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")


def test_a_network_without_maps_shows_its_probabilities(browser, runs):
    _open(browser, runs[2] / "report.html")
    opened = Opened(browser, runs[-1].test)
    state, _ = cnn.load_best(runs[2])
    opened.find("#next").click()
    _check_shown(opened, opened.shown(""), np.asarray(cnn.predict(state, runs[-1].test.images)))
    assert browser.find_elements("css selector", ".layered, #maps, [name=layer]") == []


def test_the_comparison_shows_every_run_of_either_split(browser, runs):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    _open(browser, runs[3])
    histories = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs[:3]]
    for split in ("val", "train"):
        if split == "train":
            browser.find_element("css selector", "[name=split]:checked").send_keys(Keys.ARROW_RIGHT)
        plot = browser.find_element("css selector", ".u-over")
        half = int(plot.size["width"] / 4)
        ActionChains(browser, duration=0).move_to_element_with_offset(plot, half - 1, 0).move_by_offset(1, 1).perform()
        shown = [cell.text for cell in browser.find_elements("css selector", ".u-value")[:4]]
        assert shown == ["2", *(f"{rows[1][f'{split}_loss']:.4f}" for rows in histories)]
