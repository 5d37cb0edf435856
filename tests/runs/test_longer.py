"""More epochs than a run was planned for."""

import dataclasses
import json

import pytest

import cnn
from cnn.runs import rundir
from tests.helpers import Interrupted, flip_a_bit, interrupt_after, largest_file, narrow
from tests.torture import outcome


def _train(config, run_dir, small, epochs, **options):
    return cnn.fit(narrow(config, epochs=epochs, patience=9), run_dir, small, **options)


def test_a_finished_run_trains_longer_to_the_bits_of_a_run_planned_so(config, small, tmp_path):
    _train(config, tmp_path / "planned", small, 3)
    assert _train(config, tmp_path / "longer", small, 1).summary["stopped_epoch"] == 1
    assert _train(config, tmp_path / "longer", small, 3).summary["stopped_epoch"] == 3
    assert outcome(tmp_path / "longer") == outcome(tmp_path / "planned")
    described = [rundir.read_description(tmp_path / name)["config"] for name in ("longer", "planned")]
    assert described[0] == described[1]


def test_a_stopped_run_trains_longer(config, small, tmp_path):
    _train(config, tmp_path / "planned", small, 3)
    with pytest.raises(Interrupted):
        _train(config, tmp_path / "longer", small, 2, report=interrupt_after(1))
    _train(config, tmp_path / "longer", small, 3)
    assert outcome(tmp_path / "longer") == outcome(tmp_path / "planned")


def test_a_stopped_run_whose_configuration_was_changed_by_hand_is_left_as_it_is(config, small, tmp_path):
    with pytest.raises(Interrupted):
        _train(config, tmp_path, small, 2, report=interrupt_after(1))
    described = json.loads((tmp_path / "config.json").read_text())
    described["versions"]["python"] = "0"
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(cnn.RunDirError, match="is of another run than"):
        _train(config, tmp_path, small, 3)
    assert json.loads((tmp_path / "config.json").read_text()) == described


def test_a_finished_run_keeps_its_result_if_its_best_checkpoint_is_damaged(config, small, tmp_path):
    _train(config, tmp_path, small, 1)
    (tmp_path / "summary.txt").unlink()
    (tmp_path / "summary.txt").mkdir()
    with pytest.raises(cnn.RunDirError, match="summary.txt is not a regular file"):
        _train(config, tmp_path, small, 3)
    (tmp_path / "summary.txt").rmdir()
    (step,) = (tmp_path / "checkpoints").iterdir()
    flip_a_bit(largest_file(step))
    with pytest.raises(cnn.DamagedError, match="is damaged"):
        _train(config, tmp_path, small, 3)
    assert (tmp_path / "result.json").exists()


def test_a_run_that_early_stopping_ended_stays_as_it_is(config, small, tmp_path):
    steep = dataclasses.replace(narrow(config, epochs=8, patience=1), optim=cnn.OptimConfig(learning_rate=0.5))
    first = cnn.fit(steep, tmp_path, small)
    assert first.summary["stopped_epoch"] < 8
    longer = dataclasses.replace(steep, train=dataclasses.replace(steep.train, epochs=20))
    assert cnn.fit(longer, tmp_path, small).summary == first.summary


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"optim": cnn.OptimConfig(schedule="cosine")}, "its cosine schedule ends there"),
        ({"train": cnn.TrainConfig(epochs=1, fused=True)}, "a fused run keeps only its best state"),
    ],
    ids=["schedule", "fused"],
)
def test_a_run_that_depends_on_its_end_is_refused_with_the_reason(config, small, tmp_path, fields, reason):
    planned = dataclasses.replace(narrow(config, epochs=1), **fields)
    cnn.fit(planned, tmp_path, small)
    longer = dataclasses.replace(planned, train=dataclasses.replace(planned.train, epochs=2))
    with pytest.raises(cnn.RunDirError, match=f"a run of 1 epochs, and cannot train longer: {reason}; name another"):
        cnn.fit(longer, tmp_path, small)
    assert (tmp_path / "result.json").exists()


def test_fewer_epochs_and_other_fields_are_refused(config, small, tmp_path):
    _train(config, tmp_path, small, 2)
    with pytest.raises(cnn.RunDirError, match="train.epochs 2 -> 1"):
        _train(config, tmp_path, small, 1)
    with pytest.raises(cnn.RunDirError, match="train.epochs 2 -> 3.*train.seed 0 -> 1"):
        cnn.fit(narrow(config, epochs=3, patience=9, seed=1), tmp_path, small)
