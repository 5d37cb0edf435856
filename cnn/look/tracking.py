"""Each epoch's metrics, weights and images -> TensorBoard or MLflow (--log.tracker); a failing tracker stops no run."""

import importlib
import io
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from cnn.config import ExperimentConfig
from cnn.data.splits import Splits, load_data
from cnn.devices.processes import is_primary
from cnn.devices.sharding import on_one_device
from cnn.errors import ConfigError, first_cause, install_command
from cnn.look.features import feature_maps
from cnn.look.subject import subject
from cnn.runs import rundir
from cnn.runs.files import replacing
from cnn.serialization import config_fields
from cnn.training.state import TrainState
from cnn.training.summary import first_convolution, layer_table

Track = Callable[[dict[str, Any], TrainState | None], None]
"""Called by ``fit`` with an epoch's row of metrics.jsonl and the state after the epoch."""


class Epoch(NamedTuple):
    """What a tracker receives for an epoch."""

    number: int
    """From 1; the tracker's step."""
    metrics: dict[str, float]
    """The epoch's row, as "loss/train", "loss/val", ..., "seconds"."""
    weights: dict[str, np.ndarray]
    """The parameters used in evaluation, as "conv1/kernel"; {} without a state."""
    images: dict[str, bytes]
    """PNG files: the kernels of the first convolution, and its feature maps for an image."""


class Tracker(NamedTuple):
    """Where epochs are logged. Writing an epoch again, as a resumed run does, must replace it."""

    packages: tuple[str, ...]
    """The packages it imports, from the extra of the same name."""
    write: Callable[[ExperimentConfig, Path, Epoch], None]
    """Logs an epoch, given the run's configuration and directory."""
    end: Callable[[Path, bool], None]
    """Called when training ends, with the run's directory and whether it finished."""


@contextmanager
def tracked(
    config: ExperimentConfig,
    run_dir: str | Path,
    splits: Splits | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> Iterator[Track]:
    """Yields the ``track`` callback of ``fit``, which logs epochs with the tracker of ``config.log``.

    The first failure of the tracker is passed to ``warn``, and the run continues without it. Only the primary process
    writes.

    Args:
      config: the experiment.
      run_dir: directory of the run; the tracker's files are in its subdirectory of the tracker's name.
      splits: images to use instead of those of the configuration.
      warn: called with one line if the tracker fails.

    Raises:
      ConfigError: a package that the tracker needs is not installed.
      RunDirError: the tracker's directory is a link.
    """
    name, run_dir, started, failed = config.log.tracker, Path(run_dir), False, False
    tracker = TRACKERS.get(name)
    if tracker is None:
        yield lambda row, state: None
        return
    # Otherwise, MLflow sends usage statistics to its makers.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for package in tracker.packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"--log.tracker is {name!r}, but {error.name} is not installed; "
                f"leave the option out, or run {install_command(name)}"
            ) from None
    rundir.own_directory(run_dir, name)

    def guarded(function, *arguments):
        nonlocal failed
        if is_primary() and not failed:
            try:
                function(*arguments)
            # Trackers fail in many ways, none of which may stop the run.
            except Exception as error:
                failed = True
                warn(f"--log.tracker {name} fails ({first_cause(error)}); the run continues without it")

    @cache
    def first_image():
        image, description = subject(config.model.task, load_data(config.data) if splits is None else splits)
        return image[None].copy(), description

    def write(row, state):
        tracker.write(config, run_dir, _epoch(row, state, *first_image()))

    def track(row, state):
        nonlocal started
        started = True
        # All processes hand over their shards of the state, even if the primary one's tracker has failed.
        guarded(write, row, state if state is None else on_one_device(state.eval_state))

    finished = False
    try:
        yield track
        finished = True
    finally:
        # Without an epoch, fit has refused the directory: the logged run is another one's.
        if started or finished:
            guarded(tracker.end, run_dir, finished)


def _epoch(row: dict[str, Any], state: TrainState | None, image_1xHxWxC: np.ndarray, description: str) -> Epoch:
    """Returns what the tracker receives, from a row, the state after the epoch, an image and what that is called."""
    grouped = {f"{split}_{name}": f"{name}/{split}" for split in ("train", "val") for name in ("loss", "accuracy")}
    metrics = {grouped.get(name, name): float(value) for name, value in row.items() if name != "epoch"}
    if state is None:
        return Epoch(row["epoch"], metrics, {}, {})
    weights: Any = flatten_dict(jax.device_get(state.params), sep="/")
    return Epoch(
        row["epoch"], metrics, weights, _images(state, image_1xHxWxC, description, f"after epoch {row['epoch']}")
    )


