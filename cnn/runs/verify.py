"""A run directory -> which of its files and checkpoints are damaged, changed, or of another run."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn.errors import DamagedError, FamilyError, RunDirError, UserError
from cnn.runs import derived, rundir
from cnn.runs.checkpoint import OtherRunError, load_best_of, load_described
from cnn.runs.identity import RUN
from cnn.runs.result import differing_fields
from cnn.runs.store import open_checkpoints, steps
from cnn.training.state import create_state

NOT_RECORDED = "not recorded"
"""Instead of a problem, of a file whose digest older runs do not keep."""


def verify(run_dir: Path) -> dict[str, str]:
    """Returns the problem of each file and checkpoint of a run directory, "" for an intact one, or ``NOT_RECORDED``.

    Every array is read and compared to its digest, every file to what it follows from; nothing is changed.

    Raises:
      RunDirError: the directory holds no run, or one whose network has not been imported.
    """
    problems: dict[str, str] = {}
    errors: dict[str, Exception] = {}

    def check(name: str, read: Callable[[], Any]) -> Any:
        try:
            value, problems[name] = read(), ""
            return value
        except (UserError, DamagedError) as error:
            if isinstance(error.__cause__, FamilyError):
                raise
            problems[name], errors[name] = str(error), error

    if not (run_dir / rundir.CONFIG).exists():
        raise RunDirError(f"{run_dir} has no {rundir.CONFIG}; name a directory that a run has written")
    description = check(rundir.CONFIG, lambda: rundir.read_description(run_dir))
    # Also if it is a link that leads nowhere.
    finished, started = (os.path.lexists(run_dir / name) for name in (rundir.RESULT, rundir.HISTORY))
    result = check(rundir.RESULT, lambda: rundir.read_result(run_dir)) if finished else None
    started = finished or started
    history = check(rundir.HISTORY, lambda: rundir.read_history(run_dir)) if started else None
    for name in derived.DERIVED:
        if (run_dir / name).exists():
            check(name, lambda name=name: derived.derived_digest(run_dir, name))
    if (run_dir / rundir.KERNELS).exists():
        check(rundir.KERNELS, lambda: derived.read_kernels(run_dir))
    if description and history and (run_dir / rundir.DYNAMICS).exists():
        check(rundir.DYNAMICS, lambda: derived.read_dynamics(run_dir, len(history)))
    # What the latest intact checkpoint says, and the latest one's progress if it is that.
    latest, saved, step, found = None, None, 0, []
    if description and (run_dir / rundir.CHECKPOINTS).is_dir():
        like = create_state(description["config"], description["train_images"])
        with contextlib.ExitStack() as stack:
            checkpoints: Any = check(rundir.CHECKPOINTS, lambda: stack.enter_context(open_checkpoints(run_dir)))
            found = (checkpoints and check(rundir.CHECKPOINTS, lambda: steps(checkpoints))) or []
            for number in reversed(found):
                loaded = check(_name(number), lambda number=number: load_described(checkpoints, number, like))
                latest, step = (loaded[1], number) if loaded else (latest, step)
                saved = loaded[1]["progress"] if loaded else None
            if latest and not any(problems.values()):
                try:
                    load_best_of(checkpoints, like)
                except DamagedError as error:
                    problems[rundir.CHECKPOINTS] = str(error)
                except RunDirError:
                    pass
            if found and all(isinstance(errors.get(_name(number)), OtherRunError) for number in found):
                problems[rundir.CONFIG] = "no checkpoint is of this run"
    if not problems.get(rundir.CHECKPOINTS, ""):
        problems.pop(rundir.CHECKPOINTS, None)
    if description and started and not found and rundir.CHECKPOINTS not in problems:
        problems[rundir.CHECKPOINTS] = "there is none"
    if saved is not None and history is not None:
        both = min(len(history), len(saved["history"]))
        # A killed process may not have written the last row.
        if history[:both] != saved["history"][:both] or (finished and len(history) != len(saved["history"])):
            problems[rundir.HISTORY] = "its epochs differ from those of the latest checkpoint"
    if result and saved is not None and (differing := differing_fields(result, saved)):
        problems[rundir.RESULT] = f"{differing[0]} differs from the latest checkpoint"
    if latest:
        _compare(run_dir, problems, latest, step, whole=finished and saved is not None)
    if result and not problems[rundir.RESULT] and not rundir.is_recorded(run_dir, result):
        problems[rundir.RESULT] = NOT_RECORDED
    return problems


def _name(step: int) -> str:
    return f"{rundir.CHECKPOINTS}/{step}"


def _compare(run_dir: Path, problems: dict[str, str], latest: dict[str, Any], step: int, whole: bool) -> None:
    """Adds the problems of the files of which a checkpoint keeps digests; of the kernels all, or its epochs only."""
    if RUN not in latest and not problems[rundir.CONFIG]:
        problems[rundir.CONFIG] = NOT_RECORDED
    epochs = None if whole else len(latest["progress"]["history"])
    for name in derived.DERIVED:
        if problems.get(name, ""):
            continue
        actual = derived.derived_digest(run_dir, name, epochs)
        if "files" not in latest:
            if actual:
                problems[name] = NOT_RECORDED
        elif actual != latest["files"].get(name):
            problems[name] = f"it is {'not what was' if actual else 'missing, but was'} saved with checkpoint {step}"


def damaged(problems: dict[str, str]) -> list[str]:
    """Returns the names of what ``verify`` found damaged."""
    return [name for name, problem in problems.items() if problem not in ("", NOT_RECORDED)]
