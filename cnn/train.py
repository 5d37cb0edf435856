"""The training loop: it alone decides when to evaluate, save and stop; it knows no pictures."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from cnn import rundir
from cnn.checkpoint import load_best, load_best_of, load_latest, open_checkpoints, save
from cnn.config import ExperimentConfig
from cnn.data import Splits, check_split, class_names, data_digest, load_data
from cnn.early_stopping import EarlyStopper, should_stop, update_stopper
from cnn.errors import ConfigError, RunDirError
from cnn.fused import epoch_metrics, train_run
from cnn.metrics import Metrics
from cnn.sharding import find_device
from cnn.state import TrainState, create_state, learning_rate_schedule, total_steps
from cnn.steps import evaluate, train_epoch
from cnn.summary import format_table, layer_table


@dataclass(frozen=True)
class Result:
    """A finished run."""

    state: TrainState
    """The best one, not the last."""
    history: list[dict[str, Any]]
    """A row per epoch, as in metrics.jsonl."""
    summary: dict[str, Any]
    """As in result.json: best_epoch, stopped_epoch, val_loss, test_accuracy, seconds by phase, ..."""


def fit(
    config: ExperimentConfig,
    run_dir: str | Path,
    splits: Splits | None = None,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Result:
    """Trains until the validation loss stops improving, and returns the best state with its test result.

    All of it is written to the run directory. A directory with a part of the same run is gone on with from its last
    epoch, to the same numbers as if it had never stopped; a finished one is returned as it is.

    Args:
      config: the experiment.
      run_dir: directory of the run; made if it is not there.
      splits: images to use instead of those that the configuration names.
      report: called with each epoch's row of metrics.jsonl as soon as it is written.

    Raises:
      UserError: configuration, images or directory cannot be used; found before anything is compiled.
      FloatingPointError: the loss is no longer a number; the best checkpoint is kept, which a fused run has only at
        its end.
    """
    run_dir, device, seconds = Path(run_dir), find_device(config.train.device), {}
    with rundir.claimed(run_dir, config):
        if rundir.read_result(run_dir) is not None:
            return load_result(run_dir)[1]
        with timed(seconds, "data"):
            splits = check_splits(config, splits or load_data(config.data))
            train_images = len(splits.train.labels)
            rundir.describe(run_dir, config, data_digest(splits), train_images, device)
            on_device = jax.device_put(splits, device)
        state = jax.device_put(create_state(config, train_images), device)
        return _fit(config, run_dir, state, on_device, seconds, report)


def _fit(
    config: ExperimentConfig,
    run_dir: Path,
    state: TrainState,
    splits: Splits,
    seconds: dict[str, float],
    report: Callable[[dict[str, Any]], None],
) -> Result:
    """The loop, in a directory that is this run's, on images that lie on the device."""
    layers = layer_table(state)
    rundir.write_text(run_dir / rundir.SUMMARY, format_table(layers, config.name))
    history, stopper = [], EarlyStopper()
    with open_checkpoints(run_dir) as checkpoints:
        with timed(seconds, "checkpoint"):
            if latest := load_latest(checkpoints, state):
                state, progress = latest
                history, stopper = progress["history"], EarlyStopper(**progress["stopper"])
                add_seconds(seconds, progress["seconds"])
                rundir.write_history(run_dir, history)
        # Fused, all epochs are saved at once, so what was saved is all.
        if not (config.train.fused and history):
            train = _train_fused if config.train.fused else _train_by_epoch
            state, history, stopper = train(
                config, run_dir, state, history, stopper, splits, checkpoints, seconds, report
            )
        with timed(seconds, "checkpoint"):
            best = load_best_of(checkpoints, state)
    with timed(seconds, "eval"):
        test_metrics = jax.device_get(evaluate(best, splits.test))
    best_row = history[stopper.best_epoch - 1]
    summary = {
        "best_epoch": stopper.best_epoch,
        "stopped_epoch": len(history),
        "val_loss": best_row["val_loss"],
        "val_accuracy": best_row["val_accuracy"],
        "test_loss": float(test_metrics.loss),
        "test_accuracy": float(test_metrics.accuracy),
        "params": sum(layer.parameters for layer in layers),
        "seconds": seconds,
    }
    rundir.write_json(run_dir / rundir.RESULT, summary)
    return Result(best, history, summary)


def _train_by_epoch(
    config: ExperimentConfig,
    run_dir: Path,
    state: TrainState,
    history: list[dict[str, Any]],
    stopper: EarlyStopper,
    splits: Splits,
    checkpoints: Any,
    seconds: dict[str, float],
    report: Callable[[dict[str, Any]], None],
) -> tuple[TrainState, list[dict[str, Any]], EarlyStopper]:
    """Saves and reports after each epoch; returns the last state, the history and the stopper."""
    with timed(seconds, "compile"):
        train_one_epoch = train_epoch.lower(state, splits.train, batch_size=config.optim.batch_size).compile()
        evaluate_val = evaluate.lower(state, splits.val).compile()

    for epoch in range(len(history) + 1, config.train.epochs + 1):
        if should_stop(stopper, config.train.patience):
            break
        spent = {}
        with timed(spent, "train"):
            state, train_metrics = jax.block_until_ready(train_one_epoch(state, splits.train))
        with timed(spent, "eval"):
            val_metrics = jax.block_until_ready(evaluate_val(state, splits.val))
        row = epoch_row(config, epoch, jax.device_get((train_metrics, val_metrics)), spent)
        stopper = update_stopper(stopper, epoch, row["val_loss"])
        history = [*history, row]
        add_seconds(seconds, spent)
        with timed(seconds, "checkpoint"):
            progress = {"history": history, "stopper": stopper._asdict(), "seconds": seconds}
            save(checkpoints, state, progress, improved=stopper.epochs_since == 0)
            rundir.write_history(run_dir, history)
        report(row)
    return state, history, stopper


