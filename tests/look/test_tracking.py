"""Logs of the trackers, read with their own readers and compared with metrics.jsonl."""

import dataclasses
import importlib.util
import io
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cnn
from cnn.cli import load_experiment
from cnn.look import tracking
from cnn.run import run
from cnn.runs import rundir
from tests.helpers import Interrupted, interrupt_after, narrow, without_times

GROUPS = {
    "train_loss": "loss/train",
    "train_accuracy": "accuracy/train",
    "val_loss": "loss/val",
    "val_accuracy": "accuracy/val",
    **{name: name for name in ("learning_rate", "seconds", "images_per_second")},
}


def _config(config, tracker: Any = "tensorboard", **train_fields):
    return dataclasses.replace(narrow(config, **train_fields), log=cnn.LogConfig(figures=False, tracker=tracker))


def _fit(config, run_dir, splits, warn=pytest.fail):
    """Trains with the configuration's tracker; a warning fails the test unless it is expected."""
    with tracking.tracked(config, run_dir, splits, warn) as track:
        return cnn.fit(config, run_dir, splits, track=track)


def _killed_after_tracking(config, run_dir, splits, epoch):
    """Interrupts a run when an epoch has been tracked and not yet saved."""
    with pytest.raises(KeyboardInterrupt), tracking.tracked(config, run_dir, splits, pytest.fail) as track:

        def track_and_interrupt(row, state):
            track(row, state)
            if row["epoch"] == epoch:
                raise KeyboardInterrupt

        cnn.fit(config, run_dir, splits, track=track_and_interrupt)


def _read(run_dir: Path) -> EventAccumulator:
    return EventAccumulator(str(run_dir / "tensorboard"), {"scalars": 0, "histograms": 0, "images": 0}).Reload()


def _check_scalars(events: EventAccumulator, history) -> None:
    assert set(events.Tags()["scalars"]) == set(GROUPS.values())
    for name, tag in GROUPS.items():
        points = [(point.step, point.value) for point in events.Scalars(tag)]
        assert points == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in history], tag


