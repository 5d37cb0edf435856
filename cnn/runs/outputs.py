"""Where a command may write: checked before it computes, so that it only replaces what it has made itself."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from cnn.errors import ConfigError, RunDirError
from cnn.runs import rundir
from cnn.text import read_regular, reason

EVALUATION = "evaluation.json"
ROBUSTNESS = "robustness.json"
NOVELTY = "novelty.npz"
UNKNOWN = "unknown.json"

_RUN = {rundir.CONFIG, rundir.HISTORY, rundir.KERNELS, rundir.RESULT, rundir.SUMMARY, rundir.TRANSFER, rundir.LOCK}
_RUN |= {rundir.CHECKPOINTS, rundir.DAMAGED, rundir.REPORT, rundir.FIGURES, rundir.EXPORT, EVALUATION}
_RUN |= {rundir.LIVE, "tensorboard", "mlflow", rundir.TEACHERS, rundir.DYNAMICS, ROBUSTNESS, NOVELTY, UNKNOWN}
"""Names of all that a run writes."""

_ENDS = 4096
"""Number of bytes at the beginning and at the end of a file in which its mark is."""


class _Kind(NamedTuple):
    """A kind of output."""

    mark: bytes | tuple[bytes, ...]
    """In every file of this kind, and hardly in any other; of several, one of them."""
    place: str
    """Where a run keeps it: a file or directory in the run's directory, if it has one."""
    example: str


Kind = Literal[
    "page",
    "comparison",
    "figure",
    "evaluation",
    "robustness",
    "unknown",
    "labels",
    "safetensors",
    "stablehlo",
    "onnx",
    "int8",
    "card",
    "web",
]

_PAGE = b"""<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'sha256-"""

_KINDS: dict[Kind, _Kind] = {
    "page": _Kind(_PAGE, rundir.REPORT, "page.html"),
    "comparison": _Kind(_PAGE, "", "comparison.html"),
    "figure": _Kind(b"tEXtSoftware\0fashion-cnn", rundir.FIGURES, "figure.png"),
    "evaluation": _Kind(b'\n  "accuracy_interval": [', EVALUATION, EVALUATION),
    "robustness": _Kind(b'\n  "mean_corruption_error": ', ROBUSTNESS, ROBUSTNESS),
    "unknown": _Kind(b'\n  "best_score": "', UNKNOWN, UNKNOWN),
    "safetensors": _Kind(b'{"__metadata__":{"config":"{', rundir.EXPORT, "model.safetensors"),
    "stablehlo": _Kind((b"\r\0\0\0probabilities\0", b"\n\0\0\0detections\0"), rundir.EXPORT, "model.stablehlo"),
    "labels": _Kind(b'{\n  "out_of_sample_accuracy": ', "", "labels.json"),
    "onnx": _Kind(b"\x12\x0bfashion-cnn", rundir.EXPORT, "model.onnx"),
    "int8": _Kind(b'{\n  "quantization": "int8', rundir.EXPORT, "model.json"),
    "card": _Kind(b'\nlibrary_name: "fashion-cnn"\n', rundir.EXPORT, "README.md"),
    "web": _Kind(b'\n"runtime": {"name": "onnxruntime-web", ', rundir.EXPORT, "web"),
}


def is_run(directory: Path) -> bool:
    """Returns whether a directory holds a run, whatever of it is damaged: by its lock, else by its history."""
    try:
        return read_regular(directory / rundir.LOCK).startswith(rundir.LOCKED)
    except (OSError, ValueError):
        others = rundir.CONFIG, rundir.CHECKPOINTS
        return (directory / rundir.HISTORY).is_file() and any((directory / name).exists() for name in others)


def run_of(path: Path) -> Path | None:
    """Returns the run directory that a path without links is, or is in; None if there is none."""
    return next((directory for directory in (path, *path.parents) if is_run(directory)), None)


def check_new_run(run_dir: Path) -> None:
    """Raises RunDirError if a directory for runs is inside of a run."""
    try:
        if outer := run_of(Path(os.path.realpath(run_dir)).parent):
            raise RunDirError(f"{run_dir} is inside of the run {outer}; name another directory with --run-dir")
    except (OSError, ValueError) as error:
        raise RunDirError(f"cannot use {run_dir}: {reason(error)}; name another directory with --run-dir") from error


