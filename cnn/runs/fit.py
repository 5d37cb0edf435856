"""The training loop: it alone decides when to evaluate, save and stop; it knows no pictures."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.splits import Splits, check_splits, data_digest, load_data
from cnn.devices import signals
from cnn.devices.processes import first_goes_first, highest, whole
from cnn.devices.sharding import make_mesh, on_one_device, replicate
from cnn.errors import DamagedError, RunDirError, Stopped
from cnn.runs import claim, rundir
from cnn.runs.checkpoint import load_best_of, load_latest, open_checkpoints, save
from cnn.runs.result import Result, load_result
from cnn.runs.transfer import begin_with, check_beginning
from cnn.training.early_stopping import EarlyStopper, should_stop, update_stopper
from cnn.training.fused import epoch_metrics, train_run
from cnn.training.metrics import Metrics, make_metrics, named, zero_metrics
from cnn.training.optim import epoch_steps, learning_rate_schedule
from cnn.training.state import TrainState, create_state
from cnn.training.steps import epoch_order, evaluate, evaluate_views, train_steps
from cnn.training.summary import first_convolution, format_table, layer_table


def fit(
    config: ExperimentConfig,
    run_dir: str | Path,
    splits: Splits | None = None,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    warn: Callable[[str], None] = warnings.warn,
    track: Callable[[dict[str, Any], TrainState | None], None] = lambda row, state: None,
) -> Result:
    """Trains until the validation loss stops improving, and returns the best state with its test result.

    All of it is written to the run directory. A directory with a part of the same run is gone on with from its last
    checkpoint, to the same bits as if it had never stopped; a finished one is returned as it is. SIGTERM and SIGINT
    make it save and stop within an eighth of an epoch.

    Args:
      config: the experiment.
      run_dir: directory of the run; made if it is not there.
      splits: images to use instead of those that the configuration names.
      report: called with each epoch's row of metrics.jsonl as soon as it is written.
      warn: called with a line on what is not as it should be, but does not stop the run.
      track: called with each epoch's row and the state after it before they are saved, so that a run that was killed
        misses none, but may repeat one; the next step uses the state up. A fused run has it at the best epoch alone.

    Raises:
      UserError: configuration, images or directory cannot be used; found before anything is compiled.
      FloatingPointError: the loss is no longer a number; the best checkpoint is kept, which a fused run has only at
        its end.
      DamagedError: no checkpoint of the directory is whole, or not that of the best epoch.
      Stopped: a signal has come, and what was reached is saved.
    """
    run_dir, mesh, seconds = Path(run_dir), make_mesh(config.mesh, config.train.device), {}
    rundir.check_entries(run_dir, config)
    if rundir.read_result(run_dir) is not None:
        if splits is not None:
            rundir.check_images(run_dir, data_digest(splits))
        return load_result(run_dir)[1]
    with claim.claimed(run_dir, config) as check_claim:
        with timed(seconds, "data"):
            with first_goes_first():
                splits = check_splits(config, splits or load_data(config.data))
            train_images = len(splits.train.labels)
            if not (run_dir / rundir.CONFIG).exists():
                check_beginning(config, train_images)
            rundir.describe(run_dir, config, data_digest(splits), train_images, mesh.devices.ravel())
            on_device = replicate(splits, mesh)
        begin = partial(create_state, config, train_images, mesh)
        return _fit(Run(config, run_dir, check_claim, begin, on_device, seconds, report, warn, track))


class Run(NamedTuple):
    """What stays the same while a run goes on."""

    config: ExperimentConfig
    run_dir: Path
    check_claim: Callable[[], None]
    """Raises RunDirError if the directory is another run's by now."""
    begin: Callable[[], TrainState]
    """Makes the random state before the first step, which steps use up."""
    splits: Splits
    """On the devices."""
    seconds: dict[str, float]
    """Spent so far, by phase."""
    report: Callable[[dict[str, Any]], None]
    warn: Callable[[str], None]
    track: Callable[[dict[str, Any], TrainState | None], None]

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return epoch_steps(self.config, len(self.splits.train.labels))


