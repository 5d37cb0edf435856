"""A finished run and an interrupted one, of which tests take copies instead of training their own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import pytest

import cnn
from tests.helpers import narrow
from tests.torture import outcome


class Runs(NamedTuple):
    finished: Path
    interrupted: Path
    result: cnn.Result


@pytest.fixture(scope="session")
def four_epochs(config) -> cnn.ExperimentConfig:
    return narrow(config, epochs=4, patience=4)


@pytest.fixture(scope="session")
def _trained() -> dict[bool, Runs]:
    return {}


@pytest.fixture(scope="module")
def _runs(four_epochs, small, tmp_path_factory, _trained) -> Runs:
    """Trained once, and once more where XLA optimizes as the module's programs are, as tests compare the bits."""
    run_dir = tmp_path_factory.mktemp("runs")
    finished, interrupted = run_dir / "finished", run_dir / "interrupted"

    def report(row):
        if row["epoch"] == 3:
            shutil.copytree(finished, interrupted)

    little = bool(jax.config.read("jax_disable_most_optimizations"))
    if little not in _trained:
        _trained[little] = Runs(finished, interrupted, cnn.fit(four_epochs, finished, small, report))
    return _trained[little]


@pytest.fixture(scope="module")
def finished(_runs) -> Path:
    """The directory of a run of four epochs; no test changes it."""
    return _runs.finished


@pytest.fixture(scope="module")
def result(_runs) -> cnn.Result:
    """The result of that run."""
    return _runs.result


@pytest.fixture(scope="module")
def expected(finished) -> Any:
    """The outcome of that run."""
    return outcome(finished)


@pytest.fixture
def interrupted(_runs, tmp_path) -> Path:
    """A directory as that run left it after its third epoch, its best, with the checkpoint before it; of one test."""
    return Path(shutil.copytree(_runs.interrupted, tmp_path / "run"))


@pytest.fixture
def fit_with_val_losses(monkeypatch, config, small, tmp_path) -> Callable[..., cnn.Result]:
    """Runs ``fit`` in ``tmp_path`` with given validation losses."""

    def fit(losses, **train_fields):
        remaining = iter(losses)

        class Evaluate:
            def lower(self, *args):
                return self

            def compile(self):
                program = Mock(side_effect=lambda state, val: self.metrics(next(remaining)))
                program.memory_analysis.return_value = None
                return program

            def __call__(self, state, split):
                return self.metrics(0)

            def metrics(self, loss):
                return cnn.Metrics(jnp.float32(loss), jnp.int32(0), jnp.int32(1))

        monkeypatch.setattr("cnn.runs.fit.evaluate", Evaluate())
        return cnn.fit(narrow(config, **{"epochs": len(losses), **train_fields}), tmp_path, small)

    return fit
