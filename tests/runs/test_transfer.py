"""Transfer: layers by name, all of them reported, frozen or with lower rates, and runs that start from another."""

import dataclasses
import shutil
from typing import Any

import jax
import numpy as np
import pytest

import cnn
from cnn.data.splits import check_splits
from cnn.training.optim import make_optimizer
from tests.helpers import NARROW, Interrupted, interrupt_after, narrow


def _state(seed, **fields):
    train = cnn.TrainConfig(seed=seed)
    return cnn.create_state(cnn.ExperimentConfig(model=dataclasses.replace(NARROW, **fields), train=train))


def _equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_layers_are_transferred_by_name_and_all_are_reported():
    state, source = _state(0, classes=2), _state(1)
    before = jax.tree.map(np.asarray, state.params)
    state, report = cnn.take_layers(state, source, ["conv*", "dense"])
    assert all(_equal(state.params[name], source.params[name]) for name in ("conv1", "conv2", "dense"))
    assert _equal(state.params["logits"], before["logits"]) and not _equal(before["conv1"], source.params["conv1"])
    assert report == "transferred: conv1, conv2, dense\ninitialized at random: logits\nonly in the source: logits"


def test_running_statistics_and_the_ema_are_transferred(config, small):
    optim = dataclasses.replace(config.optim, average_decay=0.5)
    resnet = dataclasses.replace(config, model=cnn.ResNetConfig(blocks=(1, 1, 1), features=4), optim=optim)
    source, _ = cnn.train_step(cnn.create_state(resnet), cnn.Batch(small.train.images[:8], small.train.labels[:8]))
    state, _ = cnn.take_layers(cnn.create_state(resnet), source, ["*"])
    assert _equal(state.params, source.ema["params"]) and not _equal(state.params, source.params)
    assert _equal(state.batch_stats, source.ema["batch_stats"])
    assert _equal(state.ema, source.ema)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["*"], r"logits/bias \[10\] -> \[2\]; logits/kernel \[8, 10\] -> \[8, 2\]"),
        (["dense", "head"], "'head', which matches no layer; the layers are conv1, conv2, dense, logits"),
    ],
)
def test_a_differing_leaf_or_an_unknown_layer_is_named(patterns, message):
    with pytest.raises(cnn.ConfigError, match=message):
        cnn.take_layers(_state(0, classes=2), _state(1), patterns)


def test_a_layer_missing_in_the_source_is_named():
    dense = cnn.create_state(cnn.ExperimentConfig(model=cnn.DenseConfig()))
    with pytest.raises(cnn.ConfigError, match=r"conv1/bias missing -> \[4\]; conv1/kernel missing -> \[3, 3, 1, 4\]"):
        cnn.take_layers(_state(0), dense, ["conv1"])


def test_rate_multipliers_scale_updates_and_zero_freezes_a_layer():
    params = {name: {"kernel": np.ones((2, 3), np.float32)} for name in ("conv1", "conv2", "logits")}
    grads = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    plain = cnn.OptimConfig(weight_decay=0.1)
    rated = dataclasses.replace(plain, learning_rate_multipliers=("conv1=0", "conv*=0.1"))
    updates: list[Any] = []
    for optim in (plain, rated):
        optimizer = make_optimizer(optim, 0)
        updates.append(optimizer.update(grads, optimizer.init(params), params)[0])
    factors = {"conv1": 0.0, "conv2": 0.1, "logits": 1.0}
    for name, factor in factors.items():
        plainly, rated_update = (update[name]["kernel"] for update in updates)
        np.testing.assert_allclose(rated_update, factor * plainly, rtol=1e-6)


@pytest.mark.parametrize(
    "rates", [("conv1",), ("conv1=-1",), ("=2",), ("conv1=fast",), ("conv1=1e999",), ("conv1=nan",)]
)
def test_invalid_rate_multipliers_are_refused(rates):
    with pytest.raises(
        cnn.ConfigError, match="--optim.learning_rate_multipliers is .* must be layer names or patterns"
    ):
        cnn.OptimConfig(learning_rate_multipliers=rates)


def test_rate_multipliers_of_unknown_layers_are_refused():
    config = cnn.ExperimentConfig(model=NARROW, optim=cnn.OptimConfig(learning_rate_multipliers=("trunk*=0.1",)))
    with pytest.raises(
        cnn.ConfigError, match="--optim.learning_rate_multipliers is 'trunk\\*', but must be a pattern of conv1, conv2"
    ):
        cnn.create_state(config)


def test_a_run_initialized_from_another_reports_it_and_keeps_frozen_layers(config, small, tmp_path):
    first = cnn.fit(narrow(config, epochs=1), tmp_path / "first", small)
    transfer = cnn.TransferConfig(source=str(tmp_path / "first"), layers=("conv*",))
    optim = dataclasses.replace(config.optim, learning_rate_multipliers=("conv*=0",))
    second = dataclasses.replace(narrow(config, epochs=1, seed=1), transfer=transfer, optim=optim)
    result = cnn.fit(second, tmp_path / "second", small)
    assert _equal(result.state.params["conv2"], first.state.params["conv2"])
    assert not _equal(result.state.params["dense"], first.state.params["dense"])
    report = (tmp_path / "second" / "transfer.txt").read_text()
    assert report.endswith(
        "transferred: conv1, conv2\ninitialized at random: dense, logits\nonly in the source: dense, logits\n"
    )
    assert cnn.load_best(tmp_path / "second")[1] == check_splits(second, small)
    with pytest.raises(cnn.ConfigError, match="seeds in one call start from random parameters"):
        cnn.fit_seeds(second, [0], small)


def test_a_transfer_with_an_ema_resumes_bitwise_without_its_source(config, small, tmp_path):
    cnn.fit(narrow(config, epochs=1), tmp_path / "source", small)
    optim = dataclasses.replace(config.optim, average_decay=0.9)
    transfer = cnn.TransferConfig(source=str(tmp_path / "source"))
    second = dataclasses.replace(narrow(config, seed=1), transfer=transfer, optim=optim)
    whole = cnn.fit(second, tmp_path / "whole", small)

    with pytest.raises(Interrupted):
        cnn.fit(second, tmp_path / "parts", small, report=interrupt_after(1))
    shutil.rmtree(tmp_path / "source")
    parts = cnn.fit(second, tmp_path / "parts", small)
    assert _equal(parts.state.params, whole.state.params) and _equal(parts.state.ema, whole.state.ema)


@pytest.mark.parametrize(
    ("transfer", "multipliers", "message"),
    [
        (cnn.TransferConfig(source="nothing"), (), "nothing"),
        (cnn.TransferConfig(), ("trunk*=0.1",), "'trunk\\*', but must be a pattern of conv1"),
    ],
)
def test_an_invalid_transfer_leaves_no_run_behind(transfer, multipliers, message, config, small, tmp_path):
    optim = dataclasses.replace(config.optim, learning_rate_multipliers=multipliers)
    with pytest.raises(cnn.UserError, match=message):
        cnn.fit(dataclasses.replace(narrow(config), transfer=transfer, optim=optim), tmp_path, small)
    assert not (tmp_path / "config.json").exists()


def test_layers_without_a_source_are_refused():
    with pytest.raises(cnn.ConfigError, match="--transfer.layers"):
        cnn.TransferConfig(layers=("conv*",))
