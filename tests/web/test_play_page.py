"""The page to play with, in Chromium: its pixels, numbers and texts are those of the library."""

import io
import re
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import cnn
from cnn.data.image_files import Resize, fit_image, reading
from cnn.web.graph import web_graph
from tests.exchange.test_onnx_graph import random_state
from tests.report.pages import set_viewport
from tests.web.play_page import NARROW, WIDE, PlayPage, check_answer


def test_a_drawn_shape_has_the_probabilities_and_maps_of_predict(page, fashion):
    page.find("#clear").click()
    page.draw((0.3, 0.2), (0.3, 0.8), (0.7, 0.8), (0.7, 0.25), (0.3, 0.2))
    answer = check_answer(page, fashion)
    pixels, inverted = fit_image(Image.fromarray(page.pad()), fashion.config.data.image_shape, None)
    assert answer.inverted and inverted
    np.testing.assert_array_equal(answer.pixels, pixels)
    assert answer.pixels.max() == 255 and 40 < np.count_nonzero(answer.pixels) < 400
    best = answer.probabilities.argmax()
    assert page.text("#prediction").startswith(f"{cnn.class_names(fashion.config.data)[best]}: ")
    assert page.text("#seen-text").startswith("28 × 28 pixels, grey, inverted")
    bars = page.browser.find_elements("css selector", "#bars .value")
    assert [bar.text for bar in bars] == [f"{100 * share:.1f} %" for share in answer.probabilities]


def test_the_first_stroke_replaces_the_picture_that_the_page_began_with(page):
    page.draw((0.5, 0.5), (0.6, 0.5))
    assert (page.pad() == 255).mean() > 0.97
    # The next test image is drawn on.
    with page.change():
        page.run("document.querySelectorAll('[name=example]')[3].click()")
    image = page.pad()
    page.draw((0.05, 0.05), (0.1, 0.05))
    assert 0 < (page.pad() != image).mean() < 0.1


def test_undo_gives_back_the_answer_and_an_empty_pad_has_none(page, tmp_path):
    page.find("#clear").click()
    page.wait("document.getElementById('prediction').textContent === 'Nothing is drawn yet.'")
    assert not page.find("#evidence-box").is_displayed() and not page.find("#nearest-box").is_displayed()
    # Wider than the pad, so that the pad shows less than was read.
    Image.fromarray(np.linspace(40, 90, 900 * 300).reshape(300, 900).astype(np.uint8)).save(tmp_path / "wide.png")
    with page.change():
        page.open(tmp_path / "wide.png")
    read = page.answer()
    page.draw((0.4, 0.4), (0.6, 0.6))
    assert (page.answer().pixels != read.pixels).any()
    for expected in (read.pixels, None):
        with page.change():
            page.find("#undo").click()
        if expected is not None:
            np.testing.assert_array_equal(page.answer().pixels, expected)
    assert page.text("#prediction") == "Nothing is drawn yet." and (page.pad() == 255).all()


def test_drawing_with_undo_eraser_and_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    page.find("#clear").click()
    page.draw((0.2, 0.5), (0.8, 0.5))
    line = page.pad()
    page.draw((0.5, 0.2), (0.5, 0.8))
    assert (page.pad() != line).any()
    page.find("#undo").click()
    np.testing.assert_array_equal(page.pad(), line)
    page.find("[name=tool][value=eraser]").find_element("xpath", "..").click()
    page.draw((0.2, 0.5), (0.8, 0.5))
    assert (page.pad() == 255).mean() > (line == 255).mean()
    with page.change():
        page.run("document.getElementById('pad').focus()")
        page.keys(Keys.DELETE, "b", Keys.ARROW_LEFT, " ", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, " ")
    assert page.find(".cursor").is_displayed()
    drawn = page.pad()[..., 0]
    rows, columns = np.nonzero(drawn < 128)
    # Two steps to the right and one down, each of a pixel of the network, ten on the pad.
    assert (columns.max() - columns.min(), rows.max() - rows.min()) == pytest.approx((40, 30), abs=3)
    page.keys("u")
    assert (page.pad() == 255).all()
    page.keys(Keys.ESCAPE)
    assert not page.find(".cursor").is_displayed()


