"""The files of a run directory: written atomically, read back with checks."""

import dataclasses
import json
import math
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from cnn.config import ExperimentConfig
from cnn.devices.processes import is_primary
from cnn.devices.sharding import usable_cores
from cnn.errors import ConfigError, RunDirError
from cnn.resolution import resolve, resolve_as
from cnn.runs import identity
from cnn.runs.files import replacing
from cnn.serialization import differences, from_dict
from cnn.text import read_json, read_json_lines, reason, shown

CONFIG = "config.json"
HISTORY = "metrics.jsonl"
KERNELS = "kernels.jsonl"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
FIGURES = "figures"
EXPORT = "export"
REPORT = "report.html"
LIVE = "live.html"
SUMMARY = "summary.txt"
TRANSFER = "transfer.txt"
TEACHERS = "teachers.txt"
DYNAMICS = "dynamics"
DAMAGED = "damaged"
LOCK = ".lock"
LOCKED = b"process "
"""Beginning of the lock's content."""

# Runs that differ only in these are the same run: where the images are, on which and how many devices it runs, how
# often it saves, and what is drawn at the end.
_IRRELEVANT = ("data.device_memory", "data.source", "log.", "mesh.", "train.checkpoint_steps", "train.device")

_RESULT = {
    **dict.fromkeys(("best_epoch", "stopped_epoch", "params"), int),
    **dict.fromkeys(("val_loss", "val_accuracy", "test_loss", "test_accuracy"), float),
    "seconds": dict,
}
_ROW = {
    "epoch": int,
    **dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "val_accuracy"), float),
    **dict.fromkeys(("learning_rate", "seconds", "images_per_second"), float),
}


RESULT_HINT = f"restore a copy, or remove {RESULT}, and the command that made the run writes it again"
RESUME_HINT = "fix that, and the same command resumes from the last checkpoint"


def write_text(path: Path, text: str, hint: str = RESUME_HINT) -> None:
    """Writes a text as ``write_bytes`` does."""
    write_bytes(path, text.encode(), hint)


def write_bytes(path: Path, content: bytes, hint: str = RESUME_HINT) -> None:
    """Writes a file atomically: a reader finds the old content or the new one. Only the primary process writes.

    Raises:
      RunDirError: the directory is read-only, full, or gone; the message ends with the hint.
    """
    if not is_primary():
        return
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise RunDirError(f"cannot write {path}: {error.strerror}; {hint}") from error


def write_json(path: Path, values: Any, hint: str = RESUME_HINT) -> None:
    """Writes ``values`` as JSON, atomically; NaN and infinity, which JSON does not know, are refused."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n", hint)


def write_history(run_dir: Path, history: list[dict[str, Any]]) -> None:
    """Writes all of metrics.jsonl, a line per epoch, so that it always equals the checkpoint's history."""
    write_text(run_dir / HISTORY, "".join(json.dumps(row, allow_nan=False) + "\n" for row in history))


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise RunDirError(f"cannot read {path}: {reason(error)}; name a directory that a run has written") from error


def _read_config(run_dir: Path) -> dict[str, Any]:
    """The values in config.json, of which nothing is checked but that there is a configuration."""
    values = _read_json(run_dir / CONFIG)
    if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
        raise RunDirError(f"{run_dir / CONFIG} is not what a run writes; name a directory that a run has written")
    return values


def read_identity(run_dir: Path) -> identity.Identity:
    """Returns which run a directory holds.

    Raises:
      RunDirError: its config.json is missing or damaged.
    """
    return identity.identify(_read_config(run_dir))


def read_description(run_dir: Path) -> dict[str, Any]:
    """Returns what ``write_config`` wrote, with the configuration checked and made an ExperimentConfig.

    Raises:
      RunDirError: there is none, or it is damaged.
    """
    values = _read_config(run_dir)
    try:
        description = {**values, "config": resolve(from_dict(values["config"]))}
    except ConfigError as error:
        raise RunDirError(f"{run_dir / CONFIG}: {error}") from error
    _check_fields(
        run_dir / CONFIG, values, {"versions": dict, "devices": dict, "data_sha256": str, "train_images": int}
    )
    return description


def _check_fields(path: Path, values: Any, types: dict[str, type]) -> Any:
    """Returns the values if they have these fields, of these types, and numbers that are finite and not negative."""

    def fits(value, kind):
        if kind in (int, float):
            is_number = isinstance(value, (int, kind)) and not isinstance(value, bool)
            return is_number and math.isfinite(value) and value >= 0
        if kind is dict and path.name == RESULT:
            return isinstance(value, dict) and all(fits(seconds, float) for seconds in value.values())
        return isinstance(value, kind)

    if not isinstance(values, dict):
        raise RunDirError(f"{path} is not what a run writes; name a directory that a run has written")
    for name, kind in types.items():
        if not fits(values.get(name), kind):
            raise RunDirError(
                f"{path}: {name} is {shown(values.get(name, 'missing'))}, but a run writes a {kind.__name__}; "
                "restore a copy, or name another directory"
            )
    return values