class Progress(NamedTuple):
    """What a run has come to, beside its state."""

    history: list[dict[str, Any]]
    """A row per finished epoch."""
    stopper: EarlyStopper
    metrics: Metrics
    """Of the steps of the epoch that is not finished."""
    spent: dict[str, float]
    """Seconds of that epoch so far, by phase."""


def no_progress() -> Progress:
    """Returns what a run has come to before its first step."""
    return Progress([], EarlyStopper(), zero_metrics(), {})


def saved_progress(progress: Progress, epoch_steps: int, seconds: dict[str, float]) -> dict[str, Any]:
    """Returns what a checkpoint holds of a run's progress, as plain values, among them the best epoch's last step."""
    return {
        "history": progress.history,
        "stopper": progress.stopper._asdict(),
        "metrics": [number.item() for number in jax.tree.leaves(jax.device_get(progress.metrics))],
        "spent": progress.spent,
        "best_step": progress.stopper.best_epoch * epoch_steps,
        "seconds": seconds,
    }


def _save(run: Run, checkpoints: Any, state: TrainState, progress: Progress) -> None:
    with timed(run.seconds, "checkpoint"):
        with first_goes_first():
            run.check_claim()
        save(checkpoints, state, saved_progress(progress, run.epoch_steps, run.seconds))
        rundir.write_history(run.run_dir, progress.history)


def _load_latest(run: Run, checkpoints: Any, state: TrainState) -> tuple[TrainState, Progress]:
    """Returns the latest state that was saved, or the given one as it is to begin, and how far the run has come."""
    latest = load_latest(checkpoints, state, run.warn)
    if latest is None:
        state, taken = begin_with(state, run.config.transfer)
        if taken:
            rundir.write_text(run.run_dir / rundir.TRANSFER, taken)
        return state, no_progress()
    state, saved = latest
    metrics = make_metrics(*saved["metrics"])
    progress = Progress(saved["history"], EarlyStopper(**saved["stopper"]), metrics, saved["spent"])
    add_seconds(run.seconds, saved["seconds"])
    # The others are about to read it.
    with first_goes_first():
        rundir.write_history(run.run_dir, progress.history)
    return state, progress


def _warn_of_best(run: Run, checkpoints: Any, state: TrainState) -> None:
    """Says it now if the best checkpoint is lost, as after the last epoch nothing can be done."""
    if int(state.step) > 0:
        try:
            load_best_of(checkpoints, state)
        except RunDirError:
            return
        except DamagedError as error:
            run.warn(f"{error}; or let the run go on, and see whether an epoch to come is better")


def _fit(run: Run) -> Result:
    """The loop, in a directory that is this run's, on images that lie on the devices."""
    config, run_dir = run.config, run.run_dir
    state = run.begin()
    layers = layer_table(state)
    rundir.write_text(run_dir / rundir.SUMMARY, format_table(layers, config.name))
    with open_checkpoints(run_dir) as checkpoints:
        with timed(run.seconds, "checkpoint"):
            state, progress = _load_latest(run, checkpoints, state)
            _warn_of_best(run, checkpoints, state)
        # Fused, all epochs are saved at once, so what was saved is all.
        if not (config.train.fused and progress.history):
            train = _train_fused if config.train.fused else _train_by_epoch
            state, progress = train(run, state, progress, checkpoints)
        with timed(run.seconds, "checkpoint"):
            best = load_best_of(checkpoints, state)
    with timed(run.seconds, "eval"):
        test_metrics = jax.device_get(evaluate(best, run.splits.test))
        tta_metrics = jax.device_get(evaluate_views(best, run.splits.test)) if config.augment.test_time else None
    if not math.isfinite(test_metrics.loss):
        raise FloatingPointError(
            "the loss on the test images is no number; the checkpoints are kept; "
            "try a lower --optim.learning_rate in another --run-dir"
        )
    best_row = progress.history[progress.stopper.best_epoch - 1]
    summary = {
        "best_epoch": progress.stopper.best_epoch,
        "stopped_epoch": len(progress.history),
        "val_loss": best_row["val_loss"],
        "val_accuracy": best_row["val_accuracy"],
        **named("test", test_metrics),
        **(named("tta_test", tta_metrics) if tta_metrics else {}),
        "params": sum(layer.parameters for layer in layers),
        "seconds": run.seconds,
    }
    run.check_claim()
    rundir.write_json(run_dir / rundir.RESULT, summary)
    return Result(on_one_device(best), progress.history, summary)


