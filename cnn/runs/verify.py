"""A run directory -> which of its files and checkpoints are damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn.errors import DamagedError, RunDirError, UserError
from cnn.runs import rundir
from cnn.runs.checkpoint import load, load_best_of, open_checkpoints, steps
from cnn.training.state import create_state


def verify(run_dir: Path) -> dict[str, str]:
    """Returns the problem of each file and checkpoint of a run directory, "" for an intact one.

    Every array is read and compared to its digest; nothing is changed.

    Raises:
      RunDirError: the directory holds no run.
    """
    problems: dict[str, str] = {}

    def check(name: str, read: Callable[[], Any]) -> Any:
        try:
            value, problems[name] = read(), ""
            return value
        except (UserError, DamagedError) as error:
            problems[name] = str(error)

    if not (run_dir / rundir.CONFIG).exists():
        raise RunDirError(f"{run_dir} has no {rundir.CONFIG}; name a directory that a run has written")
    description = check(rundir.CONFIG, lambda: rundir.read_description(run_dir))
    finished = (run_dir / rundir.RESULT).exists()
    result = check(rundir.RESULT, lambda: rundir.read_result(run_dir)) if finished else None
    started = finished or (run_dir / rundir.HISTORY).exists()
    history = check(rundir.HISTORY, lambda: rundir.read_history(run_dir)) if started else None
    if (run_dir / rundir.KERNELS).exists():
        check(rundir.KERNELS, lambda: rundir.read_kernels(run_dir))
    intact, saved = [], None
    if description and (run_dir / rundir.CHECKPOINTS).is_dir():
        like = create_state(description["config"], description["train_images"])
        with open_checkpoints(run_dir) as checkpoints:
            for step in reversed(steps(checkpoints)):
                name = f"{rundir.CHECKPOINTS}/{step}"
                loaded = check(name, lambda step=step: load(checkpoints, step, like))
                intact += [step] if loaded else []
                saved = loaded[1]["history"] if loaded else None
            if intact and not any(problems.values()):
                try:
                    load_best_of(checkpoints, like)
                except DamagedError as error:
                    problems[rundir.CHECKPOINTS] = str(error)
                except RunDirError:
                    pass
    if description and started and not intact:
        problems[rundir.CHECKPOINTS] = "all are damaged"
    if saved is not None and history is not None:
        both = min(len(history), len(saved))
        # A killed process may not have written the last row.
        if history[:both] != saved[:both] or (finished and len(history) < len(saved)):
            problems[rundir.HISTORY] = "its epochs differ from those of the latest checkpoint"
    if history and result and result["val_loss"] not in [row["val_loss"] for row in history]:
        problems[rundir.RESULT] = "its val_loss is not in the history"
    return problems
