"""A run directory -> which of its files and checkpoints are whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn import rundir
from cnn.checkpoint import load, load_best_of, open_checkpoints, steps
from cnn.errors import DamagedError, RunDirError, UserError
from cnn.state import create_state


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
    if finished:
        check(rundir.RESULT, lambda: rundir.read_result(run_dir))
    begun = finished or (run_dir / rundir.HISTORY).exists()
    if begun:
        check(rundir.HISTORY, lambda: rundir.read_history(run_dir))
    if (run_dir / rundir.KERNELS).exists():
        check(rundir.KERNELS, lambda: rundir.read_kernels(run_dir))
    whole_ones = []
    if description and (run_dir / rundir.CHECKPOINTS).is_dir():
        like = create_state(description["config"], description["train_images"])
        with open_checkpoints(run_dir) as checkpoints:
            for step in reversed(steps(checkpoints)):
                name = f"{rundir.CHECKPOINTS}/{step}"
                check(name, lambda step=step: load(checkpoints, step, like))
                whole_ones += [step] if not found[name] else []
            if whole_ones and not any(found.values()):
                try:
                    load_best_of(checkpoints, like)
                except DamagedError as error:
                    found[rundir.CHECKPOINTS] = str(error)
                except RunDirError:
                    pass
    if description and begun and not whole_ones:
        found[rundir.CHECKPOINTS] = "none is whole"
    return found
