"""live.html: a run's curves, kernels and mistakes while it trains; written after epochs, at under 1 % of their time."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, time
from typing import Any

import jax
import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.splits import Splits, load_data
from cnn.devices.processes import allreduce_max, is_primary
from cnn.devices.sharding import on_one_device
from cnn.errors import UserError, first_cause
from cnn.look.tracking import Track
from cnn.report.curves import charts, curves
from cnn.report.live_parts import Progress, Subject, cards, kernels_section, later_section, mistakes_section
from cnn.report.live_scenes import scenes_section
from cnn.report.page import UPLOT, escaped, fill_template, render_page
from cnn.resolution import dataset_name, korean_names, model_class_names
from cnn.runs import rundir
from cnn.text import printable, reason
from cnn.training.border import detect, predict
from cnn.training.early_stopping import should_stop
from cnn.training.state import TrainState
from cnn.training.summary import first_convolution, layer_table

INTERVAL = 100
"""The page is written again when this many times the seconds of the last writing have passed: 1 % of the time."""

IMAGES, PIXELS = 512, 2**19
"""Maximum number of validation images that are classified, and of their pixels: all of 32 x 32, ten of 224 x 224."""

PREPARATION = 1.5
"""Seconds that loading images and compiling the prediction take, of a small network: mistakes are shown when that is
less than 1 % of the time so far."""

FINISHED = '"state":"finished"'
"""In the page of a finished run."""


@contextmanager
def live_page(
    config: ExperimentConfig,
    run_dir: str | Path,
    splits: Splits | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> Iterator[Track]:
    """Yields a ``track`` callback of ``fit``, which writes live.html: after the first epoch, the last, and some others.

    Writing takes less than 1 % of the time, as ``INTERVAL`` times its seconds pass before it is written again. Once,
    when that takes less than 1 % of the time so far, images are loaded and the prediction is compiled, and from then
    on the page has mistakes. If the block ends, the page says how. A failure is passed to ``warn``, once, and the run
    continues. Only the primary process writes.

    Without ``--log.figures``, and for a fused run, which reports nothing before its end, there is no page.

    Args:
      config: the experiment.
      run_dir: directory of the run.
      splits: images to use instead of those of the configuration.
      warn: called with one line if the page cannot be written.
    """
    if not config.log.figures or config.train.fused:
        yield lambda row, state: None
        return
    run_dir, progress, subject, warned = Path(run_dir), Progress([]), None, False
    # When the latest writing began, and the seconds that it took.
    start, seconds, began = -np.inf, 0.0, perf_counter()

    def attempt(function: Callable[..., None], *arguments: Any) -> None:
        nonlocal warned
        try:
            if is_primary():
                function(*arguments)
        # It may be the disk, the memory, the images: nothing of which may stop the run.
        except Exception as error:
            if not warned:
                warn(f"{rundir.LIVE} is not written ({first_cause(error)}); the run continues without it")
            warned = True

    def write(state: str, words: str) -> None:
        rundir.write_text(run_dir / rundir.LIVE, render(run_dir, progress, state, words, INTERVAL * seconds))

    def note(row: dict[str, Any]) -> None:
        nonlocal progress
        if not progress.history and row["epoch"] > 1:
            progress = _resumed(run_dir, row["epoch"] - 1, config.train.monitor)
        progress = progress.after(row, config.train.monitor)

    def show(row: dict[str, Any], state: TrainState, last: bool) -> None:
        nonlocal progress, subject, start, seconds
        if subject is None and perf_counter() - began >= INTERVAL * PREPARATION:
            subject = prepare(run_dir, load_data(config.data) if splits is None else splits, state)
            start = perf_counter()
        progress = progress._replace(looks=kernels(state, row["epoch"]) + mistakes(subject, state, row["epoch"]))
        seconds = perf_counter() - start
        words = f"Training: epoch {row['epoch'] + 1} of at most {config.train.epochs}."
        write("training", "Trained; the test images follow." if last else words)

    def track(row: dict[str, Any], state: TrainState | None) -> None:
        nonlocal start, seconds
        attempt(note, row)
        last = row["epoch"] == config.train.epochs or should_stop(progress.stopper, config.train.patience)
        # The clocks of processes differ, and all have to hand over their shards of the state.
        due = last or perf_counter() >= start + (INTERVAL + 1) * seconds
        if state is not None and allreduce_max(is_primary() and due):
            state, start = on_one_device(state.eval_state), perf_counter()
            attempt(show, row, state, last)
            seconds = perf_counter() - start

    def finish():
        nonlocal progress
        path = run_dir / rundir.LIVE
        # Another process may have trained all epochs, and was killed before it said so.
        if not progress.history and path.is_file() and FINISHED.encode() not in path.read_bytes():
            progress = _resumed(run_dir, None, config.train.monitor)
        if progress.history:
            write("finished", f"Finished after {len(progress.history)} epochs.")

    try:
        yield track
    except UserError:
        # The directory may be another run's.
        raise
    except BaseException as error:
        words = f"Stopped after epoch {len(progress.history)}: the same command resumes."
        if not isinstance(error, KeyboardInterrupt):
            words = f"Ended by an error after epoch {len(progress.history)}: {reason(error)}"
        if progress.history:
            attempt(write, "stopped", words)
        raise
    attempt(finish)


def _resumed(run_dir: Path, epochs: int | None, monitor: str) -> Progress:
    """The progress of earlier processes: a number of epochs, by default all."""
    progress = Progress([])
    for row in rundir.read_history(run_dir)[:epochs]:
        progress = progress.after(row, monitor)
    return progress


def prepare(run_dir: Path, splits: Splits, state: TrainState) -> Subject:
    """Returns what a run's network is looked at by, and looks once, which compiles the prediction."""
    config, val = rundir.read_description(run_dir)["config"], splits.val
    height, width = val.images.shape[1:3]
    count = min(IMAGES, max(1, PIXELS // (height * width)), len(val.labels))
    indices = np.linspace(0, len(val.labels) - 1, count).round().astype(int)
    subject = Subject(model_class_names(config), indices, val.images[indices], val.labels[indices])
    mistakes(subject, state, 0)
    return subject


def kernels(state: TrainState, epoch: int) -> str:
    """Returns the section on the kernels of the first convolution, HTML; empty if there is none."""
    layer = first_convolution(layer_table(state))
    return kernels_section(np.asarray(state.params[layer]["kernel"]), epoch) if layer else ""


def mistakes(subject: Subject | None, state: TrainState, epoch: int) -> str:
    """Returns the section on the mistakes, or of a detector on scenes, HTML; of a run too short for it, a sentence."""
    title, section = SECTIONS[state.spec.task.name]
    if subject is None:
        return later_section(round(INTERVAL * PREPARATION), title)
    return section(subject, state, epoch)


def _class_mistakes(subject: Subject, state: TrainState, epoch: int) -> str:
    return mistakes_section(subject, np.asarray(predict(state, subject.images)), epoch)


def _scenes(subject: Subject, state: TrainState, epoch: int) -> str:
    return scenes_section(subject, jax.device_get(detect(state, subject.images)), epoch)


SECTIONS = {"classification": ("Mistakes", _class_mistakes), "detection": ("Scenes", _scenes)}
"""By task, the title of the section, and what writes it."""


def render(run_dir: Path, progress: Progress, state: str, words: str, wait: float) -> str:
    """Returns the page.

    Args:
      run_dir: directory of the run.
      progress: of at least one epoch.
      state: training, stopped or finished.
      words: a sentence on the state.
      wait: seconds until it may be written again.
    """
    config = rundir.read_description(run_dir)["config"]
    history, now = progress.history, time()
    epoch, epochs = len(history), config.train.epochs
    report = f' <a href="{rundir.REPORT}">{rundir.REPORT}</a> has the result, as soon as it is written.'
    body = fill_template(
        "live.html",
        name=escaped(config.name),
        run_dir=escaped(printable(run_dir.resolve().name)),
        dataset=escaped(dataset_name(config.data)),
        state=escaped(words) + (report if state == "finished" else ""),
        epoch=epoch,
        epochs=epoch if state == "finished" else epochs,
        written=datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        cards=cards(config, progress, state),
        charts=charts(history),
        looks=progress.looks,
        interval=INTERVAL,
        uplot=UPLOT,
        credit=" Images of Fashion-MNIST, © 2017 Zalando SE, MIT license." if korean_names(config.data) else "",
    )
    data = {
        "curves": {"all": curves(history, progress.stopper.best_epoch)},
        "live": {"state": state, "written": now, "wait": history[-1]["seconds"] + wait},
    }
    return render_page(f"Epoch {epoch} of {epochs}: {config.name}", body, data, "charts.js", "live.js")
