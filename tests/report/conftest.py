"""Three runs with their pages."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import cnn
from cnn.__main__ import main
from cnn.report import report
from tests.helpers import narrow
from tests.report.pages import NAMES, Explorer, Outputs, Runs, open_page


@pytest.fixture(scope="session")
def runs(config, splits, tmp_path_factory) -> Runs:
    """Three small runs, one without pixels in its layers, and their pages; one class has a hostile name."""
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
        # Noise cannot be compressed.
        noise = np.random.default_rng(0).integers(0, 256, (1600, 1600), np.uint8)
        (run_dirs[0] / "figures").mkdir()
        for name in ("feature_maps_conv1", "learning_curves", "mine"):
            Image.fromarray(noise).save(run_dirs[0] / "figures" / f"{name}.png")
        main(["report", str(run_dirs[0])])
        main(["report", str(run_dirs[2])])
        main(["report", *map(str, run_dirs), "--output", str(root / "all.html")])
    return Runs(run_dirs[0], run_dirs[1], run_dirs[2], root / "all.html", data)


@pytest.fixture(scope="session")
def expected(runs) -> Outputs:
    state, _ = cnn.load_best(runs.first)
    images = runs.splits.test.images
    maps = {name: np.asarray(values) for name, values in cnn.feature_maps(state, images).items()}
    return Outputs(np.asarray(cnn.predict(state, images)), maps)


@pytest.fixture
def page(browser, runs) -> Explorer:
    """The first run's page, newly opened."""
    open_page(browser, runs.first / "report.html")
    return Explorer(browser, runs.splits.test)
