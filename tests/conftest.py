"""What the tests share: the real images, a small part of them, and the shipped experiment, shrunk."""

import dataclasses
import gc
import os
import shutil
import signal
from pathlib import Path

import hypothesis
import jax
import pytest

import cnn
from cnn.data import cache, idx
from cnn.data.scenes import with_scenes
from experiments import fashion_cnn
from tests import compile_cache
from tests.helpers import NARROW, Detector, shrink

# No test is about time; the first example of a jitted function compiles it.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
# What is tested is the CPU, here and in the processes that tests start; a machine may have more.
jax.config.update("jax_platforms", "cpu")
os.environ["JAX_PLATFORMS"] = "cpu"
# What importing cnn before JAX sets; here JAX came first, and the processes that tests start would inherit its own.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# As in pyproject.toml: jaxlib sometimes cannot serialize what it compiled; a killed test may leave half an entry.
os.environ["PYTHONWARNINGS"] = ",".join(
    f"ignore:Error {done} persistent compilation cache entry" for done in ("writing", "reading")
)
# A shell's background jobs ignore it, and so would the processes that tests start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Many tests, and the processes that they start, compile the same programs, and the next run of the suite does again.
COMPILED = compile_cache.claim_directory(os.environ.get("PYTEST_XDIST_WORKER", "main"))
os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# A stack of calls for each operation of a program, of which no test reads one, takes a fifth of the time to trace it.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
jax.config.update("jax_traceback_in_locations_limit", 0)
jax.config.update("jax_compilation_cache_dir", COMPILED)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

FULLY_OPTIMIZED = {
    *("test_cost", "test_fused", "test_layers", "test_pretrained", "test_programs", "test_resume", "test_run"),
    *("test_torture", "test_detector"),
}
"""Tests of the programs themselves, of bitwise equality, and of the commands as a user types them. Elsewhere XLA
optimizes little, here and in the processes that tests start: optimizing took half of the time."""

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

KEYS_CHECKED = {
    *("test_augment", "test_corruptions", "test_fused", "test_models", "test_photos", "test_state", "test_steps"),
}
"""Tests of all that draws at random, in which JAX raises where a key is used twice. Elsewhere it took a tenth of the
time."""

SLOWEST = ("test_torture", "test_run", "test_layers", "test_resume", "test_sharding", "test_processes", "test_models")
"""Started first, so that no worker is left with one of them at the end."""


def _order(module: str) -> tuple[bool, int]:
    """Modules that XLA optimizes alike follow each other: what one has compiled, the next one has in memory."""
    return module not in FULLY_OPTIMIZED, SLOWEST.index(module) if module in SLOWEST else len(SLOWEST)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _order(item.path.stem))


def pytest_collection_finish():
    """What is imported stays: without it, Python looks for garbage among a million objects in each trace of JAX."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Sets what JAX does in a module before any fixture compiles."""
    little = item.path.stem not in FULLY_OPTIMIZED
    if little != jax.config.read("jax_disable_most_optimizations"):
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", little)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(little)
    jax.config.update("jax_debug_key_reuse", item.path.stem in KEYS_CHECKED)


@pytest.fixture(scope="module", autouse=True)
def _programs_of_other_workers():
    """What another worker has compiled in the meantime is not compiled again."""
    compile_cache.link_programs(Path(COMPILED))


@pytest.fixture(scope="session")
def splits() -> cnn.Splits:
    """All 70,000 real images; ``python -m cnn data`` has put them into the cache."""
    return cnn.load_data(cnn.DataConfig())


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """A directory with Fashion-MNIST's four idx files, not compressed."""
    directory = tmp_path_factory.mktemp("published")
    for field, array in cache.load_arrays(cnn.DataConfig())._asdict().items():
        (directory / idx.IDX_FILES[field].name).write_bytes(idx.idx_header(array.shape) + array.tobytes())
    return directory


@pytest.fixture(scope="session")
def real_home(tmp_path_factory, published) -> Path:
    """XDG_CACHE_HOME with the real Fashion-MNIST in it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        cache.prepare(cnn.DataConfig(source=str(published)))
    return home


@pytest.fixture(scope="session")
def small(splits) -> cnn.Splits:
    """A few real images; neither the training nor the validation images fill a number of batches."""
    return shrink(splits, 500, 130, 110)


@pytest.fixture(scope="session")
def full_config() -> cnn.ExperimentConfig:
    """The shipped experiment with two epochs; of images that are passed as arrays, it has to name the classes."""
    data = dataclasses.replace(fashion_cnn.CONFIG.data, class_names=cnn.class_names(fashion_cnn.CONFIG.data))
    train = dataclasses.replace(fashion_cnn.CONFIG.train, epochs=2)
    return dataclasses.replace(fashion_cnn.CONFIG, data=data, train=train)


@pytest.fixture(scope="session")
def config(full_config) -> cnn.ExperimentConfig:
    """The same with a narrow network, which compiles and trains in a second or two."""
    return dataclasses.replace(full_config, model=NARROW)


@pytest.fixture(scope="session")
def detector(config, small, tmp_path_factory) -> Detector:
    """Two epochs of a narrow detector, with 40 validation and 40 test scenes, some of them empty."""
    config = cnn.ExperimentConfig(
        name="yolo",
        data=dataclasses.replace(config.data, scenes=48),
        model=cnn.YoloConfig(features=2, blocks=(0, 0, 0)),
        train=cnn.TrainConfig(epochs=2, monitor="val_map"),
    )
    splits = with_scenes(config.data, shrink(small, 64, 40, 40))
    run_dir = tmp_path_factory.mktemp("detector") / "run"
    return Detector(run_dir, config, cnn.fit(config, run_dir, splits), splits)


@pytest.fixture
def state(config, small) -> cnn.TrainState:
    """A state before the first step, made for each test, as the steps donate it."""
    return cnn.create_state(config, len(small.train.labels))


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window; its camera films a picture that Chromium draws."""
    if not BROWSER or not DRIVER:
        pytest.skip("Chromium or its driver is missing; make browser, or apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # As root, Chromium has no sandbox; it opens only these pages.
    arguments = "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"
    for argument in (*arguments, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()
