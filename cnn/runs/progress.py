"""How far a run is: epochs, the steps of the unfinished one, seconds; as metrics.jsonl and checkpoints have it."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax

from cnn.config import ExperimentConfig
from cnn.runs.divergence import diverged, is_finite
from cnn.runs.monitor import monitored
from cnn.training.early_stopping import EarlyStopper, update_stopper
from cnn.training.metrics import Metrics, make_metrics, metrics_dict, zero_metrics
from cnn.training.optim import learning_rate_at

CALLS_AN_EPOCH = 8
"""XLA calls that an epoch is split into. Between them, the loop checks for signals; it never waits for a step."""


class Progress(NamedTuple):
    """Host-side training progress, saved next to the TrainState."""

    history: list[dict[str, Any]]
    """A row per finished epoch."""
    stopper: EarlyStopper
    metrics: Metrics
    """Of the steps of the unfinished epoch."""
    spent: dict[str, float]
    """Seconds of that epoch so far, by phase."""


def initial_progress() -> Progress:
    """Returns the progress before the first step."""
    return Progress([], EarlyStopper(), zero_metrics(), {})


def saved_progress(progress: Progress, epoch_steps: int, seconds: dict[str, float]) -> dict[str, Any]:
    """Returns the progress as a checkpoint holds it: plain values, among them the best epoch's last step."""
    return {
        "history": progress.history,
        "stopper": progress.stopper._asdict(),
        "metrics": [number.item() for number in jax.tree.leaves(jax.device_get(progress.metrics))],
        "spent": progress.spent,
        "best_step": progress.stopper.best_epoch * epoch_steps,
        "seconds": seconds,
    }


def loaded_progress(saved: dict[str, Any]) -> Progress:
    """Returns what ``saved_progress`` made the values of."""
    metrics = make_metrics(*saved["metrics"])
    return Progress(saved["history"], EarlyStopper(**saved["stopper"]), metrics, saved["spent"])


def epoch_row(
    config: ExperimentConfig, epoch_steps: int, epoch: int, train: Metrics, val: Metrics, spent: dict[str, float]
) -> dict[str, Any]:
    """Returns an epoch's row of metrics.jsonl from its training and validation metrics and its seconds by phase.

    Raises:
      FloatingPointError: a loss is not finite, or every step of the epoch was skipped for that.
    """
    train, val = jax.device_get((train, val))
    kept = ["nothing is kept of a fused run"] * config.train.fused
    if not train.count:
        raise diverged(f"in every step of epoch {epoch}", *kept)
    if not (is_finite(train) and is_finite(val)):
        where = f"in epoch {epoch} (train {float(train.loss)}, validation {float(val.loss)})"
        raise diverged(where, *kept)
    return {
        "epoch": epoch,
        **metrics_dict("train", train),
        **metrics_dict("val", val),
        "learning_rate": learning_rate_at(config.optim, epoch * epoch_steps - 1, config.train.epochs * epoch_steps),
        "seconds": sum(spent.values()),
        "images_per_second": int(train.count) / spent["train"],
    }


def next_epoch(progress: Progress, row: dict[str, Any], monitor: str) -> Progress:
    """Returns the progress after an epoch."""
    stopper = update_stopper(progress.stopper, row["epoch"], monitored(monitor, row))
    return Progress([*progress.history, row], stopper, zero_metrics(), {})


def segments(done: int, epoch_steps: int, stride: int) -> Iterator[tuple[int, bool]]:
    """Yields (steps, is_save_point) of the rest of an epoch.

    At most an eighth of an epoch at a time, never across a save point, of which there is one every ``stride`` steps.
    """
    while done < epoch_steps:
        steps = min(math.ceil(epoch_steps / CALLS_AN_EPOCH), stride - done % stride, epoch_steps - done)
        done += steps
        yield steps, done % stride == 0 and done < epoch_steps


def stopping_notice(progress: Progress) -> str:
    """Returns what is printed at the first signal; a segment is the longest that it can take."""
    within = (
        f"{max(progress.history[-1]['seconds'] / CALLS_AN_EPOCH, 1):.0f} s"
        if progress.history
        else "an eighth of an epoch"
    )
    return f"stopping: the run is saved within about {within}; a second signal stops without saving"


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Adds the time that its block takes to ``seconds[phase]``."""
    start = time.perf_counter()
    yield
    add_seconds(seconds, {phase: time.perf_counter() - start})


def add_seconds(total: dict[str, float], more: dict[str, float]) -> None:
    """Adds to ``total``, phase by phase."""
    for phase, seconds in more.items():
        total[phase] = total.get(phase, 0.0) + seconds
