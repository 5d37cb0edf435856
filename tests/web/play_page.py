"""The page to play with, as it is used in Chromium."""

import contextlib
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import cnn
from cnn.web import runtime
from cnn.web.server import PageServer

HOSTILE = '</script><img src=x onerror="harmed=1">'.ljust(200, "n")
"""A name as long as a class may have."""

WIDE, NARROW = 1440, 390
"""Widths of the window, in CSS pixels."""

AXE = "axe-core", "4.14.1"


@contextlib.contextmanager
def served(files: dict[str, bytes]) -> Iterator[str]:
    """Serves files; gives the address."""
    with PageServer(0) as server:
        server.files = files
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


def accessibility_checker(directory: Path) -> str:
    """The source of axe-core, by npm."""
    name, version = AXE
    command = [
        *runtime._npm(),
        "pack",
        f"{name}@{version}",
        "--ignore-scripts",
        "--silent",
        "--cache",
        directory / "npm",
    ]
    subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=300)
    with tarfile.open(directory / f"{name}-{version}.tgz") as archive:
        return runtime._member(archive, "package/axe.min.js").decode()


class Answer(NamedTuple):
    """What the page shows."""

    pixels: np.ndarray
    """uint8 [H, W, C]."""
    inverted: bool
    probabilities: np.ndarray
    maps: dict[str, np.ndarray]
    """By layer, [channels, height, width]."""


class PlayPage:
    """A page that is open in the browser."""

    def __init__(self, browser: Any, url: str, address: str = ""):
        self.browser, self.url = browser, url
        browser.get("about:blank")
        browser.get(url + address)
        self.wait("document.body.dataset.shown")

    def wait(self, condition: str) -> Any:
        """Waits until an expression in JavaScript is true; returns its value."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 30, 0.02).until(lambda _: self.run(f"return {condition}"))

    def run(self, code: str, *arguments: Any) -> Any:
        return self.browser.execute_script(code, *arguments)

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def press(self, selector: str) -> None:
        """Clicks an element, wherever it is: while the camera films, the lines above it change, and it moves."""
        self.run("document.querySelector(arguments[0]).click()", selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Waits, after what is done within, until the page shows it."""
        before = int(self.run("return document.body.dataset.shown"))
        yield
        self.wait(f"document.body.dataset.shown > {before}")
        # Of several changes, until the last one is shown.
        self.browser.execute_async_script("setTimeout(arguments[0], 150)")

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser, duration=0).send_keys(*keys).perform()

    def draw(self, *points: tuple[float, float]) -> None:
        """Draws a line through points, in shares of the pad's sides."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.run("document.getElementById('pad').scrollIntoView({block: 'center'})")
        box = self.run("return document.getElementById('pad').getBoundingClientRect().toJSON()")
        actions = ActionChains(self.browser, duration=0)
        for number, (x, y) in enumerate(points):
            place = int(box["x"] + x * box["width"]), int(box["y"] + y * box["height"])
            actions.w3c_actions.pointer_action.move_to_location(*place)
            if not number:
                actions.w3c_actions.pointer_action.pointer_down()
        actions.w3c_actions.pointer_action.pointer_up()
        with self.change():
            actions.perform()

    def open(self, file: Path) -> None:
        self.find("#file").send_keys(str(file))

    def answer(self) -> Answer:
        """What the page shows, with the outputs of all layers, computed again."""
        values = self.browser.execute_async_script(
            """
            const done = arguments[0], {network, answer} = play;
            network.run(answer.pixels, [...network.layers.keys()]).then(({probabilities, maps, evidence}) => done({
              pixels: [...answer.pixels], inverted: answer.inverted,
              probabilities: [...answer.probabilities],
              again: [...probabilities], evidence: evidence && [...evidence.data],
              maps: Object.fromEntries([...maps].map(([name, {values, shape}]) => [name, [[...values], shape]])),
            }));
            """
        )
        facts = self.run("return play.network.facts.image")
        assert values["again"] == values["probabilities"]
        maps = {name: np.array(array, np.float32).reshape(shape) for name, (array, shape) in values["maps"].items()}
        pixels = np.array(values["pixels"], np.uint8).reshape(facts["height"], facts["width"], facts["channels"])
        return Answer(pixels, values["inverted"], np.array(values["probabilities"], np.float32), maps)

    def pad(self) -> np.ndarray:
        """The picture on the pad, as a PNG file has it, uint8 [H, W, 3]."""
        import base64

        url = self.run("return document.getElementById('pad').toDataURL('image/png')")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))

    def requests(self) -> list[str]:
        """The addresses of all requests since this was last asked."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        sent = [message["params"]["request"]["url"] for message in messages if message["method"].endswith("BeSent")]
        return [url for url in sent if not url.startswith(("data:", "blob:", "about:"))]


def check_answer(page, played):
    """Checks the page's numbers against the library's, and returns them."""
    answer = page.answer()
    images = answer.pixels[None]
    np.testing.assert_allclose(answer.probabilities, np.asarray(cnn.predict(played.state, images))[0], atol=1e-5)
    for name, expected in cnn.feature_maps(played.state, images).items():
        expected = np.asarray(expected)[0]
        expected = expected.transpose(2, 0, 1) if expected.ndim == 3 else expected[:, None, None]
        np.testing.assert_allclose(answer.maps[name], expected, atol=1e-5, rtol=1e-5, err_msg=name)
    return answer