def test_the_preprocessing_is_that_of_predict_to_the_bit(page):
    rng, cases, expected = np.random.default_rng(0), [], []
    for number in range(60):
        width, height = (int(side) for side in rng.integers(1, 70, 2))
        channels, wanted = (int(count) for count in rng.choice([1, 3], 2))
        pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
        # Some with light borders, which are inverted.
        pixels = np.maximum(pixels, 120) if number % 3 else pixels // 5 * 5
        shape = *(int(side) for side in rng.integers(1, 40, 2)), wanted
        resize, invert = get_args(Resize)[number % 3], None if number % 2 else False
        picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        result, inverted = fit_image(picture, shape, invert, resize)
        expected.append((result.ravel().tolist(), inverted))
        image = dict(zip(("height", "width", "channels"), shape, strict=True))
        image |= {"resize": resize, "invert": "auto" if invert is None else False}
        cases.append([{"data": pixels.ravel().tolist(), "width": width, "height": height, "channels": channels}, image])
    found = page.browser.execute_async_script(
        """
        const [cases, done] = arguments;
        import("./pixels.js").then(({prepare}) => done(cases.map(([picture, image]) => {
          const {pixels, inverted} = prepare({...picture, data: Uint8Array.from(picture.data)}, image);
          return [[...pixels], inverted];
        })));
        """,
        cases,
    )
    assert sum(inverted for _, inverted in expected) > 5
    for case, (pixels, inverted), (wanted, is_inverted) in zip(cases, found, expected, strict=True):
        assert inverted == is_inverted, case[1]
        assert pixels == wanted, case[1]


def _files(directory):
    """Picture files of some formats, with what may differ from Pillow's pixels, in levels."""
    rng = np.random.default_rng(2)
    shape = np.full((90, 60, 3), 255, np.uint8)
    shape[20:80, 10:50] = rng.integers(0, 120, (60, 40, 1))
    Image.fromarray(shape).save(directory / "colour.png")
    Image.fromarray(shape[..., 0]).save(directory / "grey.png")
    # Smooth, as photos are, and stored on its side, with the tag that says so.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(shape).resize((240, 360)).save(directory / "turned.jpg", exif=exif, quality=95)
    alpha = np.zeros((90, 60), np.uint8)
    alpha[20:80, 10:50] = np.linspace(0, 255, 40, dtype=np.uint8)
    Image.fromarray(np.dstack([shape, alpha])).save(directory / "transparent.webp", lossless=True)
    Image.fromarray(shape).save(directory / "some.gif")
    return {"colour.png": 0, "grey.png": 0, "turned.jpg": 2, "transparent.webp": 1, "some.gif": 0}


@pytest.mark.parametrize("which", ["fashion", "colourful"])
def test_files_go_the_way_of_predict(which, request, browser, tmp_path):
    played = request.getfixturevalue(which)
    set_viewport(browser, WIDE, "light")
    page = PlayPage(browser, played.url)
    for name, levels in _files(tmp_path).items():
        with page.change():
            page.open(tmp_path / name)
        expected = cnn.read_image(tmp_path / name, **reading(played.config.data))
        answer = check_answer(page, played)
        difference = np.abs(answer.pixels.astype(int) - expected).max()
        assert difference <= levels, f"{name} differs by {difference} levels"
        assert page.text("#problem") == ""


def test_a_test_image_is_shown_pixel_for_pixel_and_one_goes_back_and_forward(page, fashion):
    facts = page.run("return play.network.facts.examples")
    assert len(facts["labels"]) == 100
    with page.change():
        page.run("document.querySelectorAll('[name=example]')[7].click()")
    index = facts["indices"][7]
    np.testing.assert_array_equal(page.answer().pixels, fashion.splits.test.images[index])
    assert page.browser.current_url.endswith(f"#test-{index}")
    label = cnn.class_names(fashion.config.data)[fashion.splits.test.labels[index]]
    right = page.text("#prediction").startswith(f"{label}: ")
    truth = f"Test image {index}, of this class." if right else f"Wrong: test image {index} is of class {label}."
    assert page.text("#truth") == truth
    assert page.run("return document.querySelectorAll('[name=example]')[7].ariaLabel") == f"Test image {index}: {label}"
    page.draw((0.1, 0.1), (0.9, 0.9))
    drawn = page.answer().pixels
    assert page.run("return document.querySelector('[name=example]:checked')") is None
    with page.change():
        page.browser.back()
    np.testing.assert_array_equal(page.answer().pixels, fashion.splits.test.images[index])
    with page.change():
        page.browser.forward()
    np.testing.assert_array_equal(page.answer().pixels, drawn)