CALLS_AN_EPOCH = 8
"""Between the calls, the loop looks whether it is to stop; it never waits for a step."""


def _train_by_epoch(run: Run, state: TrainState, progress: Progress, checkpoints: Any) -> tuple[TrainState, Progress]:
    """Saves and reports after each epoch, and saves on the way if it is to; returns the last state.

    Raises:
      Stopped: a signal has come; the last step is saved.
      FloatingPointError: a loss is no number.
    """
    config, splits, epoch_steps = run.config, run.splits, run.epoch_steps
    history, stopper, metrics, spent = progress
    with timed(run.seconds, "compile"):
        batch_size = config.optim.batch_size
        train = train_steps.lower(state, metrics, splits.train, np.int32(1), batch_size=batch_size).compile()
        evaluate_val = evaluate.lower(state, splits.val).compile()
    first = first_convolution(layer_table(state))
    if int(state.step) == 0:
        _keep_kernels(run, first, state, 0)
    stride = config.train.checkpoint_steps or epoch_steps
    done = int(state.step) - len(history) * epoch_steps

    with signals.noted() as signal_received:
        while len(history) < config.train.epochs and not should_stop(stopper, config.train.patience):
            while done < epoch_steps:
                count = min(-(-epoch_steps // CALLS_AN_EPOCH), stride - done % stride, epoch_steps - done)
                with timed(spent, "train"):
                    state, metrics = jax.block_until_ready(train(state, metrics, splits.train, np.int32(count)))
                done += count
                # All processes agree, so that all save at the same step.
                number = highest(signal_received())
                if done < epoch_steps and (number or done % stride == 0):
                    _check_finite(run, train, checkpoints, metrics, int(state.step))
                    _save(run, checkpoints, state, Progress(history, stopper, metrics, spent))
                    _stop_if_asked(run, number, state)
            with timed(spent, "eval"):
                val_metrics = jax.block_until_ready(evaluate_val(state, splits.val))
            _check_finite(run, train, checkpoints, metrics, int(state.step))
            row = epoch_row(run, len(history) + 1, jax.device_get((metrics, val_metrics)), spent)
            stopper = update_stopper(stopper, row["epoch"], row["val_loss"])
            add_seconds(run.seconds, spent)
            history, metrics, spent, done = [*history, row], zero_metrics(), {}, 0
            progress = Progress(history, stopper, metrics, spent)
            run.check_claim()
            _keep_kernels(run, first, state, row["epoch"])
            run.track(row, state)
            _save(run, checkpoints, state, progress)
            run.report(row)
            _stop_if_asked(run, highest(signal_received()), state)
    return state, progress


def _keep_kernels(run: Run, layer: str | None, state: TrainState, epoch: int) -> None:
    """Keeps a layer's kernels for the picture of them over the epochs, which takes milliseconds."""
    if layer is not None:
        kernels = whole(state.evaluated.params[layer]["kernel"])
        # No run stops for a picture; of a full disk, the checkpoint that follows says what is lost.
        with suppress(RunDirError, OSError):
            rundir.write_kernels(run.run_dir, epoch, kernels)


def _stop_if_asked(run: Run, number: int, state: TrainState) -> None:
    if number:
        raise Stopped(number, f"stopped at step {int(state.step)}, which is saved in {run.run_dir}")


def _check_finite(run: Run, train: Any, checkpoints: Any, metrics: Metrics, reached: int) -> None:
    """Raises FloatingPointError with the step and the images of the first loss that is no number, if there is one.

    The steps until the one that was reached are taken again, one by one, from the last checkpoint; so the loop itself
    need not look.
    """
    if math.isfinite(jax.device_get(metrics.loss_sum)):
        return
    state, progress = _load_latest(run, checkpoints, run.begin())
    total = progress.metrics
    for step in range(int(state.step), reached):
        state, total = train(state, total, run.splits.train, np.int32(1))
        if not math.isfinite(jax.device_get(total.loss_sum)) or step == reached - 1:
            epoch, batch = divmod(step, run.epoch_steps)
            images = len(run.splits.train.labels)
            order = epoch_order(state.key, epoch, images, run.config.optim.batch_size)
            indices = np.asarray(order[batch])[: images - batch * order.shape[1]]
            raise FloatingPointError(
                f"the loss is no longer a number at step {step + 1}, in epoch {epoch + 1}, "
                f"on the training images {', '.join(map(str, indices))}; the checkpoints before it are kept; "
                "try a lower --optim.learning_rate in another --run-dir"
                f"{'' if run.config.train.nan_policy == 'skip' else ', or --train.nan_policy skip'}"
            )


def _train_fused(run: Run, state: TrainState, progress: Progress, checkpoints: Any) -> tuple[TrainState, Progress]:
    """One call for all epochs; what it saves is the best state alone, so a run that is stopped begins anew."""
    config, splits = run.config, run.splits
    limits = {"epochs": config.train.epochs, "patience": config.train.patience, "batch_size": config.optim.batch_size}
    with timed(run.seconds, "compile"):
        program = train_run.lower(state, splits.train, splits.val, **limits).compile()
    with timed(run.seconds, "train"):
        fused = jax.block_until_ready(program(state, splits.train, splits.val))
    share = {"train": run.seconds["train"] / int(fused.epochs)}
    history, stopper = progress[:2]
    for epoch, metrics in enumerate(epoch_metrics(fused), 1):
        row = epoch_row(run, epoch, metrics, share)
        stopper = update_stopper(stopper, epoch, row["val_loss"])
        history = [*history, row]
    progress = progress._replace(history=history, stopper=stopper)
    for row in history:
        run.track(row, fused.best if row["epoch"] == stopper.best_epoch else None)
    _save(run, checkpoints, fused.best, progress)
    for row in history:
        run.report(row)
    return fused.state, progress


def epoch_row(run: Run, epoch: int, metrics: tuple[Metrics, Metrics], spent: dict[str, float]) -> dict[str, Any]:
    """Returns an epoch's row of metrics.jsonl from its training and validation metrics and its seconds by phase.

    Raises:
      FloatingPointError: a loss is not a number.
    """
    train, val = metrics
    train_loss, val_loss = float(train.loss), float(val.loss)
    steps, config = run.epoch_steps, run.config
    updates = [(last * steps - 1) // config.optim.accumulate_steps for last in (epoch, config.train.epochs)]
    learning_rate = learning_rate_schedule(config.optim, updates[1] + 1)(updates[0])
    if not math.isfinite(train_loss + val_loss):
        kept = "nothing is kept of a fused run" if config.train.fused else "the checkpoints before it are kept"
        raise FloatingPointError(
            f"the loss is no longer a number in epoch {epoch} (train {train_loss}, validation {val_loss}); "
            f"{kept}; try a lower --optim.learning_rate in another --run-dir"
        )
    return {
        "epoch": epoch,
        **named("train", train),
        **named("val", val),
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
