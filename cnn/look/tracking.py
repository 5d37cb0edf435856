"""Each epoch's numbers, weights and pictures -> TensorBoard or MLflow, as --log.tracker says; no run is lost by it."""

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

from cnn.config import ExperimentConfig, config_fields
from cnn.data.splits import Splits, load_data
from cnn.devices.processes import is_primary
from cnn.devices.sharding import on_one_device
from cnn.errors import ConfigError, first_cause
from cnn.look.features import feature_maps
from cnn.runs import rundir
from cnn.training.state import TrainState
from cnn.training.summary import first_convolution, layer_table

Track = Callable[[dict[str, Any], TrainState | None], None]
"""Called by ``fit`` with an epoch's row of metrics.jsonl and the state after it."""


class Epoch(NamedTuple):
    """What a tracker is told of an epoch."""

    number: int
    """From 1; it is the step under which all else is filed."""
    numbers: dict[str, float]
    """The epoch's row, as "loss/train", "loss/val", ..., "seconds"."""
    weights: dict[str, np.ndarray]
    """What evaluation takes, as "conv1/kernel"; {} if the state is not known."""
    pictures: dict[str, bytes]
    """PNG files: the kernels of the first convolution, and what it makes of the first training image."""


class Tracker(NamedTuple):
    """A place for epochs. One that is written twice, as a run that was killed repeats it, must be there once."""

    packages: tuple[str, ...]
    """What it imports, of the extra that has its name."""
    write: Callable[[ExperimentConfig, Path, Epoch], None]
    """Files an epoch, given the run's configuration and directory."""
    end: Callable[[Path, bool], None]
    """Called when training has ended, with the run's directory and whether it came to its end."""


@contextmanager
def tracked(
    config: ExperimentConfig,
    run_dir: str | Path,
    splits: Splits | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> Iterator[Track]:
    """Gives what ``fit`` takes as ``track``: it files epochs with the tracker of ``config.log``.

    What goes wrong while it does is told once, by ``warn``, and the run goes on without it. Of many processes, the
    first writes.

    Args:
      config: the experiment.
      run_dir: directory of the run; the tracker's files are in a directory in it that has the tracker's name.
      splits: images to use instead of those that the configuration names.
      warn: called with a line if the tracker fails.

    Raises:
      ConfigError: a package that the tracker needs is not installed.
      RunDirError: the tracker's directory is a link.
    """
    name, run_dir, begun, failed = config.log.tracker, Path(run_dir), False, False
    tracker = TRACKERS.get(name)
    if tracker is None:
        yield lambda row, state: None
        return
    # Otherwise, MLflow reports how it is used to those who make it.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for package in tracker.packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"--log.tracker is {name!r}, but {error.name} is not installed; leave it out, or "
                f".venv/bin/pip install -c constraints.txt -e '.[{name}]'"
            ) from None
    rundir.own_directory(run_dir, name)

    def guarded(function, *arguments):
        nonlocal failed
        if is_primary() and not failed:
            try:
                function(*arguments)
            # Trackers fail in many ways, and none of them is worth a run.
            except Exception as error:
                failed = True
                warn(f"--log.tracker {name} fails ({first_cause(error)}); the run goes on without it")

    @cache
    def first_image():
        return (splits or load_data(config.data)).train.images[:1].copy()

    def write(row, state):
        tracker.write(config, run_dir, _epoch(row, state, first_image()))

    def track(row, state):
        nonlocal begun
        begun = True
        # All processes hand over their parts of it, whatever becomes of the first one's tracker.
        guarded(write, row, state if state is None else on_one_device(state.eval_state))

    finished = False
    try:
        yield track
        finished = True
    finally:
        # A run that was refused is another's to end.
        if begun or finished:
            guarded(tracker.end, run_dir, finished)


def _epoch(row: dict[str, Any], state: TrainState | None, image: np.ndarray) -> Epoch:
    """What is told of an epoch's row and the state after it; the image is uint8 [1, H, W, C]."""
    grouped = {f"{split}_{name}": f"{name}/{split}" for split in ("train", "val") for name in ("loss", "accuracy")}
    numbers = {grouped.get(name, name): float(value) for name, value in row.items() if name != "epoch"}
    if state is None:
        return Epoch(row["epoch"], numbers, {}, {})
    weights: Any = flatten_dict(jax.device_get(state.params), sep="/")
    return Epoch(row["epoch"], numbers, weights, _pictures(state, image, f"after epoch {row['epoch']}"))


