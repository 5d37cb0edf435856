"""The teachers of a distilled run: best networks of other runs, which must stay the same until the run has finished."""

import dataclasses
from pathlib import Path

import jax

from cnn.config import ExperimentConfig
from cnn.errors import ConfigError, RunDirError
from cnn.runs import rundir
from cnn.runs.checkpoint import load_best
from cnn.runs.derived import derived_digest
from cnn.runs.digests import bytes_digest, json_digest, leaf_digests
from cnn.runs.store import latest_description
from cnn.training.state import TrainState
from cnn.training.tasks import require_task


def load_teachers(config: ExperimentConfig, run_dir: Path | None = None) -> tuple[tuple[TrainState, ...], str]:
    """Returns the teachers that a configuration names, on the host, and a text with a line for each; () without any.

    A teacher is a state for evaluation, without optimizer and key. It computes in the student's type, as one process
    has one setting of XLA for both.

    Args:
      config: of the student, resolved.
      run_dir: directory of its run; None compares them with no earlier ones.

    Raises:
      UserError: a teacher's run is missing, has other classes or images, or is not the one that the run began with.
      DamagedError: its best checkpoint is damaged.
    """
    teachers, lines = [], []
    for source in config.distill.teacher:
        state, other = load_best(source)
        require_task(other, config.model.task, f"distilling from {source!r}")
        for name in ("image_shape", "class_names"):
            expected, actual = getattr(config.data, name), getattr(other.data, name)
            if expected != actual:
                raise ConfigError(
                    f"--distill.teacher is {source!r}, whose {name} is {actual}, but must be {expected}; "
                    "name a run on the same data"
                )
        state = state.eval_state
        weights = {"params": state.params, "batch_stats": state.batch_stats}
        lines.append(f"{source}: weights {json_digest(leaf_digests(weights))}\n")
        spec = state.spec._replace(model=dataclasses.replace(other.model, dtype=config.model.dtype).module(), mesh=None)
        # Each field that only training uses is empty.
        unused = {"step": None, "key": None, "opt_state": (), "ema": {}, "dynamics": {}}
        teachers.append(jax.device_get(state.replace(spec=spec, **unused)))
    report = "".join(lines)
    if run_dir is not None:
        _check_unchanged(run_dir, report)
    return tuple(teachers), report


def _check_unchanged(run_dir: Path, report: str) -> None:
    """Raises RunDirError unless the file and the latest checkpoint of a run, if it has them, are of these teachers."""
    path, latest = run_dir / rundir.TEACHERS, latest_description(run_dir) if report else {}
    digests = {derived_digest(run_dir, path.name), latest.get("files", {}).get(path.name)} - {None}
    if latest and not digests:
        raise RunDirError(f"{path}, which names the teachers, is missing; restore a copy, or name another --run-dir")
    if digests - {bytes_digest(report.encode())}:
        raise RunDirError(
            f"the teachers have changed since the run was started, as {path} or the latest checkpoint says; "
            "restore them, or name another --run-dir"
        )
