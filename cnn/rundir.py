"""The files of a run directory: claimed once, written atomically, read back with checks."""

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from cnn.config import ExperimentConfig, differences, from_dict, to_dict
from cnn.errors import ConfigError, RunDirError
from cnn.sharding import usable_cores

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunDirError(
            f"cannot write {path}: {error.strerror}; mend that, and the same command goes on from the last epoch"
        ) from error


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


def read_description(run_dir: Path) -> dict[str, Any]:
    """Returns what ``describe`` said of a run, its configuration checked and made an ExperimentConfig.

    Raises:
      RunDirError: there is none, or it is damaged.
    """
    values = _read_json(run_dir / CONFIG)
    if not isinstance(values, dict) or "config" not in values:
        raise RunDirError(f"{run_dir / CONFIG} is not what a run writes; name a directory that a run has written")
    try:
        return {**values, "config": from_dict(values["config"])}
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


@contextmanager
def claimed(run_dir: Path, config: ExperimentConfig) -> Iterator[None]:
    """Holds the directory for this process: makes it, or finds a part of the same run in it.

    Raises:
      RunDirError: it holds something else, or a run of another configuration, is in use, or cannot be written to.
    """
    way_out = "name another directory with --run-dir"
    made = not run_dir.exists()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        held = os.open(run_dir, os.O_RDONLY)
    except OSError as error:
        raise RunDirError(f"cannot use {run_dir}: {error.strerror}; {way_out}") from error
    try:
        try:
            # The lock is on the directory itself, and ends with the process, however that ends.
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunDirError(f"{run_dir} is in use by another process; wait for it, or {way_out}") from error
        entries = sorted(entry.name for entry in run_dir.iterdir() if not entry.name.startswith("."))
        if CONFIG in entries:
            changed = [
                difference
                for difference in differences(read_description(run_dir)["config"], config)
                if not difference.startswith(_IRRELEVANT)
            ]
            if changed:
                raise RunDirError(
                    f"{run_dir} holds a run with another configuration ({'; '.join(changed)}); "
                    f"repeat its options, or {way_out}"
                )
        elif entries:
            raise RunDirError(f"{run_dir} holds something else ({entries[0]}); name an empty or new directory")
        yield
    finally:
        os.close(held)
        # Nothing is left of a run that was refused before it wrote anything.
        if made:
            with suppress(OSError):
                run_dir.rmdir()


def describe(run_dir: Path, config: ExperimentConfig, data_sha256: str, train_images: int, device: Any) -> None:
    """Writes config.json: the configuration, and what the run runs with; not anew for a run that is gone on with.

    Raises:
      RunDirError: the run was begun on other images.
    """
    if (run_dir / CONFIG).exists():
        if read_description(run_dir).get("data_sha256") != data_sha256:
            raise RunDirError(f"{run_dir} holds a run on other images; name another directory with --run-dir")
        return
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    description = {
        "config": to_dict(config),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "devices": {"platform": device.platform, "kind": device.device_kind, "cores": usable_cores()},
        "data_sha256": data_sha256,
        "train_images": train_images,
    }
    write_json(run_dir / CONFIG, description)
