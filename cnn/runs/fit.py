"""The training loop: it alone decides when to evaluate, save and stop, and draws nothing."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.splits import Splits, data_digest, load
from cnn.devices import signals
from cnn.devices.memory import fitting
from cnn.devices.processes import primary_first, to_host
from cnn.devices.sharding import make_mesh, on_one_device
from cnn.errors import DamagedError, RunDirError, Stopped
from cnn.rules import FILE, FUNCTION, checked, instance
from cnn.runs import claim, derived, rundir, streaming
from cnn.runs.checkpoint import check_best, check_longer, load_best_of, load_latest, open_checkpoints, save
from cnn.runs.divergence import diverged, first_divergence, is_finite
from cnn.runs.monitor import scores
from cnn.runs.progress import (
    Progress,
    add_seconds,
    epoch_row,
    initial_progress,
    loaded_progress,
    next_epoch,
    saved_progress,
    segments,
    stopping_notice,
    timed,
)
from cnn.runs.result import Result, load_result
from cnn.runs.streaming import evaluate_split
from cnn.runs.teachers import load_teachers
from cnn.runs.transfer import apply_transfer, check_transfer
from cnn.training.early_stopping import should_stop
from cnn.training.fused import epoch_metrics, train_fused
from cnn.training.metrics import metrics_dict
from cnn.training.optim import epoch_steps
from cnn.training.state import TrainState, create_state
from cnn.training.steps import evaluate, evaluate_views, train_steps
from cnn.training.summary import first_convolution, format_table, layer_table


class Run(NamedTuple):
    """What stays the same during a run."""

    config: ExperimentConfig
    run_dir: Path
    check_lock: Callable[[], None]
    """Raises RunDirError if the directory is another run's by now."""
    create_state: Callable[[], TrainState]
    """Makes the random state before the first step, which steps donate."""
    splits: Splits
    """On the devices, or if they have no room for them, on the host."""
    seconds: dict[str, float]
    """Spent so far, by phase."""
    report: Callable[[dict[str, Any]], None]
    warn: Callable[[str], None]
    track: Callable[[dict[str, Any], TrainState | None], None]

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return epoch_steps(self.config, len(self.splits.train.labels))


# How a run starts, the first of these that applies:
# 1. A finished run in the directory is loaded and returned; nothing is trained.
# 2. An unfinished run of the same configuration and images resumes from its latest checkpoint that is not damaged; so
#    does a finished one that is to train for more epochs, if it was not stopped early.
#    If all are damaged, or another run is in the directory, that is an error: nothing is trained over it.
# 3. With --transfer.source, layers of that run's best state replace random ones.
# 4. From random parameters.
@checked(config=instance(ExperimentConfig), run_dir=FILE, report=FUNCTION, warn=FUNCTION, track=FUNCTION)
def fit(
    config: ExperimentConfig,
    run_dir: str | Path,
    splits: Splits | None = None,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    warn: Callable[[str], None] = warnings.warn,
    track: Callable[[dict[str, Any], TrainState | None], None] = lambda row, state: None,
) -> Result:
    """Trains until the validation loss stops improving, and returns the best state with its test result.

    Writes everything to ``run_dir``. An unfinished run of the same configuration is resumed from its last checkpoint,
    bitwise identical to an uninterrupted run; a finished run is loaded and returned. On SIGTERM and SIGINT the run is
    saved and stops within an eighth of an epoch.

    Args:
      config: the experiment.
      run_dir: directory of the run; made if it is not there.
      splits: images to use instead of those that the configuration names.
      report: called with each epoch's row of metrics.jsonl as soon as it is written.
      warn: called with a line on a problem that does not stop the run.
      track: called with each epoch's row and the state after it before they are saved, so that a run that is killed
        skips none, but may repeat one; the next step donates the state. A fused run has it at the best epoch only.

    Raises:
      UserError: configuration, images or directory cannot be used; found before anything is compiled.
      FloatingPointError: a loss is not finite; the best checkpoint is kept, which a fused run has only at its end.
      MemoryError: the network does not fit into memory.
      DamagedError: all checkpoints of the directory are damaged, or that of the best epoch is.
      Stopped: a signal was received, and the run is saved.
    """
    run_dir, mesh, seconds = Path(run_dir), make_mesh(config.mesh, config.train.device), {}
    rundir.check_entries(run_dir, config)
    if rundir.is_finished(run_dir, config):
        if splits is not None:
            rundir.check_images(run_dir, data_digest(splits))
        return load_result(run_dir)[1]
    with claim.lock(run_dir, config) as check_lock:
        with timed(seconds, "data"):
            with primary_first():
                config, splits = load(config, splits)
            placed, train_images = streaming.place(config, splits, mesh), len(splits.train.labels)
            teachers, teachers_report = load_teachers(config, run_dir)
            if not (run_dir / rundir.CONFIG).exists():
                check_transfer(config, train_images)
            check_longer(run_dir, config.train.epochs)
            rundir.write_config(run_dir, config, data_digest(splits), train_images, mesh.devices.ravel())
        run = Run(
            config=config,
            run_dir=run_dir,
            check_lock=check_lock,
            create_state=partial(create_state, config, train_images, mesh, teachers),
            splits=placed,
            seconds=seconds,
            # Copies: what a callback does to its row must not change the run.
            report=lambda row: report({**row}),
            warn=warn,
            track=lambda row, state: track({**row}, state),
        )
        state = run.create_state()
        layers = layer_table(state)
        if teachers:
            rundir.write_text(run_dir / rundir.TEACHERS, teachers_report)
        rundir.write_text(run_dir / rundir.SUMMARY, format_table(layers, config.name))
        with open_checkpoints(run_dir) as checkpoints:
            best, progress = _train(run, checkpoints, state, first_convolution(layers))
        return _finish(run, best, progress, sum(layer.parameters for layer in layers))