def check_beginning(path: Path, beginning: str) -> None:
    """Raises RunDirError if there is a file that does not begin as the one that is to replace it."""
    try:
        same = not os.path.lexists(path) or read_regular(path).startswith(beginning.encode())
    except (OSError, ValueError):
        same = False
    if not same:
        raise RunDirError(f"{path} is not of this command with these options; name another directory with --run-dir")


def check_file(output: Path, kind: Kind, run_dirs: Sequence[Path]) -> Path:
    """Returns the path of a file that a command may write, or write again.

    Args:
      output: path of the file.
      kind: of the file.
      run_dirs: runs that the command reads.

    Raises:
      ConfigError: there is no directory for it; or there is something that no such command has written, such as
        another file, a pipe, a device or a link; or it is a file of a run itself, or in another run.
    """
    if problem := _problem(output, kind, run_dirs):
        raise ConfigError(
            f"--output is {str(output)!r}, which {problem}; name another file, such as {_KINDS[kind].example}"
        )
    return output


def _problem(path: Path, kind: Kind, run_dirs: Sequence[Path]) -> str:
    parent = path.parent
    try:
        if path.is_dir():
            return "is a directory"
        if not parent.is_dir():
            return f"is in {parent}, which is not a directory"
        resolved = Path(os.path.realpath(parent), path.name)
        if problem := _place_problem(resolved, kind, run_dirs):
            return problem
        if not os.path.lexists(path):
            return ""
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return "is a link, a pipe or a device"
        # Without a mark in the runs of earlier versions.
        own = kind == "page" and is_run(resolved.parent) and resolved.name == rundir.REPORT
        return "" if own or _has_mark(path, _KINDS[kind].mark) else "this command has not written"
    except (OSError, ValueError) as error:
        return f"cannot be written ({reason(error)})"


def _place_problem(path: Path, kind: Kind, run_dirs: Sequence[Path]) -> str:
    """What is wrong with the place of an output, a path without links, if it is in a run."""
    run = run_of(path)
    if run is None:
        return ""
    if str(run) not in map(os.path.realpath, run_dirs):
        return f"is in another run, {run}"
    names = path.relative_to(run).parts
    if not names or (names[0] in _RUN and names[0] != _KINDS[kind].place):
        return "is the run's own"
    return ""


def _has_mark(path: Path, mark: bytes | tuple[bytes, ...]) -> bool:
    with open(path, "rb") as file:
        first = file.read(_ENDS)
        file.seek(max(0, os.fstat(file.fileno()).st_size - _ENDS))
        ends = first, file.read(_ENDS)
    return any(one in end for one in ((mark,) if isinstance(mark, bytes) else mark) for end in ends)


def check_directory(
    output: Path, kind: Kind, run_dirs: Sequence[Path] = (), patterns: Sequence[str] = (), option: str = "--output"
) -> Path:
    """Returns the path of a directory in which a command may write files, or write them again.

    Args:
      output: path of the directory, which need not exist, but its parent must.
      kind: of the files.
      run_dirs: runs that the command reads.
      patterns: of the names of the files.
      option: which names the directory.

    Raises:
      ConfigError: it cannot be made; or it has a file of these names that no such command has written; or it is a
        directory of a run itself, or in another run.
    """
    if problem := _directory_problem(output, kind, run_dirs, patterns):
        raise ConfigError(f"{option} is {str(output)!r}, which {problem}; name a directory")
    return output


def _directory_problem(path: Path, kind: Kind, run_dirs: Sequence[Path], patterns: Sequence[str]) -> str:
    try:
        if not path.is_dir() and os.path.lexists(path):
            return "is a file"
        if not path.is_dir() and not path.parent.is_dir():
            return f"is in {path.parent}, which is not a directory"
        resolved = Path(os.path.realpath(path))
        if resolved.parent == resolved:
            return "is the root of the file system"
        if problem := _place_problem(resolved, kind, run_dirs):
            return problem
        # A run's figures have no mark if an earlier version drew them.
        if resolved.name == rundir.FIGURES and is_run(resolved.parent):
            return ""
        for file in (file for pattern in patterns for file in sorted(path.glob(pattern))):
            if not stat.S_ISREG(os.lstat(file).st_mode) or not _has_mark(file, _KINDS[kind].mark):
                return f"has a {file.name} that this command has not written"
        return ""
    except (OSError, ValueError) as error:
        return f"cannot be used ({reason(error)})"
