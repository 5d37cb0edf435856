"""An interrupted run resumes to the same bits as an uninterrupted one."""

import numpy as np
import pytest

import cnn
from cnn.runs import checkpoint
from tests.helpers import Interrupted, assert_same, interrupt_after, narrow, without_times
from tests.torture import outcome

STEPS = 16
"""Of an epoch: 500 images in batches of 32."""


@pytest.fixture(scope="module")
def often(config, small, tmp_path_factory):
    """A run of two epochs that saves every fifth step, its configuration and its result."""
    run_dir, often = tmp_path_factory.mktemp("often") / "run", narrow(config, checkpoint_steps=5)
    return run_dir, often, cnn.fit(often, run_dir, small)


def test_an_epoch_in_parts_equals_the_epoch_bitwise(config, small):
    expected, metrics = cnn.train_epoch(cnn.create_state(config), small.train, batch_size=32)
    for parts in [(16,), (1, 15), (5, 5, 5, 1)]:
        state, so_far = cnn.create_state(config), cnn.Metrics(np.float32(0), np.int32(0), np.int32(0))
        for steps in parts:
            state, so_far = cnn.train_steps(state, so_far, small.train, steps, batch_size=32)
        assert state.step == STEPS and so_far == metrics
        assert_same((state.params, state.opt_state), (expected.params, expected.opt_state))


def test_a_run_interrupted_between_epochs_resumes_bitwise(result, expected, four_epochs, small, tmp_path):
    for epoch in (2, 3):
        with pytest.raises(Interrupted):
            cnn.fit(four_epochs, tmp_path / "run", small, interrupt_after(epoch))
        assert not (tmp_path / "run" / "result.json").exists()
    resumed = cnn.fit(four_epochs, tmp_path / "run", small)
    assert_same((resumed.state.params, resumed.state.opt_state), (result.state.params, result.state.opt_state))
    assert without_times(resumed.history) == without_times(result.history)
    assert outcome(tmp_path / "run") == expected


@pytest.mark.parametrize("step", [5, 15, 16, 21])
def test_a_run_interrupted_within_an_epoch_resumes_bitwise(monkeypatch, often, small, tmp_path, step):
    def save(checkpoints, state, progress):
        checkpoint.save(checkpoints, state, progress)
        if int(state.step) == step:
            raise Interrupted

    run_dir, config, _ = often
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("cnn.runs.fit.save", save)
        cnn.fit(config, tmp_path / "run", small)
    assert not (tmp_path / "run" / "result.json").exists()
    resumed = cnn.fit(config, tmp_path / "run", small)
    assert outcome(tmp_path / "run") == outcome(run_dir)
    assert all(row["images_per_second"] > 0 for row in resumed.history)


def test_how_often_a_run_saves_changes_nothing_else(often, config, small, tmp_path):
    seldom = cnn.fit(narrow(config), tmp_path / "seldom", small)
    assert without_times(often[2].history) == without_times(seldom.history)
    assert_same(often[2].state.opt_state, seldom.state.opt_state)