def test_two_tabs_answer_at_once(page, fashion):
    first = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    try:
        second = PlayPage(page.browser, fashion.url, "#test-100")
        assert (second.answer().pixels == fashion.splits.test.images[100]).all()
        page.browser.switch_to.window(first)
        page.draw((0.3, 0.3), (0.6, 0.6))
        check_answer(page, fashion)
        page.browser.switch_to.window(page.browser.window_handles[-1])
        assert (second.answer().pixels == fashion.splits.test.images[100]).all()
    finally:
        page.browser.close()
        page.browser.switch_to.window(first)


def test_the_steps_through_a_number_are_the_networks_own(page, fashion):
    from selenium.webdriver.common.keys import Keys

    answer = page.answer()
    page.run(
        "const list = document.getElementById('step-filter'); list.value = 2; list.dispatchEvent(new Event('change'))"
    )
    page.run("document.getElementById('step-picture').focus()")
    page.keys(Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_UP)
    row, column = 12, 13
    assert page.text("#step-place") == f"Row {row + 1}, column {column + 1}"
    tables = [
        [[float(cell.replace("−", "-")) for cell in line] for line in rows]
        for rows in page.run(
            "return [...document.querySelectorAll('#step-numbers table')].map(table => [...table.rows].map("
            "row => [...row.cells].map(cell => cell.textContent)))"
        )
    ]
    kernel = np.asarray(fashion.state.eval_state.params["conv1"]["kernel"])[:, :, 0, 2]
    window = answer.pixels[row - 1 : row + 2, column - 1 : column + 2, 0] / 255
    for shown, expected in zip(tables, (window, kernel, window * kernel), strict=False):
        np.testing.assert_allclose(shown, expected, atol=6e-4)
    conv, pool = answer.maps["conv1"][2], answer.maps["pool1"][2]
    np.testing.assert_allclose(tables[3], conv[12:14, 12:14], atol=6e-4)
    results = [
        float(number.text.replace("−", "-"))
        for number in page.browser.find_elements("css selector", "#step-numbers .result b")
    ]
    assert results == pytest.approx([conv[row, column], pool[6, 6]], abs=6e-4)
    page.run("play.chosen = document.querySelector('[data-layer=conv1] .maps'); play.chosen.focus()")
    page.keys(Keys.END)
    assert page.run("return document.getElementById('step-filter').value") == "3"
    page.find("#step-next").click()
    assert page.text("#step-place") == f"Row {row + 1}, column {column + 2}"


def test_maps_are_chosen_and_shown_with_their_filters(page):
    from selenium.webdriver.common.keys import Keys

    page.run("document.querySelector('[data-layer=conv2]').scrollIntoView()")
    canvas = page.find("[data-layer=conv2] .maps")
    page.wait("document.querySelector('[data-layer=conv2] .maps').ariaValueMax === '4'")
    page.run("arguments[0].focus()", canvas)
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert canvas.get_attribute("aria-valuetext") == "Map 3 of 4"
    captions = page.run(
        "return [...document.querySelectorAll('[data-layer=conv2] figcaption')].map(c => c.textContent)"
    )
    assert captions[0].startswith("Map 3 of 4: ")
    assert captions[1].startswith("Its filter (kernel): 3 × 3 weights for each input (4)")


def test_nearest_images_and_the_unknown_are_those_of_predict(page, fashion, tmp_path):
    from cnn.trust.reference import embed, make_reference, novelty

    reference = make_reference(fashion.state, fashion.splits)
    for name, pixels in {
        "noise": np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8),
        "boot": fashion.splits.test.images[0, ..., 0],
    }.items():
        # A dark border, so that it is not inverted.
        pixels = np.pad(pixels[1:-1, 1:-1], 1)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        with page.change():
            page.open(tmp_path / f"{name}.png")
        answer = page.answer()
        np.testing.assert_array_equal(answer.pixels[..., 0], pixels)
        found = page.run("return play.network.nearest(play.answer.maps, 5)")
        facts = page.run("return play.network.facts.novelty")
        expected = novelty(embed(fashion.state, answer.pixels[None]), reference)
        assert found["unlike"] == bool(expected.is_unlike_N[0])
        assert found["found"][0]["distance"] == pytest.approx(expected.score_N[0], abs=1e-3)
        shown = [facts["labels"][near["position"]] for near in found["found"]]
        text = page.text("#nearest")
        names = cnn.class_names(fashion.config.data)
        assert [line.partition(",")[0] for line in text.splitlines() if "," in line] == [
            names[label] for label in shown
        ]
        assert page.text("#unlike").startswith("Unlike" if found["unlike"] else "Like")


