import dataclasses
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn
from cnn.intervals import estimate
from cnn.models import winograd
from cnn.training.early_stopping import EarlyStopper, update_stopper
from cnn.training.fused import epoch_metrics, train_fused
from cnn.training.state import initial_state
from tests.helpers import assert_same, shrink, without_times


def _narrow(config, features=8, **train):
    # A rate at which the validation loss of a few images soon rises again, so that early stopping applies.
    optim = dataclasses.replace(config.optim, learning_rate=0.05)
    model = cnn.ModelConfig(conv1_features=features, conv2_features=features, dense_features=8)
    return dataclasses.replace(
        config, model=model, optim=optim, train=dataclasses.replace(config.train, **{"epochs": 9, **train})
    )


WINOGRAD = winograd.MIN_CHANNELS
"""Features of the compared runs, so that each program contains the loops of Winograd's algorithm."""


@pytest.fixture(scope="module")
def few(small) -> cnn.Splits:
    return shrink(small, 200, 130, 110)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("fused")


@pytest.fixture(scope="module")
def runs(config, few, root):
    """The same experiment by the Python loop and by the device loop, both stopped early."""
    return [cnn.fit(_narrow(config, WINOGRAD, fused=fused), root / str(fused), few) for fused in (False, True)]


def test_fused_run_equals_the_python_loop(runs):
    by_epoch, fused = runs
    assert by_epoch.summary["stopped_epoch"] < 9
    assert without_times(fused.history) == without_times(by_epoch.history)
    assert_same(fused.state.params, by_epoch.state.params)
    summaries = [without_times(run.summary) for run in (fused, by_epoch)]
    for summary in summaries:
        # The configurations differ in one field.
        del summary["sha256"], summary["config_sha256"]
    assert summaries[0] == summaries[1]


def test_saved_fused_run_is_not_trained_again(config, few, root, runs, tmp_path, monkeypatch):
    shutil.copytree(root / "True", tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    monkeypatch.setattr("cnn.runs.fit.train_fused", None)
    assert cnn.fit(_narrow(config, WINOGRAD, fused=True), tmp_path / "run", few).history == runs[1].history


LIMITS = {"epochs": 9, "patience": 2, "batch_size": 32}


def test_fused_run_ends_at_a_non_finite_loss(config, few):
    state = cnn.create_state(_narrow(config), 200)
    state = state.replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params))
    run = train_fused(state, few.train, few.val, **LIMITS)
    assert int(run.epochs) == 1 and not run.finite and int(run.stopper.best_epoch) == 0
    assert math.isnan(epoch_metrics(run)[0][1].loss)


def test_fused_run_is_one_program_without_the_host(config, few):
    state = cnn.create_state(_narrow(config), 200)
    program = train_fused.lower(state, few.train, few.val, **LIMITS).compile().as_text() or ""
    assert " while(" in program
    assert not [word for word in ("infeed", "outfeed", "callback") if word in program]


def test_fit_seeds_equals_fit_of_each_seed(config, few, runs, tmp_path):
    result = cnn.fit_seeds(_narrow(config, WINOGRAD), (0, 7), few)
    assert [row["seed"] for row in result.rows] == [0, 7]
    other = cnn.fit(_narrow(config, WINOGRAD, seed=7), tmp_path / "seven", few)
    for row, ours in zip(result.rows, (runs[0], other), strict=True):
        expected = {name: ours.summary[name] for name in row if name != "seed"}
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert result.state.params["conv1"]["kernel"].shape == (2, 3, 3, 1, WINOGRAD)
    np.testing.assert_allclose(
        result.state.params["logits"]["kernel"][1], other.state.params["logits"]["kernel"], rtol=1e-5, atol=1e-6
    )


def test_seed_with_a_non_finite_loss_is_named(config, few, monkeypatch):
    def initial(seed, spec):
        state = initial_state(seed, spec)
        return state.replace(params=jax.tree.map(lambda leaf: jnp.where(seed == 7, jnp.nan, leaf), state.params))

    monkeypatch.setattr("cnn.runs.seeds.initial_state", initial)
    with pytest.raises(FloatingPointError, match=r"non-finite loss with seeds 7;"):
        cnn.fit_seeds(_narrow(config), (0, 7), few)


def test_seed_with_a_non_finite_test_loss_is_named(config, few, monkeypatch):
    monkeypatch.setattr(
        "cnn.runs.seeds.evaluate",
        lambda state, split: cnn.evaluate(state, split).replace(loss_sum=jnp.float32(jnp.nan)),
    )
    with pytest.raises(FloatingPointError, match=r"non-finite loss with seeds 0;"):
        cnn.fit_seeds(_narrow(config), (0,), few)


def test_vmapped_seeds_stop_independently(config, few):
    """The accelerator's program, here on the CPU: the loop continues until the last seed has stopped."""
    config = _narrow(config)
    states = [
        cnn.create_state(dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed)), 200)
        for seed in (0, 7)
    ]
    together = jax.vmap(lambda state: train_fused(state, few.train, few.val, **LIMITS))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    )
    for i, state in enumerate(states):
        single = train_fused(state, few.train, few.val, **LIMITS)
        # Grouped convolutions sum in another order, which training at this rate amplifies from epoch to epoch.
        np.testing.assert_allclose(together.val.loss_sum[i][:2], single.val.loss_sum[:2], rtol=1e-3)
        assert int(together.epochs[i]) == int(jnp.count_nonzero(together.val.count[i]))
        assert int(together.epochs[i] - together.stopper.best_epoch[i]) == 2 or int(together.epochs[i]) == 9


# XLA's CPU code flushes subnormal numbers to zero; no loss is below 1e-38 except zero.
@given(st.lists(st.floats(0, 1, width=32, allow_subnormal=False), min_size=1, max_size=12))
def test_stopper_is_the_same_for_arrays(losses):
    numbers, arrays = EarlyStopper(), EarlyStopper(jnp.float32(math.inf), jnp.int32(0), jnp.int32(0))
    for epoch, loss in enumerate(losses, 1):
        numbers = update_stopper(numbers, epoch, loss)
        arrays = update_stopper(arrays, jnp.int32(epoch), jnp.float32(loss))
        assert tuple(map(float, arrays)) == numbers


def test_interval_is_students_t():
    # For n = 5, t is 2.776: the standard table.
    result = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (result.mean, result.std) == (3.0, pytest.approx(2.5**0.5))
    assert result.high - result.mean == pytest.approx(2.776 * (2.5 / 5) ** 0.5, rel=1e-3)
    assert math.isnan(estimate([1.0]).high)


@pytest.mark.parametrize("seeds", [(), (1, 1), (-1,), (2**32,), (0.5,)])
def test_invalid_seeds_are_refused(config, small, seeds):
    with pytest.raises(cnn.ConfigError, match="seeds are"):
        cnn.fit_seeds(config, seeds, small)
