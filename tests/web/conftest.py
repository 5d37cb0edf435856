"""Two runs as pages that are served, of Fashion-MNIST and of one's own colour images with hostile names."""

import dataclasses
import subprocess
from typing import NamedTuple

import numpy as np
import pytest

import cnn
from cnn.config import ExperimentConfig
from cnn.data.splits import Splits
from cnn.errors import DataError
from cnn.training.state import TrainState
from cnn.web.contents import contents, read_network
from cnn.web.runtime import find_runtime
from tests.helpers import narrow
from tests.report.pages import set_viewport
from tests.web.play_page import HOSTILE, WIDE, PlayPage, accessibility_checker, served


class Played(NamedTuple):
    """A run whose page is served."""

    url: str
    state: TrainState
    config: ExperimentConfig
    splits: Splits


@pytest.fixture(scope="session")
def runtime_files():
    """onnxruntime-web, out of the cache or by npm."""
    try:
        return find_runtime()
    except DataError as error:
        pytest.skip(f"the tests of the page need onnxruntime-web: {error}")


def _played(run_dir, splits, files):
    state, config = cnn.load_best(run_dir)
    with served(files) as url:
        yield Played(url, state, config, splits)


@pytest.fixture(scope="session")
def fashion(config, splits, runtime_files, tmp_path_factory):
    """A narrow network, whose images are in the cache."""
    run_dir = tmp_path_factory.mktemp("play") / "fashion"
    config = dataclasses.replace(narrow(config, epochs=1), data=dataclasses.replace(config.data, class_names=()))
    cnn.fit(config, run_dir)
    yield from _played(run_dir, splits, contents(read_network(run_dir), runtime_files, "card"))


@pytest.fixture(scope="session")
def colourful(config, runtime_files, tmp_path_factory):
    """Colour images of 20 x 24 pixels, of eleven classes, whose names and directory are hostile."""
    root = tmp_path_factory.mktemp("play")
    rng = np.random.default_rng(0)
    names = (HOSTILE, 'a "quoted" & <b>one</b>', *(f"kind {number}" for number in range(9)))
    classes = np.repeat(np.arange(len(names)), 12)
    images = rng.integers(0, 120, (len(classes), 20, 24, 3), np.uint8) + (12 * classes[:, None, None, None]).astype(
        np.uint8
    )
    np.savez(root / "images.npz", x_train=images, y_train=classes)
    data = cnn.DataConfig(name="images", source=str(root / "images.npz"), class_names=names)
    config = dataclasses.replace(narrow(config, epochs=1), data=data)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, batch_size=16))
    run_dir = root / 'run "<img src=x onerror=harmed=1>"'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "home"))
        cnn.fit(config, run_dir)
        files, splits = contents(read_network(run_dir), runtime_files, "card"), cnn.load_data(config.data)
    yield from _played(run_dir, splits, files)


@pytest.fixture(scope="session")
def checker(tmp_path_factory) -> str:
    """axe-core's source, by npm."""
    try:
        return accessibility_checker(tmp_path_factory.mktemp("axe"))
    except (DataError, subprocess.SubprocessError) as error:
        pytest.skip(f"the test of accessibility needs axe-core: {error}")


def _open(browser, url) -> PlayPage:
    """A page, newly opened, in English, with an empty log."""
    set_viewport(browser, WIDE, "light")
    page = PlayPage(browser, url)
    page.run("localStorage.clear(); document.querySelector('[name=language][value=en]').click()")
    browser.get_log("browser")
    return page


@pytest.fixture
def page(browser, fashion) -> PlayPage:
    """Fashion-MNIST's page."""
    return _open(browser, fashion.url)


@pytest.fixture
def own(browser, colourful) -> PlayPage:
    """The page of one's own colour images."""
    return _open(browser, colourful.url)
