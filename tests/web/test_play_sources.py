"""The page's files, camera and names, on one's own colour images with hostile names, in Chromium."""

import base64

import numpy as np
from PIL import Image

import cnn
from tests.web.play_page import HOSTILE, PlayPage, check_answer


def test_a_file_that_is_no_picture_is_one_line_and_changes_nothing(own, tmp_path):
    name = "<img src=x onerror=harmed=1>.png"
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    before = own.answer()
    own.open(tmp_path / name)
    line = own.wait("document.getElementById('problem').textContent")
    assert line == f"{name} is not a picture that this browser can read; open a PNG, JPEG, WebP, BMP or GIF file."
    np.testing.assert_array_equal(own.answer().pixels, before.pixels)
    assert own.run("return typeof harmed") == "undefined"
    own.draw((0.2, 0.2), (0.4, 0.4))
    assert own.text("#problem") == ""


def test_the_camera_is_answered_until_it_is_stopped(own, colourful):
    own.press("#camera")
    own.wait("document.getElementById('camera').ariaPressed === 'true'")
    before = int(own.run("return document.body.dataset.shown"))
    own.wait(f"document.body.dataset.shown > {before + 3}")
    assert own.find("#video").is_displayed() and own.text("#camera") == "Stop the camera"
    with own.change():
        own.press("#camera")
    assert own.run("return document.getElementById('video').srcObject") is None
    assert not own.find("#video").is_displayed()
    # Chromium's camera films a green picture with a clock.
    answer = check_answer(own, colourful)
    assert 100 < own.pad()[..., 1].mean() and len(np.unique(answer.pixels)) > 3


def test_the_camera_ends_with_what_is_drawn_and_with_its_second_click(own):
    own.run(
        "window.stopped = 0; const stop = MediaStreamTrack.prototype.stop;"
        "MediaStreamTrack.prototype.stop = function() { window.stopped++; stop.call(this); }"
    )
    own.run("const camera = document.getElementById('camera'); camera.click(); camera.click()")
    own.wait("document.getElementById('camera').ariaPressed === 'true'")
    with own.change():
        own.press("#clear")
    assert (own.pad() == 255).all() and own.run("return window.stopped") == 1
    assert own.text("#prediction") == "Nothing is drawn yet." and own.text("#problem") == ""
    assert not own.find("#video").is_displayed()


def test_a_large_file_does_not_replace_what_came_after_it(own, tmp_path):
    Image.new("L", (5000, 5000), 90).save(tmp_path / "large.png")
    small = np.random.default_rng(4).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    with own.change():
        own.open(tmp_path / "large.png")
        own.open(tmp_path / "small.png")
    own.browser.execute_async_script("setTimeout(arguments[0], 1500)")
    np.testing.assert_array_equal(own.answer().pixels, small)


def test_hostile_names_change_nothing_but_text(own, colourful):
    answer = check_answer(own, colourful)
    assert own.run("return typeof harmed") == "undefined"
    assert own.find("#lead").text.count('run "<img src=x onerror=harmed=1>"') == 1
    order = np.argsort(-answer.probabilities, kind="stable")
    names = [
        bar.text.removesuffix(" ✓") for bar in own.browser.find_elements("css selector", "#bars .row span:first-child")
    ]
    assert names == [colourful.config.data.class_names[label] for label in order[:10]]
    assert own.text("#others").startswith("All other classes (1): ")
    labels = own.run("return [...document.querySelectorAll('[name=example]')].map(radio => radio.ariaLabel)")
    assert any(label.endswith(HOSTILE) for label in labels)
    assert own.browser.get_log("browser") == []


def test_a_dropped_file_is_read_as_a_chosen_one(own, colourful, tmp_path):
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (48, 40, 3), np.uint8)).save(tmp_path / "some.png")
    content = base64.b64encode((tmp_path / "some.png").read_bytes()).decode()
    with own.change():
        own.run(
            """
            const bytes = Uint8Array.from(atob(arguments[0]), letter => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], "some.png"));
            const event = new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true});
            document.getElementById("pad").dispatchEvent(event);
            """,
            content,
        )
    expected = cnn.read_image(tmp_path / "some.png", colourful.config.data.image_shape, False, "crop")
    np.testing.assert_array_equal(check_answer(own, colourful).pixels, expected)


def test_the_language_is_at_first_that_of_the_browser(own, colourful):
    for languages, expected in (("ko-KR,ko,en", "ko"), ("fr-FR,fr", "en")):
        agent = own.run("localStorage.clear(); return navigator.userAgent")
        own.browser.execute_cdp_cmd("Emulation.setUserAgentOverride", {"userAgent": agent, "acceptLanguage": languages})
        again = PlayPage(own.browser, colourful.url)
        assert again.run("return document.documentElement.lang") == expected
    own.browser.execute_cdp_cmd("Emulation.setUserAgentOverride", {"userAgent": agent, "acceptLanguage": "en-US,en"})
