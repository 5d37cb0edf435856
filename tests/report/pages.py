"""Pages of runs, and their use in Chromium."""

import re
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import cnn

HOSTILE = "</script><script>harmed=1</script>"
NAMES = (*cnn.class_names(cnn.DataConfig())[:9], HOSTILE)


class Runs(NamedTuple):
    """Directories of three runs, the page that compares them, and their images."""

    first: Path
    second: Path
    dense: Path
    comparison: Path
    splits: cnn.Splits

    @property
    def directories(self) -> tuple[Path, ...]:
        return self.first, self.second, self.dense


class Outputs(NamedTuple):
    """Outputs of the first run's network for its test images."""

    probabilities: np.ndarray
    maps: dict[str, np.ndarray]


def set_viewport(browser, width, scheme):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def open_page(browser, page: Path):
    set_viewport(browser, 1440, "light")
    browser.get(page.as_uri())


class Explorer:
    """The explorer of a page that is open in the browser."""

    def __init__(self, browser, test):
        self.browser, self.test = browser, test

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def shown_image(self, layer="pool2"):
        """The index of the shown test image, once the pictures show the image of the text and the layer."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            text = re.match(r"Test image ([\d,]+) ", self.find("#prediction").text)
            drawn = self.find("#explorer").get_attribute("data-shown")
            if text and drawn == f"{text[1].replace(',', '')} {layer}":
                return int(drawn.split()[0])
            time.sleep(0.02)
        raise AssertionError(f"{self.find('#prediction').text!r} is not drawn")

    def keys(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser, duration=0).send_keys(*keys).perform()

    def point(self, element, x, y):
        """Moves the mouse to a position in an element, in CSS pixels from its top left corner."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.browser.execute_script("arguments[0].parentElement.scrollIntoView({block: 'center'})", element)
        # Selenium would count from the centre of the visible part.
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

    def data(self):
        return self.browser.execute_script("return page.explorer")

    def check_shown(self, index, probabilities):
        """Checks that the page shows this image, exactly, and its predicted class and probabilities."""
        predicted, label = probabilities[index].argmax(), self.test.labels[index]
        unlike = next(image["unlike"] for image in self.data()["images"] if image["test"] == index)
        assert self.find("#prediction").text == (
            f"Test image {index} of class {NAMES[label]}: predicted as {NAMES[predicted]} with probability "
            f"{100 * probabilities[index, predicted]:.1f} %; {'un' * unlike}like the training images."
        )
        np.testing.assert_array_equal(self.pixels("#image")[::4], 255 - self.test.images[index].ravel())
        bars = [row.text for row in self.browser.find_elements("css selector", "#bars .value")]
        assert bars == [f"{100 * probability:.1f} %" for probability in probabilities[index]]
