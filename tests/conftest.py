"""What the tests share: the real images, a small part of them, and the shipped experiment, shrunk."""

import dataclasses
import os
import signal
import tempfile
from pathlib import Path

import hypothesis
import jax
import pytest

import cnn
from cnn.data import cache, idx
from experiments import fashion_cnn

# No test is about time; the first example of a jitted function compiles it.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
# What is tested is the CPU, here and in the processes that tests start; a machine may have more.
jax.config.update("jax_platforms", "cpu")
os.environ["JAX_PLATFORMS"] = "cpu"
# What importing cnn before JAX sets; here JAX came first, and the processes that tests start would inherit its own.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# As in pyproject.toml: now and then, jaxlib cannot serialize what it has compiled, and goes on without.
os.environ["PYTHONWARNINGS"] = "ignore:Error writing persistent compilation cache entry"
# A shell's background jobs ignore it, and so would the processes that tests start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Many tests, and the processes that they start, compile the same programs; each of pytest's processes keeps its own,
# as JAX does not write them atomically.
COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
jax.config.update("jax_compilation_cache_dir", COMPILED.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

FULLY_COMPILED = {"test_cost", "test_fused", "test_layers", "test_programs", "test_resume", "test_run"}
"""Tests of the programs themselves, of the bits that they come to, and of the commands as a user types them. Elsewhere
XLA's optimizer is told to do little, here and in the processes that tests start: it took half of the time."""

KEYS_CHECKED = {"test_augment", "test_fused", "test_models", "test_state", "test_steps"}
"""Tests of all that draws at random, in which JAX raises where a key is used twice. Elsewhere it took a tenth of the
time."""


@pytest.fixture(scope="module", autouse=True)
def compilation(request):
    name = request.module.__name__.split(".")[-1]
    little = name not in FULLY_COMPILED
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(little)
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", little)
    jax.config.update("jax_debug_key_reuse", name in KEYS_CHECKED)


def shrink(split: cnn.Split, count: int) -> cnn.Split:
    return cnn.Split(split.images[:count], split.labels[:count])


@pytest.fixture(scope="session")
def splits() -> cnn.Splits:
    """All 70,000 real images; ``python -m cnn data`` has put them into the cache."""
    return cnn.load_data(cnn.DataConfig())


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """A directory with Fashion-MNIST's four idx files, not compressed."""
    directory = tmp_path_factory.mktemp("published")
    for field, array in cache._load(cnn.DataConfig())._asdict().items():
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
    return cnn.Splits(shrink(splits.train, 500), shrink(splits.val, 130), shrink(splits.test, 110))


@pytest.fixture(scope="session")
def config() -> cnn.ExperimentConfig:
    """The shipped experiment with two epochs."""
    return dataclasses.replace(fashion_cnn.CONFIG, train=dataclasses.replace(fashion_cnn.CONFIG.train, epochs=2))


@pytest.fixture
def state(config, small) -> cnn.TrainState:
    """A state before the first step, made anew for each test as the steps use it up."""
    return cnn.create_state(config, len(small.train.labels))