def _train(run: Run, checkpoints: Any, state: TrainState, layer: str | None) -> tuple[TrainState, Progress]:
    """Trains from where the run stands, else from the given state, to its end; returns the best state."""
    with timed(run.seconds, "checkpoint"):
        state, progress = _start(run, checkpoints, state)
        _warn_of_damaged_best(run, checkpoints, progress)
    if not run.config.train.fused:
        state, progress = _train_epochs(run, state, progress, checkpoints, layer)
    # Fused, all epochs are saved at once: what was saved is the whole run.
    elif not progress.history:
        progress = _train_fused(run, state, progress, checkpoints)
    run.check_lock()
    with timed(run.seconds, "checkpoint"):
        return load_best_of(checkpoints, state.replace(teachers=())), progress


def _start(run: Run, checkpoints: Any, state: TrainState) -> tuple[TrainState, Progress]:
    """Returns the state and progress to train from: 2, 3 or, with the random state that is given, 4 of the list."""
    latest = load_latest(checkpoints, state, run.warn)
    if latest is None:
        state, transferred = apply_transfer(state, run.config.transfer)
        if transferred:
            rundir.write_text(run.run_dir / rundir.TRANSFER, transferred)
        return state, initial_progress()
    state, saved = latest
    progress = loaded_progress(saved)
    add_seconds(run.seconds, saved["seconds"])
    # The other processes are about to read it.
    with primary_first():
        rundir.write_history(run.run_dir, progress.history)
    return state, progress


def _warn_of_damaged_best(run: Run, checkpoints: Any, progress: Progress) -> None:
    """Warns now if the best checkpoint is damaged or missing, as after the last epoch nothing can be done."""
    if progress.history:
        try:
            check_best(checkpoints)
        except DamagedError as error:
            run.warn(f"{error}; or continue, in case a later epoch is better")


def _train_epochs(
    run: Run, state: TrainState, progress: Progress, checkpoints: Any, layer: str | None
) -> tuple[TrainState, Progress]:
    """Saves and reports after each epoch, and saves within it if asked to; keeps the kernels of a layer.

    Raises:
      Stopped: a signal was received; the last step is saved.
      FloatingPointError: a loss is not finite.
    """
    config, splits, epoch_steps = run.config, run.splits, run.epoch_steps
    train, evaluate_val = _compile(run, state, progress)
    if int(state.step) == 0:
        _save_kernels(run, layer, state, 0)
    with signals.catch_signals(lambda: stopping_notice(progress)) as stop_requested:
        while len(progress.history) < config.train.epochs and not should_stop(progress.stopper, config.train.patience):
            done = int(state.step) - len(progress.history) * epoch_steps
            for steps, is_save_point in segments(done, epoch_steps, config.train.checkpoint_steps or epoch_steps):
                with timed(progress.spent, "train"):
                    state, metrics = train(state, progress.metrics, splits.train, np.int32(steps))
                    progress = progress._replace(metrics=jax.block_until_ready(metrics))
                done += steps
                signal = stop_requested()
                if is_save_point or (signal and done < epoch_steps):
                    _check_finite(run, train, checkpoints, state, progress)
                    _save(run, checkpoints, state, progress)
                    _stop_if(signal, run, state)
            with timed(progress.spent, "eval"):
                val_metrics = jax.block_until_ready(evaluate_val(state, splits.val))
            _check_finite(run, train, checkpoints, state, progress)
            epoch = len(progress.history) + 1
            row = epoch_row(config, epoch_steps, epoch, progress.metrics, val_metrics, progress.spent)
            row |= scores("val", state, splits.val, config.train.monitor)
            add_seconds(run.seconds, progress.spent)
            progress = next_epoch(progress, row, config.train.monitor)
            run.check_lock()
            _save_kernels(run, layer, state, epoch)
            derived.write_dynamics(run.run_dir, epoch, state)
            run.track(row, state)
            _save(run, checkpoints, state, progress)
            run.report(row)
            _stop_if(stop_requested(), run, state)
    return state, progress