@pytest.mark.parametrize("which", ["fashion", "colourful"])
@pytest.mark.parametrize(("width", "scheme", "language"), [(WIDE, "light", "en"), (NARROW, "dark", "ko")])
def test_the_page_is_accessible_and_fits(which, width, scheme, language, request, browser, checker):
    played = request.getfixturevalue(which)
    set_viewport(browser, width, scheme)
    page = PlayPage(browser, played.url)
    page.run(f"document.querySelector('[name=language][value={language}]').click()")
    page.wait("document.querySelector('#bars .row')")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    assert page.run("return document.documentElement.lang") == language
    page.run(checker)
    result = browser.execute_async_script("axe.run().then(arguments[0])")
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in result["violations"]] == []
    assert len(result["passes"]) > 20


def test_the_language_is_that_of_the_switch_and_stays(page, fashion):
    with page.change():
        page.run("document.querySelector('[name=language][value=ko]').click()")
    assert page.text("h1") == "이 신경망은 무엇을 볼까요?" and page.text("#prediction").startswith("앵클 부츠: ")
    assert page.text("[data-layer=conv1] h3") == "conv1 합성곱 3 × 3 + 렐루: 28 × 28 특성 맵 4개"
    again = PlayPage(page.browser, fashion.url)
    assert again.text("#layers-title") == "층"
    again.run("document.querySelector('[name=language][value=en]').click()")
    english, korean = (
        again.browser.execute_async_script(
            "import('./texts.js').then(({TEXTS}) => arguments[1](Object.entries(TEXTS[arguments[0]])))", language
        )
        for language in ("en", "ko")
    )
    assert dict(english).keys() == dict(korean).keys()
    for (name, first), (_, second) in zip(sorted(english), sorted(korean), strict=True):
        assert sorted(re.findall(r"\{\w+\}", first)) == sorted(re.findall(r"\{\w+\}", second)), name


def test_the_layers_of_a_recurrent_network_are_described_as_they_are_drawn(page):
    config = cnn.ExperimentConfig(model=cnn.RecurrentConfig(features=8))
    layers = web_graph(random_state(config), config).layers
    code = """
        const [layers, language, done] = arguments;
        Promise.all([import("./maps.js"), import("./texts.js")]).then(([{describe}, {chooseLanguage}]) => {
          chooseLanguage(language);
          done(layers.map(layer => `${layer.name} ${describe(layer)}`));
        });
        """
    assert page.browser.execute_async_script(code, layers, "ko") == [
        "rows 행의 시퀀스: 28 × 1 특성 맵 28개",
        "recurrent 순환층: 28 × 1 특성 맵 8개",
        "last 마지막 시점의 출력: 유닛 8개",
        "dropout 드롭아웃: 훈련할 때만",
        "logits 밀집층: 유닛 10개",
    ]
    assert page.browser.execute_async_script(code, layers, "en")[:3] == [
        "rows the rows as a sequence: 28 feature maps of 28 × 1",
        "recurrent recurrent layer: 8 feature maps of 28 × 1",
        "last output of the last step: 8 units",
    ]


def test_features_of_any_number_get_length_1(page):
    code = """
        const [size, done] = arguments;
        import("./network.js").then(({unit}) => unit(new Float32Array(size).fill(3)))
          .then(values => done([values.length, ...new Set(values)]), error => done(String(error)));
        """
    # 224 x 224 colour pixels.
    for size in (4, 150_528):
        assert page.browser.execute_async_script(code, size) == [size, float(np.float32(size**-0.5))]


def test_no_request_leaves_the_host_and_the_policy_is_kept(page, fashion, tmp_path):
    page.requests()
    page = PlayPage(page.browser, fashion.url)
    page.draw((0.2, 0.2), (0.8, 0.8))
    Image.new("L", (50, 50), 128).save(buffer := io.BytesIO(), "PNG")
    (tmp_path / "grey.png").write_bytes(buffer.getvalue())
    with page.change():
        page.open(tmp_path / "grey.png")
    requests = page.requests()
    assert any(url.endswith(".wasm") for url in requests)
    assert all(url.startswith(fashion.url) for url in requests)
    assert page.browser.get_log("browser") == []