def write_result(run_dir: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Writes result.json with digests of it and of config.json, and returns what it holds."""
    result = identity.sign(result, _read_config(run_dir))
    write_json(run_dir / RESULT, result)
    return result


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Returns the content of result.json; None if the run is not finished.

    Raises:
      RunDirError: it is damaged, or was changed, or is of another run.
    """
    path = run_dir / RESULT
    if not os.path.lexists(path):
        return None
    result, values = _check_fields(path, _read_json(path), _RESULT), _read_config(run_dir)
    if is_recorded(run_dir, result) and (other := identity.differing_digest(result, values)):
        raise RunDirError(f"{path} is not what was written: it does not agree with {other}; {RESULT_HINT}")
    return result


def is_recorded(run_dir: Path, result: dict[str, Any]) -> bool:
    """Returns whether a result has digests, which is so unless it may be older than they are."""
    return identity.is_signed(result, _read_config(run_dir))


def read_history(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl."""
    path = run_dir / HISTORY
    try:
        return [_check_fields(path, row, _ROW) for row in read_json_lines(path)]
    except (OSError, ValueError) as error:
        raise RunDirError(f"cannot read {path}: {reason(error)}; name a run that has finished an epoch") from error


def own_directory(run_dir: Path, name: str) -> Path:
    """Returns a directory in the run directory; raises RunDirError if it is a link, which could lead anywhere."""
    path = run_dir / name
    if path.is_symlink():
        raise RunDirError(f"{path} is a symbolic link, which a run does not follow; name another directory")
    if path.exists() and not path.is_dir():
        raise RunDirError(f"{path} is not a directory; name another --run-dir")
    return path


def check_entries(run_dir: Path, config: ExperimentConfig) -> None:
    """Raises RunDirError if the directory holds anything but a run of this configuration; nothing is written."""
    hint = "name another directory with --run-dir"
    try:
        entries = sorted(entry.name for entry in run_dir.iterdir() if not entry.name.startswith("."))
        links = [path for name in (CHECKPOINTS, DAMAGED) for path in run_dir.glob(f"{name}/*") if path.is_symlink()]
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunDirError(f"cannot use {run_dir}: {error.strerror}; {hint}") from error
    if CONFIG in entries:
        saved = read_description(run_dir)["config"]
        changed = [text for text in differences(saved, resolve_as(config, saved)) if not text.startswith(_IRRELEVANT)]
        if saved.train.epochs < config.train.epochs and len(changed) == 1:
            _check_more_epochs(run_dir, saved, hint)
        elif changed:
            raise RunDirError(
                f"{run_dir} holds a run with another configuration ({'; '.join(changed)}); "
                f"repeat its options, or {hint}"
            )
    elif entries:
        raise RunDirError(f"{run_dir} holds something else ({entries[0]}); name an empty or new directory")
    for name in (CHECKPOINTS, FIGURES, DAMAGED, EXPORT, DYNAMICS):
        own_directory(run_dir, name)
    for link in links:
        own_directory(link.parent, link.name)


def _check_more_epochs(run_dir: Path, saved: ExperimentConfig, hint: str) -> None:
    """Raises RunDirError if a run's first epochs depend on how many were planned, so that it cannot be continued."""
    planned, schedule = saved.train.epochs, saved.optim.schedule
    if saved.train.fused or schedule != "constant":
        reason = "a fused run keeps only its best state" if saved.train.fused else f"its {schedule} schedule ends there"
        raise RunDirError(f"{run_dir} holds a run of {planned} epochs, and cannot train longer: {reason}; {hint}")


def is_finished(run_dir: Path, config: ExperimentConfig) -> bool:
    """Returns whether the directory holds the result of a run, to which a configuration adds no epochs.

    If early stopping has ended the run, or its weights were imported, more epochs change nothing.
    """
    result = read_result(run_dir)
    if result is None:
        return False
    planned = read_description(run_dir)["config"].train.epochs
    return not planned == result["stopped_epoch"] < config.train.epochs


def check_images(run_dir: Path, data_sha256: str) -> None:
    """Raises RunDirError if a run uses other images than those of a digest."""
    if read_description(run_dir)["data_sha256"] != data_sha256:
        raise RunDirError(f"{run_dir} holds a run on other images; name another directory with --run-dir")


def write_config(
    run_dir: Path,
    config: ExperimentConfig,
    data_sha256: str,
    train_images: int,
    devices: Any,
    imported: dict[str, str] | None = None,
) -> None:
    """Writes config.json: configuration, versions, devices and data of the run, and the file of weights if imported.

    A resumed run keeps its own.

    Raises:
      RunDirError: the run uses other images, or is an import of another file that was cut short.
    """
    if (run_dir / CONFIG).exists():
        check_images(run_dir, data_sha256)
        check_import(run_dir, imported)
        _raise_epochs(run_dir, config.train.epochs)
        return
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    description = {
        "config": dataclasses.asdict(config),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "devices": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "number": len(devices),
            "cores": usable_cores(),
        },
        "data_sha256": data_sha256,
        "train_images": train_images,
        identity.ID: identity.new_id(),
        **({"imported": imported} if imported else {}),
    }
    write_json(run_dir / CONFIG, description)


def is_import_cut_short(run_dir: Path) -> bool:
    """Returns whether the directory holds weights of which the import was not finished."""
    return bool(_read_config(run_dir).get("imported")) and not (run_dir / RESULT).exists()


def check_import(run_dir: Path, imported: dict[str, str] | None = None) -> None:
    """Raises RunDirError for an import that was cut short, but of the given file: the same command starts it again."""
    saved = _read_config(run_dir).get("imported")
    if is_import_cut_short(run_dir) and saved != imported:
        file = shown(saved.get("file")) if isinstance(saved, dict) else "weights"
        raise RunDirError(
            f"{run_dir} holds an import of {file} that was cut short; repeat the command python -m cnn import with it, "
            "or name another directory with --run-dir"
        )


def _raise_epochs(run_dir: Path, epochs: int) -> None:
    """Plans more epochs for a run; if it was finished, it is unfinished then."""
    description = _read_json(run_dir / CONFIG)
    train = description["config"]["train"]
    if train["epochs"] < epochs and is_primary():
        # First, so that a process that is killed here leaves a run that its own command finishes again.
        (run_dir / RESULT).unlink(missing_ok=True)
        write_json(
            run_dir / CONFIG, {**description, "config": {**description["config"], "train": {**train, "epochs": epochs}}}
        )