@pytest.fixture(scope="module")
def tracked(config, small, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("tracked") / "run"
    return _fit(_config(config), run_dir, small), run_dir


def test_tensorboard_has_every_metric_of_every_epoch(tracked):
    result, run_dir = tracked
    assert len(result.history) == 2
    _check_scalars(_read(run_dir), rundir.read_history(run_dir))


def test_tensorboard_has_the_weights_of_every_layer(tracked, config):
    result, run_dir = tracked
    assert result.summary["best_epoch"] == 2  # So its weights are those after the second epoch.
    events, layers = _read(run_dir), result.state.params
    names = {f"weights/{layer}/{name}" for layer, params in layers.items() for name in params}
    assert set(events.Tags()["histograms"]) == names and len(names) == 8
    first, last = (point.histogram_value for point in events.Histograms("weights/conv2/kernel"))
    kernel = np.asarray(layers["conv2"]["kernel"])
    assert (last.min, last.max, last.num) == pytest.approx((kernel.min(), kernel.max(), kernel.size))
    assert last.sum == pytest.approx(kernel.sum(), rel=1e-4) and sum(last.bucket) == kernel.size
    assert first.sum != last.sum


def test_tensorboard_has_the_kernels_and_maps_of_every_epoch(tracked):
    _, run_dir = tracked
    events = _read(run_dir)
    assert set(events.Tags()["images"]) == {"kernels/conv1", "maps/conv1"}
    for tag in events.Tags()["images"]:
        first, second = events.Images(tag)
        assert (first.step, second.step) == (1, 2)
        assert first.encoded_image_string != second.encoded_image_string
        with Image.open(io.BytesIO(first.encoded_image_string)) as image:
            assert image.size == (first.width, first.height) and min(image.size) > 100


def test_an_epoch_repeated_after_a_kill_is_logged_once(tmp_path, config, small):
    three = _config(config, epochs=3)
    _killed_after_tracking(three, tmp_path, small, epoch=2)
    assert len(rundir.read_history(tmp_path)) == 1  # Only the tracker has the second epoch.
    assert len(_read(tmp_path).Scalars("loss/val")) == 2
    history = _fit(three, tmp_path, small).history
    assert len(history) == 3
    _check_scalars(_read(tmp_path), history)


def test_tracking_does_not_change_the_result(tracked, config, small, tmp_path):
    result, _ = tracked
    plain = cnn.fit(_config(config, tracker="none"), tmp_path, small)
    assert without_times(plain.history) == without_times(result.history)
    jax.tree.map(np.testing.assert_array_equal, plain.state.params, result.state.params)


def test_a_fused_run_logs_the_weights_of_the_best_epoch(config, small, tmp_path):
    result = _fit(_config(config, fused=True), tmp_path, small)
    events = _read(tmp_path)
    _check_scalars(events, result.history)
    assert [point.step for point in events.Histograms("weights/conv1/kernel")] == [result.summary["best_epoch"]]


def test_a_network_without_convolutions_logs_no_images(config, small, tmp_path):
    dense = dataclasses.replace(_config(config, epochs=1), model=cnn.DenseConfig(features=(4,)))
    _fit(dense, tmp_path, small)
    events = _read(tmp_path)
    assert not events.Tags()["images"] and len(events.Tags()["histograms"]) == 4


def test_a_failing_tracker_warns_once_and_the_run_continues(config, small, tmp_path, monkeypatch):
    lines, error = [], OSError(28, "No space left on device")
    run_dir = tmp_path / "run"
    write = tracking.TRACKERS["tensorboard"].write

    def fail_from_the_second(config, run_dir, epoch):
        if epoch.number > 1:
            raise error
        write(config, run_dir, epoch)

    failing = tracking.TRACKERS["tensorboard"]._replace(write=fail_from_the_second)
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", failing)
    result = _fit(_config(config, epochs=3), run_dir, small, lines.append)
    assert len(result.history) == 3 and (run_dir / "result.json").exists()
    assert lines == [f"--log.tracker tensorboard fails ({error.strerror}); the run continues without it"]
    assert len(_read(run_dir).Scalars("loss/val")) == 1


def test_no_partial_event_file_is_left(config, tmp_path, monkeypatch):
    def flush(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tensorboardX.record_writer.RecordWriter.flush", flush)
    with pytest.raises(OSError):
        tracking.TRACKERS["tensorboard"].write(config, tmp_path, tracking.Epoch(1, {"seconds": 1.0}, {}, {}))
    assert list((tmp_path / "tensorboard").iterdir()) == []


def test_only_the_primary_process_writes(config, small, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "is_primary", lambda: False)
    _fit(_config(config, epochs=1), tmp_path, small)
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize(("tracker", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_a_missing_package_names_its_extra_and_writes_nothing(tmp_path, monkeypatch, config, tracker, package):
    monkeypatch.setitem(sys.modules, package, None)
    run_dir = tmp_path / "run"
    with pytest.raises(cnn.ConfigError, match=rf"--log.tracker is '{tracker}', but {package} .* '\.\[{tracker}\]'"):
        run(_config(config, tracker=tracker), run_dir)
    assert not run_dir.exists()


def test_a_link_as_the_trackers_directory_is_refused(tmp_path, config, small):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(cnn.RunDirError, match="symbolic link"):
        _fit(_config(config), tmp_path / "run", small)
    assert list((tmp_path / "elsewhere").iterdir()) == []


class StandIn:
    """The used part of MLflow's client, in memory, if MLflow, with its hundred megabytes, is not installed."""

    stores: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}

    def __init__(self, uri):
        self.experiments, self.runs = self.stores.setdefault(uri, ({}, {}))

    def get_experiment_by_name(self, name):
        return self.experiments.get(name)

    def create_experiment(self, name, artifact_location):
        self.experiments[name] = types.SimpleNamespace(experiment_id=name)
        return name

    def create_run(self, experiment_id, run_name):
        info = types.SimpleNamespace(run_id=f"{len(self.runs)}", run_name=run_name, status="RUNNING")
        data = types.SimpleNamespace(params={})
        self.runs[info.run_id] = types.SimpleNamespace(info=info, data=data, metrics=[], images=[])
        return self.runs[info.run_id]

    def get_run(self, run_id):
        return self.runs[run_id]

    def log_batch(self, run_id, metrics=(), params=()):
        self.runs[run_id].metrics += metrics
        self.runs[run_id].data.params |= {param.key: param.value for param in params}

    def get_metric_history(self, run_id, key):
        return [metric for metric in self.runs[run_id].metrics if metric.key == key]

    def update_run(self, run_id, status):
        self.runs[run_id].info.status = status

    set_terminated = update_run

    def log_image(self, run_id, image, key, step):
        self.runs[run_id].images.append((key, step, image.size))


@pytest.fixture
def mlflow(monkeypatch):
    """MLflow's client: the real one if it is installed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if importlib.util.find_spec("mlflow") is None:
        entities = types.ModuleType("mlflow.entities")
        entities.__dict__["Metric"] = dataclasses.make_dataclass("Metric", ["key", "value", "timestamp", "step"])
        entities.__dict__["Param"] = dataclasses.make_dataclass("Param", ["key", "value"])
        package = types.ModuleType("mlflow")
        package.__dict__.update(MlflowClient=StandIn, entities=entities)
        modules = {"mlflow": package, "mlflow.entities": entities}
        modules |= {name: types.ModuleType(name) for name in ("sqlalchemy", "alembic")}
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
    return lambda run_dir: sys.modules["mlflow"].MlflowClient(f"sqlite:///{run_dir / 'mlflow' / 'mlflow.db'}")


@pytest.mark.filterwarnings("ignore")  # Deprecations in MLflow and SQLAlchemy.
def test_mlflow_has_one_run_with_every_epoch_and_option(mlflow, tmp_path, config, small):
    three = _config(config, tracker="mlflow", epochs=3)
    run_dir = tmp_path / "run"
    _killed_after_tracking(three, run_dir, small, epoch=2)
    client, run_id = mlflow(run_dir), (run_dir / "mlflow" / "run_id").read_text()
    assert client.get_run(run_id).info.status == "KILLED"
    # Interrupted after the last epoch is saved: the repeated command has none to train.
    with pytest.raises(Interrupted), tracking.tracked(three, run_dir, small, pytest.fail) as track:
        cnn.fit(three, run_dir, small, report=interrupt_after(3), track=track)
    assert client.get_run(run_id).info.status == "KILLED"
    history = _fit(three, run_dir, small).history
    for name, tag in GROUPS.items():
        points = client.get_metric_history(run_id, tag)
        assert [point.step for point in points] == [1, 2, 3]
        if name not in ("seconds", "images_per_second"):  # The second epoch keeps those of its first run.
            assert [point.value for point in points] == pytest.approx([row[name] for row in history])
    logged = client.get_run(run_id)
    assert (logged.info.status, logged.info.run_name) == ("FINISHED", "run")
    with pytest.raises(cnn.RunDirError, match=r"train\.seed 0 -> 1"):
        _fit(_config(config, tracker="mlflow", epochs=3, seed=1), run_dir, small)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert logged.data.params["optim.learning_rate"] == "0.001" and logged.data.params["model.family"] == "cnn"


def test_a_run_uses_the_tracker_of_its_configuration(tmp_path, monkeypatch, small):
    monkeypatch.setattr("cnn.data.splits.load_named", lambda config: (config, small))
    run(_config(load_experiment("experiments.fashion_cnn"), epochs=1), tmp_path / "run")
    assert len(_read(tmp_path / "run").Scalars("loss/val")) == 1
