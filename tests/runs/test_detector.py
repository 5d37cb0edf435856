"""A detector's runs: the same loop, checkpoints, early stopping, fused runs and sweeps as a classifier's."""

import dataclasses

import numpy as np
import pytest

import cnn
from cnn.data.scenes import with_scenes
from cnn.detection import average_precision as precision
from cnn.runs import sweeps
from cnn.runs.verify import verify
from experiments.yolo import CONFIG
from tests.helpers import Interrupted, assert_same, interrupt_after, shrink, without_times
from tests.torture import outcome

SMALL = dataclasses.replace(
    CONFIG,
    data=cnn.DataConfig(scenes=48),
    model=cnn.YoloConfig(blocks=(0, 1, 0), features=4),
    train=cnn.TrainConfig(epochs=2, monitor="val_map"),
)


@pytest.fixture(scope="module")
def few(small):
    return with_scenes(SMALL.data, shrink(small, 96, 40, 40))


@pytest.fixture(scope="module")
def trained(few, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("detector") / "run"
    return run_dir, cnn.fit(SMALL, run_dir, few)


def test_a_detector_trains_by_the_same_loop_and_its_files_verify(trained, few):
    run_dir, result = trained
    assert not any(verify(run_dir).values())
    row, summary = result.history[result.summary["best_epoch"] - 1], result.summary
    assert {"val_map", "val_map_50"} <= row.keys() and row["val_map"] == summary["val_map"]
    # The same by hand, from what the best state finds.
    found = cnn.detect(result.state, few.test.images)
    matches = precision.match(found, few.test.labels, 10)
    assert summary["test_map"] == precision.summary(precision.average_precision(matches))["map"]
    state, config = cnn.load_best(run_dir)
    assert config.model == dataclasses.replace(SMALL.model, classes=10)
    assert_same(state.params, result.state.params)


def test_an_interrupted_detector_resumes_bitwise(trained, few, tmp_path):
    with pytest.raises(Interrupted):
        cnn.fit(SMALL, tmp_path / "run", few, interrupt_after(1))
    resumed = cnn.fit(SMALL, tmp_path / "run", few)
    assert without_times(resumed.history) == without_times(trained[1].history)
    assert outcome(tmp_path / "run") == outcome(trained[0])


def test_a_fused_run_trains_a_detector(trained, few, tmp_path):
    config = dataclasses.replace(SMALL, train=cnn.TrainConfig(epochs=2, fused=True))
    fused = cnn.fit(config, tmp_path / "run", few)
    losses = [[row[name] for name in ("train_loss", "val_loss")] for row in fused.history]
    expected = [[row[name] for name in ("train_loss", "val_loss")] for row in trained[1].history]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_scenes_of_a_device_without_room_are_streamed_to_the_same_bits(trained, few, tmp_path, monkeypatch):
    monkeypatch.setattr("cnn.runs.streaming.spare_bytes", lambda devices: 0)
    streamed = cnn.fit(SMALL, tmp_path / "run", few)
    assert without_times(streamed.history) == without_times(trained[1].history)


def test_own_boxes_are_streamed_to_the_same_bits(few, tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, data=cnn.DataConfig(), train=cnn.TrainConfig(epochs=1))
    boxed = few._replace(train=few.val)
    in_memory = cnn.fit(config, tmp_path / "whole", boxed)
    monkeypatch.setattr("cnn.runs.streaming.spare_bytes", lambda devices: 0)
    streamed = cnn.fit(config, tmp_path / "run", boxed)
    assert without_times(streamed.history) == without_times(in_memory.history)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_the_table_of_a_sweep_has_the_mean_average_precision(few, tmp_path):
    config = dataclasses.replace(SMALL, train=cnn.TrainConfig(epochs=1))
    tried = sweeps.sweep(config, {}, range(2), tmp_path / "sweep", splits=few)
    titles, _, cells = (line.split("|") for line in sweeps.table(tried).splitlines())
    assert [title.strip() for title in titles[-3:-1]] == ["val mAP", "test mAP"]
    mean = np.mean([row["test_map"] for row in tried[0].rows])
    assert cells[-2].strip().startswith(f"{mean:.4f}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": cnn.DataConfig()}, "--data.scenes 96 composes images"),
        ({"augment": cnn.AugmentConfig(flip=True)}, "--augment.flip is True, but must be left out with yolo"),
        ({"train": cnn.TrainConfig(dynamics=True)}, "--train.dynamics is True, but must be left out with yolo"),
        ({"train": cnn.TrainConfig(monitor="val_macro_f1")}, "--train.monitor"),
        ({"optim": cnn.OptimConfig(label_smoothing=0.1)}, "--optim.label_smoothing"),
        ({"model": cnn.ModelConfig()}, "--data.scenes is 48, but must be 0 with cnn, a classifier"),
    ],
)
def test_what_does_not_fit_the_task_is_one_line(small, tmp_path, changes, message):
    with pytest.raises(cnn.UserError, match=message):
        cnn.fit(dataclasses.replace(SMALL, **changes), tmp_path / "run", small)


def test_a_classifier_refuses_boxes(config, few, tmp_path):
    boxed = few._replace(train=few.val)
    with pytest.raises(cnn.DataError, match="boxes, which need a detector"):
        cnn.fit(dataclasses.replace(config, data=cnn.DataConfig()), tmp_path / "run", boxed)
