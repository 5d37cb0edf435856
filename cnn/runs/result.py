"""A finished run, read back from its directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn.config import DataConfig, ExperimentConfig
from cnn.data.splits import Splits, data_digest, load_data
from cnn.errors import RunDirError
from cnn.rules import FILE, checked
from cnn.runs import rundir
from cnn.runs.checkpoint import load_best_with_progress
from cnn.text import printable
from cnn.training.state import TrainState


@dataclass(frozen=True)
class Result:
    """A finished run."""

    state: TrainState
    """The best state, not the last."""
    history: list[dict[str, Any]]
    """A row per epoch, as in metrics.jsonl."""
    summary: dict[str, Any]
    """As in result.json: best_epoch, stopped_epoch, val_loss, test_accuracy, seconds by phase, ..."""


@checked(run_dir=FILE)
def load_result(run_dir: str | Path) -> tuple[ExperimentConfig, Result]:
    """Returns the configuration and the result of a finished run.

    Raises:
      RunDirError: the directory holds no run, or an unfinished one, or its files do not agree with each other.
      DamagedError: the checkpoint is damaged.
    """
    run_dir = Path(run_dir)
    state, config, progress = load_best_with_progress(run_dir)
    summary = rundir.read_result(run_dir)
    if summary is None:
        raise RunDirError(
            f"{run_dir} holds an unfinished run; repeat its command with --run-dir {run_dir} to resume it"
        )
    history = rundir.read_history(run_dir)
    if history != progress["history"]:
        raise RunDirError(
            f"the epochs of {run_dir / rundir.HISTORY} are not those of the latest checkpoint; {rundir.RESULT_HINT}"
        )
    if differing := differing_fields(summary, progress):
        raise RunDirError(
            f"{run_dir / rundir.RESULT} differs from the latest checkpoint in {differing[0]}; {rundir.RESULT_HINT}"
        )
    return config, Result(state, history, summary)


def differing_fields(summary: dict[str, Any], progress: dict[str, Any]) -> list[str]:
    """Returns the names of the fields of a result that differ from the progress of the run's latest checkpoint."""
    history, best = progress["history"], progress["stopper"]["best_epoch"]
    # Imported weights have no epochs.
    row = history[best - 1] if history else summary
    expected = {
        "best_epoch": best,
        "stopped_epoch": len(history),
        **{name: row[name] for name in ("val_loss", "val_accuracy")},
    }
    return [name for name, value in expected.items() if summary[name] != value]


def load_images(run_dir: Path, config: DataConfig | None = None) -> Splits:
    """Returns the images that a run was trained on.

    Args:
      run_dir: directory of the run.
      config: where they are now, if they have moved.

    Raises:
      UserError: the directory holds no run, or the images that its configuration names are missing or differ.
    """
    description = rundir.read_description(run_dir)
    source: DataConfig = config or description["config"].data
    splits = load_data(source)
    if data_digest(splits) != description["data_sha256"]:
        named = printable(source.source or source.name)
        if source.labels is not None:
            named += f" with the labels of {printable(source.labels)}"
        hint = "cnn.load_best gives its state to cnn.evaluate, cnn.predict and cnn.feature_maps, which take any"
        if source.source is not None:
            hint = "restore them, or train on these with another --run-dir; python -m cnn predict takes any image"
        raise RunDirError(f"{run_dir} was trained on other images than those of {named}; {hint}")
    return splits