def _train_fused(
    config: ExperimentConfig,
    run_dir: Path,
    state: TrainState,
    history: list[dict[str, Any]],
    stopper: EarlyStopper,
    splits: Splits,
    checkpoints: Any,
    seconds: dict[str, float],
    report: Callable[[dict[str, Any]], None],
) -> tuple[TrainState, list[dict[str, Any]], EarlyStopper]:
    """One call for all epochs; what it saves is the best state alone, so a run that is stopped begins anew."""
    limits = {"epochs": config.train.epochs, "patience": config.train.patience, "batch_size": config.optim.batch_size}
    with timed(seconds, "compile"):
        program = train_run.lower(state, splits.train, splits.val, **limits).compile()
    with timed(seconds, "train"):
        run = jax.block_until_ready(program(state, splits.train, splits.val))
    share = {"train": seconds["train"] / int(run.epochs)}
    for epoch, metrics in enumerate(epoch_metrics(run), 1):
        row = epoch_row(config, epoch, metrics, share)
        stopper = update_stopper(stopper, epoch, row["val_loss"])
        history = [*history, row]
        rundir.write_history(run_dir, history)
        report(row)
    with timed(seconds, "checkpoint"):
        progress = {"history": history, "stopper": stopper._asdict(), "seconds": seconds}
        save(checkpoints, run.best, progress, improved=True)
    return run.state, history, stopper


def load_result(run_dir: str | Path) -> tuple[ExperimentConfig, Result]:
    """Returns the configuration and the result of a finished run.

    Raises:
      RunDirError: the directory holds no run, or one that has not finished.
    """
    run_dir = Path(run_dir)
    state, config = load_best(run_dir)
    summary = rundir.read_result(run_dir)
    if summary is None:
        raise RunDirError(
            f"{run_dir} holds a run that has not finished; repeat its command with --run-dir {run_dir} to go on"
        )
    return config, Result(state, rundir.read_history(run_dir), summary)


def check_splits(config: ExperimentConfig, splits: Splits) -> Splits:
    """Returns the splits if the experiment can run on them.

    Raises:
      UserError: images or labels are not what the configuration says, or fewer than a batch.
    """
    known = len(class_names(config.data))
    if config.model.classes < known:
        raise ConfigError(f"--model.classes is {config.model.classes}, but {config.data.name} has {known} classes")
    for name, split in splits._asdict().items():
        check_split(split, config.data.image_shape, config.model.classes, name)
    count, batch_size = len(splits.train.labels), config.optim.batch_size
    if batch_size > count:
        raise ConfigError(
            f"--optim.batch_size is {batch_size}, but must be at most {count}, the number of training images"
        )
    return splits


def epoch_row(
    config: ExperimentConfig, epoch: int, metrics: tuple[Metrics, Metrics], spent: dict[str, float]
) -> dict[str, Any]:
    """Returns an epoch's row of metrics.jsonl from its training and validation metrics and its seconds by phase.

    Raises:
      FloatingPointError: a loss is not a number.
    """
    train, val = metrics
    train_loss, val_loss = float(train.loss), float(val.loss)
    steps = total_steps(config, int(train.count)) // config.train.epochs
    learning_rate = learning_rate_schedule(config.optim, steps * config.train.epochs)(epoch * steps - 1)
    if not math.isfinite(train_loss + val_loss):
        kept = "nothing is kept of a fused run" if config.train.fused else "the checkpoints before it are kept"
        raise FloatingPointError(
            f"the loss is no longer a number in epoch {epoch} (train {train_loss}, validation {val_loss}); "
            f"{kept}; try a lower --optim.learning_rate in another --run-dir"
        )
    return {
        "epoch": epoch,
        "train_loss": train_loss,
        "train_accuracy": float(train.accuracy),
        "val_loss": val_loss,
        "val_accuracy": float(val.accuracy),
        "learning_rate": float(learning_rate),
        "seconds": sum(spent.values()),
        "images_per_second": int(train.count) / spent["train"],
    }


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Adds the time that its block takes to ``seconds[phase]``."""
    begin = time.perf_counter()
    yield
    add_seconds(seconds, {phase: time.perf_counter() - begin})


def add_seconds(total: dict[str, float], more: dict[str, float]) -> None:
    """Adds to ``total``, phase by phase."""
    for phase, seconds in more.items():
        total[phase] = total.get(phase, 0.0) + seconds
