"""A run directory -> which of its files and checkpoints are whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn.errors import DamagedError, RunDirError, UserError
from cnn.runs import rundir
from cnn.runs.checkpoint import load, load_best_of, open_checkpoints, steps
from cnn.training.state import create_state


def verify(run_dir: Path) -> dict[str, str]:
    """Returns what is wrong with each file and checkpoint of a run directory, "" where nothing is.

    Every array is read and compared to its digest; nothing is changed.

    Raises:
      RunDirError: the directory holds no run.
    """
    found: dict[str, str] = {}

    def check(name: str, read: Callable[[], Any]) -> Any:
        try:
            value, found[name] = read(), ""
            return value
        except (UserError, DamagedError) as error:
            found[name] = str(error)

    if not (run_dir / rundir.CONFIG).exists():
        raise RunDirError(f"{run_dir} holds no {rundir.CONFIG}; name a directory that a run has written")
    description = check(rundir.CONFIG, lambda: rundir.read_description(run_dir))
    finished = (run_dir / rundir.RESULT).exists()
    result = check(rundir.RESULT, lambda: rundir.read_result(run_dir)) if finished else None
    begun = finished or (run_dir / rundir.HISTORY).exists()
    history = check(rundir.HISTORY, lambda: rundir.read_history(run_dir)) if begun else None
    if (run_dir / rundir.KERNELS).exists():
        check(rundir.KERNELS, lambda: rundir.read_kernels(run_dir))
    whole_ones, saved = [], None
    if description and (run_dir / rundir.CHECKPOINTS).is_dir():
        like = create_state(description["config"], description["train_images"])
        with open_checkpoints(run_dir) as checkpoints:
            for step in reversed(steps(checkpoints)):
                name = f"{rundir.CHECKPOINTS}/{step}"
                loaded = check(name, lambda step=step: load(checkpoints, step, like))
                whole_ones += [step] if loaded else []
                saved = loaded[1]["history"] if loaded else None
            if whole_ones and not any(found.values()):
                try:
                    load_best_of(checkpoints, like)
                except DamagedError as error:
                    found[rundir.CHECKPOINTS] = str(error)
                except RunDirError:
                    pass
    if description and begun and not whole_ones:
        found[rundir.CHECKPOINTS] = "none is whole"
    if saved is not None and history is not None:
        both = min(len(history), len(saved))
        # A process that was killed may not have come to write the last row.
        if history[:both] != saved[:both] or (finished and len(history) < len(saved)):
            found[rundir.HISTORY] = "it is not what the latest checkpoint says of the epochs"
    if history and result and result["val_loss"] not in [row["val_loss"] for row in history]:
        found[rundir.RESULT] = "its val_loss is that of no epoch"
    return found