def _compile(run: Run, state: TrainState, progress: Progress) -> tuple[Any, Any]:
    with timed(run.seconds, "compile"):
        train, val, batch_size = run.splits.train, run.splits.val, run.config.optim.batch_size
        if streaming.is_streamed(train):
            return streaming.streamed_training(run.config, train, state, progress.metrics), evaluate_split
        steps = train_steps.lower(state, progress.metrics, train, np.int32(1), batch_size=batch_size)
        return fitting(steps.compile()), fitting(evaluate.lower(state, val).compile())


def _save(run: Run, checkpoints: Any, state: TrainState, progress: Progress) -> None:
    with timed(run.seconds, "checkpoint"):
        run.check_lock()
        save(checkpoints, state, saved_progress(progress, run.epoch_steps, run.seconds))
        rundir.write_history(run.run_dir, progress.history)


def _save_kernels(run: Run, layer: str | None, state: TrainState, epoch: int) -> None:
    """Keeps a layer's kernels for the picture of them over the epochs, which takes milliseconds."""
    if layer is not None:
        kernels = to_host(state.eval_state.params[layer]["kernel"])
        # No run stops for a picture; if the disk is full, the checkpoint that follows says what is lost.
        with suppress(RunDirError, OSError, ValueError):
            derived.write_kernels(run.run_dir, epoch, kernels)


def _stop_if(signal: int, run: Run, state: TrainState) -> None:
    if signal:
        raise Stopped(signal, f"stopped at step {int(state.step)}, which is saved in {run.run_dir}")


def _check_finite(run: Run, train: Any, checkpoints: Any, state: TrainState, progress: Progress) -> None:
    """Raises FloatingPointError with the step and the images of the first non-finite loss, if there is one."""
    if not is_finite(progress.metrics):
        before, saved = _start(run, checkpoints, run.create_state())
        batch_size, skips = run.config.optim.batch_size, run.config.train.nan_policy == "skip"
        where = first_divergence(train, before, saved.metrics, run.splits.train, batch_size, int(state.step))
        raise diverged(where, hint="" if skips else ", or --train.nan_policy skip")


def _train_fused(run: Run, state: TrainState, progress: Progress, checkpoints: Any) -> Progress:
    """One call for all epochs; only the best state is saved, so a run that is stopped starts again."""
    config, splits = run.config, run.splits
    limits = {"epochs": config.train.epochs, "patience": config.train.patience, "batch_size": config.optim.batch_size}
    with timed(run.seconds, "compile"):
        program = fitting(train_fused.lower(state, splits.train, splits.val, **limits).compile())
    with timed(run.seconds, "train"):
        result = jax.block_until_ready(program(state, splits.train, splits.val))
    share = {"train": run.seconds["train"] / int(result.epochs)}
    for epoch, metrics in enumerate(epoch_metrics(result), 1):
        row = epoch_row(config, run.epoch_steps, epoch, *metrics, share)
        progress = next_epoch(progress, row, config.train.monitor)
    best_epoch = progress.stopper.best_epoch
    for row in progress.history:
        run.track(row, result.best if row["epoch"] == best_epoch else None)
    _save(run, checkpoints, result.best, progress)
    for row in progress.history:
        run.report(row)
    return progress


def _finish(run: Run, best: TrainState, progress: Progress, parameters: int) -> Result:
    """Evaluates the best state on the test images and writes result.json."""
    with timed(run.seconds, "eval"):
        test = jax.device_get(evaluate_split(best, run.splits.test))
        tta_test = jax.device_get(evaluate_views(best, run.splits.test)) if run.config.augment.test_time else None
    if not is_finite(test):
        raise diverged("on the test images", "the checkpoints are kept")
    best_row = progress.history[progress.stopper.best_epoch - 1]
    summary = {
        "best_epoch": progress.stopper.best_epoch,
        "stopped_epoch": len(progress.history),
        "stopped_by": "patience" if should_stop(progress.stopper, run.config.train.patience) else "epochs",
        **{name: value for name, value in best_row.items() if name.startswith("val_")},
        **metrics_dict("test", test),
        **scores("test", best, run.splits.test),
        **(metrics_dict("tta_test", tta_test) if tta_test else {}),
        "params": parameters,
        "seconds": run.seconds,
    }
    run.check_lock()
    return Result(on_one_device(best), progress.history, rundir.write_result(run.run_dir, summary))
