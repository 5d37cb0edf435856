"""The files of a run directory: claimed once, written atomically, read back with checks."""

import json
import os
import platform
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from cnn.config import ExperimentConfig, differences, from_dict, to_dict
from cnn.errors import ConfigError, RunDirError

CONFIG = "config.json"
HISTORY = "metrics.jsonl"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
FIGURES = "figures"
SUMMARY = "summary.txt"

# A run that differs in these alone is the same run: where the images lie, and what is drawn at the end.
_IRRELEVANT = ("data.source", "log.")


def write_text(path: Path, text: str) -> None:
    """Writes a file so that a reader finds the old text or the new one, whatever happens meanwhile.

    Raises:
      RunDirError: the directory is read-only, full, or gone.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # A temporary file is made for its owner alone; a result is for all that may read the directory.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise RunDirError(f"cannot write {path}: {error.strerror}; name another directory with --run-dir") from error


def write_json(path: Path, values: Any) -> None:
    """Writes ``values`` as JSON, atomically; numbers that JSON does not know, NaN among them, are refused."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_history(run_dir: Path, history: list[dict[str, Any]]) -> None:
    """Writes metrics.jsonl, a line per epoch. Whole every time, so it always equals the checkpoint's history."""
    write_text(run_dir / HISTORY, "".join(json.dumps(row, allow_nan=False) + "\n" for row in history))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise RunDirError(f"cannot read {path}: {reason}; name a directory that a run has written") from error


def read_config(run_dir: Path) -> ExperimentConfig:
    """Returns the configuration that a run was started with.

    Raises:
      RunDirError: there is none, or it is damaged.
    """
    values = _read_json(run_dir / CONFIG)
    if not isinstance(values, dict) or "config" not in values:
        raise RunDirError(f"{run_dir / CONFIG} is not what a run writes; name a directory that a run has written")
    try:
        return from_dict(values["config"])
    except ConfigError as error:
        raise RunDirError(f"{run_dir / CONFIG}: {error}") from error


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Returns what a finished run has written to result.json; None if it has not finished."""
    path = run_dir / RESULT
    return _read_json(path) if path.exists() else None


def read_history(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl."""
    try:
        return [json.loads(line) for line in (run_dir / HISTORY).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RunDirError(f"cannot read {run_dir / HISTORY}: {error}; name a run that has finished an epoch") from error


def claim(run_dir: Path, config: ExperimentConfig) -> None:
    """Makes sure that the directory is this run's and can be written to: makes it, or finds the same run in it.

    Raises:
      RunDirError: it holds something else, or a run of another configuration, or cannot be written to.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        entries = sorted(entry.name for entry in run_dir.iterdir())
    except OSError as error:
        raise RunDirError(f"cannot use {run_dir}: {error.strerror}; name another directory with --run-dir") from error
    if CONFIG in entries:
        changed = [d for d in differences(read_config(run_dir), config) if not d.startswith(_IRRELEVANT)]
        if changed:
            raise RunDirError(
                f"{run_dir} holds a run with another configuration ({'; '.join(changed)}); "
                "repeat its options, or name another directory with --run-dir"
            )
    elif any(not name.startswith(f".{CONFIG}.") for name in entries):
        raise RunDirError(f"{run_dir} holds something else ({entries[0]}); name an empty or new directory")
    else:
        write_json(run_dir / CONFIG, {"config": to_dict(config)})


def describe(config: ExperimentConfig, data_digest: str, device: Any) -> dict[str, Any]:
    """Returns what config.json says: the configuration, and what the run ran with."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "config": to_dict(config),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "devices": {"platform": device.platform, "kind": device.device_kind, "cpus": os.cpu_count()},
        "data_sha256": data_digest,
    }