def _pictures(state: TrainState, image: np.ndarray, when: str) -> dict[str, bytes]:
    """The kernels and maps of the first convolution, if the network has one."""
    from cnn.figures import image_plots

    first = first_convolution(layer_table(state))
    if first is None:
        return {}
    kernels, maps = state.params[first]["kernel"], feature_maps(state, image)[first][0]
    drawn = {
        f"kernels/{first}": image_plots.kernels(np.asarray(kernels), f"Kernels of {first}, {when}"),
        f"maps/{first}": image_plots.feature_maps(
            np.asarray(maps), f"What {first} makes of the first training image, {when}"
        ),
    }
    pictures = {}
    for name, figure in drawn.items():
        figure.savefig(buffer := io.BytesIO(), format="png", dpi=80, bbox_inches="tight")
        pictures[name] = buffer.getvalue()
    return pictures


def _write_tensorboard(config: ExperimentConfig, run_dir: Path, epoch: Epoch) -> None:
    """Writes an event file with the epoch's number for a name, so that an epoch that is repeated replaces itself.

    Not by tensorboardX's SummaryWriter: it writes in a thread, and what fails there, such as a full disk, ends that
    thread and then blocks this one.
    """
    from PIL import Image
    from tensorboardX import summary
    from tensorboardX.record_writer import RecordWriter

    # Their classes are made when they are imported, so that no type checker knows them.
    Event: Any = importlib.import_module("tensorboardX.proto.event_pb2").Event
    Summary: Any = importlib.import_module("tensorboardX.proto.summary_pb2").Summary
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in epoch.numbers.items()]
    for tag, weights in epoch.weights.items():
        values.extend(summary.histogram(f"weights/{tag}", weights, bins=64).value)
    for tag, png in epoch.pictures.items():
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
    # TensorBoard reads files with "tfevents" in their names, in the order of their names.
    path, temporary = directory / f"events.out.tfevents.{step:06}", directory / f".{step}.{os.getpid()}"
    writer = RecordWriter(str(temporary))
    try:
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            writer.close()
        temporary.unlink(missing_ok=True)


def _mlflow_client(run_dir: Path) -> Any:
    """MLflow's client, of the server or file that MLFLOW_TRACKING_URI names, or else of a file in the run directory."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    directory = run_dir.absolute() / "mlflow"
    directory.mkdir(exist_ok=True)
    mlflow: Any = importlib.import_module("mlflow")
    return mlflow.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{directory / 'mlflow.db'}")


def _write_mlflow(config: ExperimentConfig, run_dir: Path, epoch: Epoch) -> None:
    """Adds the epoch to the run whose id the run directory keeps, unless it is there already."""
    from PIL import Image

    entities: Any = importlib.import_module("mlflow.entities")
    client, now = _mlflow_client(run_dir), int(1000 * time.time())
    kept = run_dir / "mlflow" / "run_id"
    if not kept.exists():
        experiment = client.get_experiment_by_name(config.name)
        place = (
            None if os.environ.get("MLFLOW_TRACKING_URI") else (run_dir / "mlflow" / "artifacts").absolute().as_uri()
        )
        number = experiment.experiment_id if experiment else client.create_experiment(config.name, place)
        run_id = client.create_run(number, run_name=run_dir.name).info.run_id
        fields = config_fields(config).items()
        client.log_batch(run_id, params=[entities.Param(name, str(value)) for name, value in fields])
        rundir.write_text(kept, run_id)
    run_id = kept.read_text()
    if any(point.step == epoch.number for point in client.get_metric_history(run_id, "loss/train")):
        return
    client.update_run(run_id, status="RUNNING")
    for tag, png in epoch.pictures.items():
        client.log_image(run_id, Image.open(io.BytesIO(png)), key=tag, step=epoch.number)
    # Last, and at once, as by them an epoch is known to be there.
    client.log_batch(
        run_id, metrics=[entities.Metric(tag, value, now, epoch.number) for tag, value in epoch.numbers.items()]
    )


def _end_mlflow(run_dir: Path, finished: bool) -> None:
    kept = run_dir / "mlflow" / "run_id"
    if kept.exists():
        client, run_id = _mlflow_client(run_dir), kept.read_text()
        # A finished run keeps the time at which it ended, however often its command is repeated.
        if client.get_run(run_id).info.status != "FINISHED":
            client.set_terminated(run_id, "FINISHED" if finished else "KILLED")


TRACKERS = {
    "tensorboard": Tracker(("tensorboardX",), _write_tensorboard, lambda run_dir, finished: None),
    "mlflow": Tracker(("mlflow", "sqlalchemy", "alembic"), _write_mlflow, _end_mlflow),
}
"""By the names that ``--log.tracker`` takes."""