def _images(state: TrainState, image_1xHxWxC: np.ndarray, description: str, when: str) -> dict[str, bytes]:
    """Draws the kernels and feature maps of the first convolution, if the network has one."""
    from cnn.figures import image_plots, kernel_plots

    first = first_convolution(layer_table(state))
    if first is None:
        return {}
    kernels, maps = state.params[first]["kernel"], feature_maps(state, image_1xHxWxC)[first][0]
    figures = {
        f"kernels/{first}": kernel_plots.kernels(np.asarray(kernels), f"Kernels of {first}, {when}"),
        f"maps/{first}": image_plots.feature_maps(
            np.asarray(maps), f"Feature maps of {first} for {description}, {when}"
        ),
    }
    images = {}
    for name, figure in figures.items():
        figure.savefig(buffer := io.BytesIO(), format="png", dpi=80, bbox_inches="tight")
        images[name] = buffer.getvalue()
    return images


def _write_tensorboard(config: ExperimentConfig, run_dir: Path, epoch: Epoch) -> None:
    """Writes an event file named by the epoch's number, so that a repeated epoch replaces itself.

    Not with tensorboardX's SummaryWriter: it writes in a thread, and a failure there, such as a full disk, ends that
    thread and then blocks this one.
    """
    from PIL import Image
    from tensorboardX import summary
    from tensorboardX.record_writer import RecordWriter

    # Their classes are created on import, unknown to type checkers.
    Event: Any = importlib.import_module("tensorboardX.proto.event_pb2").Event
    Summary: Any = importlib.import_module("tensorboardX.proto.summary_pb2").Summary
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in epoch.metrics.items()]
    for tag, weights in epoch.weights.items():
        values.extend(summary.histogram(f"weights/{tag}", weights, bins=64).value)
    for tag, png in epoch.images.items():
        width, height = Image.open(io.BytesIO(png)).size
        values.append(
            Summary.Value(
                tag=tag, image=Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
            )
        )
    now, step = time.time(), epoch.number
    events = Event(wall_time=now, file_version="brain.Event:2"), Event(wall_time=now, step=step)
    events[1].summary.value.extend(values)
    directory = run_dir.absolute() / "tensorboard"
    directory.mkdir(exist_ok=True)
    # TensorBoard reads files with "tfevents" in their names, in alphabetical order.
    with replacing(directory / f"events.out.tfevents.{step:06}", prefix=f".{step}") as temporary:
        writer = RecordWriter(str(temporary))
        try:
            for event in events:
                writer.write(event.SerializeToString())
            writer.flush()
        finally:
            with suppress(OSError):
                writer.close()


def _mlflow_client(run_dir: Path) -> Any:
    """MLflow's client, for the server or file of MLFLOW_TRACKING_URI, or else for a file in the run directory."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    directory = run_dir.absolute() / "mlflow"
    directory.mkdir(exist_ok=True)
    mlflow: Any = importlib.import_module("mlflow")
    return mlflow.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{directory / 'mlflow.db'}")


def _write_mlflow(config: ExperimentConfig, run_dir: Path, epoch: Epoch) -> None:
    """Adds the epoch to the MLflow run whose id is in the run directory, unless it is already logged."""
    from PIL import Image

    entities: Any = importlib.import_module("mlflow.entities")
    client, now = _mlflow_client(run_dir), int(1000 * time.time())
    id_file = run_dir / "mlflow" / "run_id"
    if not id_file.exists():
        experiment = client.get_experiment_by_name(config.name)
        artifacts = (
            None if os.environ.get("MLFLOW_TRACKING_URI") else (run_dir / "mlflow" / "artifacts").absolute().as_uri()
        )
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(config.name, artifacts)
        run_id = client.create_run(experiment_id, run_name=run_dir.name).info.run_id
        fields = config_fields(config).items()
        client.log_batch(run_id, params=[entities.Param(name, str(value)) for name, value in fields])
        rundir.write_text(id_file, run_id)
    run_id = id_file.read_text()
    if any(point.step == epoch.number for point in client.get_metric_history(run_id, "loss/train")):
        return
    client.update_run(run_id, status="RUNNING")
    for tag, png in epoch.images.items():
        client.log_image(run_id, Image.open(io.BytesIO(png)), key=tag, step=epoch.number)
    # Last, and in one call, as the metrics mark an epoch as logged.
    client.log_batch(
        run_id, metrics=[entities.Metric(tag, value, now, epoch.number) for tag, value in epoch.metrics.items()]
    )


def _end_mlflow(run_dir: Path, finished: bool) -> None:
    id_file = run_dir / "mlflow" / "run_id"
    if id_file.exists():
        client, run_id = _mlflow_client(run_dir), id_file.read_text()
        # A finished run keeps its end time, however often its command is repeated.
        if client.get_run(run_id).info.status != "FINISHED":
            client.set_terminated(run_id, "FINISHED" if finished else "KILLED")


TRACKERS = {
    "tensorboard": Tracker(("tensorboardX",), _write_tensorboard, lambda run_dir, finished: None),
    "mlflow": Tracker(("mlflow", "sqlalchemy", "alembic"), _write_mlflow, _end_mlflow),
}
"""By the values of ``--log.tracker``."""
