"""Milliseconds of the page to play with, in Chromium: from a stroke to the bars, to all maps, and until it can be used.

python -m benchmarks.play [--strokes 200] [--loads 10] [--results DIR]

The page is that of the network that ships, the chapter's layers, served as by ``python -m cnn play --pretrained``; the
times are those that the page itself notes (User Timing). Of each stroke, a click and a movement. Until it can be used:
from the start of the navigation to the first answer, with the browser's cache empty. All layers are in view.
"""

import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, run_main, summary, write_result
from cnn.web.contents import contents, read_network
from cnn.web.folder import size
from cnn.web.runtime import VERSION, find_runtime
from cnn.web.server import PageServer

NAMES = "stroke to bars", "stroke to maps"


def open_browser() -> Any:
    """Returns Chromium without a window, with a high one, so that all layers are in view."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    arguments = "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-sandbox"
    for argument in (*arguments, "--window-size=1440,4000"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def wait_for(browser: Any, condition: str) -> None:
    """Waits until an expression in JavaScript is true."""
    while not browser.execute_script(f"return {condition}"):
        time.sleep(0.02)


def milliseconds(browser: Any, name: str) -> list[float]:
    """Returns the times that the page has noted under a name."""
    return browser.execute_script("return performance.getEntriesByName(arguments[0]).map(one => one.duration)", name)


def first_answers(browser: Any, url: str, loads: int) -> list[float]:
    """Returns the milliseconds of each load until the first answer is shown."""
    found = []
    for _ in range(loads):
        browser.execute_cdp_cmd("Network.clearBrowserCache", {})
        browser.get(url)
        wait_for(browser, "document.body.dataset.shown")
        code = f"const [one] = performance.getEntriesByName('{NAMES[0]}'); return one.startTime + one.duration"
        found.append(browser.execute_script(code))
        print(f"first answer after {found[-1]:6.0f} ms", flush=True)
    return found


def draw(browser: Any, strokes: int) -> dict[str, list[float]]:
    """Returns the milliseconds of each stroke, by name."""
    browser.execute_script("document.getElementById('clear').click()")
    time.sleep(1)
    browser.execute_script("performance.clearMeasures()")
    box = browser.execute_script("return document.getElementById('pad').getBoundingClientRect().toJSON()")
    rng = random.Random(0)
    for _ in range(strokes):
        x, y = (box[start] + box[side] * rng.uniform(0.2, 0.8) for start, side in (("x", "width"), ("y", "height")))
        for kind, step in (("mousePressed", 0), ("mouseMoved", 20), ("mouseReleased", 20)):
            event = {"type": kind, "x": x + step, "y": y + step / 2, "button": "left", "clickCount": 1}
            browser.execute_cdp_cmd("Input.dispatchMouseEvent", event | {"buttons": int(kind != "mouseReleased")})
        # So that each is answered by itself.
        time.sleep(0.1)
    return {name: milliseconds(browser, name) for name in NAMES}


def main(strokes: int = 200, loads: int = 10, results: Path = RESULTS) -> None:
    """Measure the page, print its times, and write play.json.

    Args:
        strokes: Number of strokes.
        loads: Number of times that the page is opened.
        results: Directory for play.json.
    """
    files = contents(read_network(None), find_runtime(say=print))
    with PageServer(0) as server:
        server.files = files
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = open_browser()
        try:
            times = {"first answer": first_answers(browser, server.url, loads), **draw(browser, strokes)}
            layers = browser.execute_script("return play.answer.maps.size")
            version = browser.capabilities["browserVersion"]
        finally:
            browser.quit()
            server.shutdown()
    for name, values in times.items():
        print(f"{name:15} {summary(values)}")
    values = {
        "what": "milliseconds of the page to play with, in Chromium",
        "browser": f"Chromium {version}",
        "runtime": f"onnxruntime-web {VERSION}",
        "size": size(files),
        "layers_drawn": layers,
        "milliseconds": {name: summary(values) for name, values in times.items()},
    }
    write_result("play", values, results)


if __name__ == "__main__":
    run_main(main)
