"""A finished run, read back from its directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn.config import DataConfig, ExperimentConfig
from cnn.data.splits import Splits, data_digest, load_data
from cnn.errors import RunDirError
from cnn.runs import rundir
from cnn.runs.checkpoint import load_best
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


def load_result(run_dir: str | Path) -> tuple[ExperimentConfig, Result]:
    """Returns the configuration and the result of a finished run.

    Raises:
      RunDirError: the directory holds no run, or an unfinished one.
    """
    run_dir = Path(run_dir)
    state, config = load_best(run_dir)
    summary = rundir.read_result(run_dir)
    if summary is None:
        raise RunDirError(
            f"{run_dir} holds an unfinished run; repeat its command with --run-dir {run_dir} to resume it"
        )
    return config, Result(state, rundir.read_history(run_dir), summary)


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
        raise RunDirError(
            f"{run_dir} was trained on other images than those of {source.name}; "
            "cnn.load_best gives its state to cnn.evaluate, cnn.predict and cnn.feature_maps, which take any"
        )
    return splits
