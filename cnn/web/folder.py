"""A run's page as a folder, which any static host serves as it is; written whole, or not at all."""

import glob
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from cnn.errors import ConfigError, RunDirError, import_extra
from cnn.runs import outputs, rundir
from cnn.text import printable, read_json
from cnn.training.tasks import require_task
from cnn.trust.exports import card_text
from cnn.web.contents import FACTS, NETWORK, contents, read_network
from cnn.web.runtime import find_runtime

STALE_SECONDS = 600
"""Age from which what lies beside a folder is of no process that still writes it."""

FOLDER = "web"
"""Name of the folder in ``export/`` of the run directory."""


def export_web(
    run_dir: Path,
    output: Path | None = None,
    runtime: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    warn: Callable[[str], None] = lambda line: None,
) -> Iterator[str]:
    """Writes the page of a run's best network; yields what to print: its path, its size, how it is served.

    Args:
      run_dir: directory of the run.
      output: the folder; None for ``export/web`` in the run directory.
      runtime: directory with onnxruntime-web; None for the cache, into which it is fetched once.
      say: called with a line before something is fetched or computed that takes a while.
      warn: called with a line if the run's card gives no result.

    Raises:
      UserError: there is no such run, it is a detector's, a package is missing, or the folder cannot be written.
      DamagedError: the checkpoint is damaged.
    """
    import_extra("onnx")
    require_task(rundir.read_description(run_dir)["config"], "classification", "export --format web")
    folder = check_folder(run_dir, output)
    runtime_files = find_runtime(runtime, say)
    files = contents(read_network(run_dir, say), runtime_files, card_text(run_dir, {"onnx": NETWORK}, warn=warn))
    write_folder(folder, files)
    yield str(folder)
    served = f"python -m http.server --bind 127.0.0.1 --directory {shlex.quote(printable(folder))}"
    yield f"{size(files)}; {served} serves it"


def size(files: dict[str, bytes]) -> str:
    """Returns the size of a page's files in words."""
    own, all_of_them = (
        sum(len(content) for name, content in files.items() if with_runtime or not name.startswith("ort/")) / 1e6
        for with_runtime in (False, True)
    )
    return f"{own:.2f} MB, and {all_of_them - own:.1f} MB of onnxruntime-web"


def check_folder(run_dir: Path, output: Path | None = None) -> Path:
    """Returns the path of the folder, if it may be written, or written again.

    Raises:
      UserError: it may not: it is a file, in another run, a run's own, or has something that this command has not made.
    """
    export = rundir.own_directory(run_dir, rundir.EXPORT)
    if output is None and not export.is_dir():
        return export / FOLDER
    folder = rundir.own_directory(export, FOLDER) if output is None else output
    outputs.check_directory(folder, "web", [run_dir], [FACTS])
    try:
        other = _foreign(folder)
    except (OSError, ValueError):
        other = FACTS
    if other:
        raise ConfigError(
            f"--output is {str(folder)!r}, which has a {other} that this command has not written; name a new directory"
        )
    return folder


def _foreign(folder: Path) -> str:
    """The name of something in a folder that is not of a page there; "" if there is none."""
    if not folder.is_dir() or not (entries := sorted(path.name for path in folder.iterdir())):
        return ""
    if FACTS not in entries:
        return entries[0]
    values = read_json(folder / FACTS)
    names = values["files"] if isinstance(values, dict) and isinstance(values.get("files"), list) else []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_ours = path.is_dir() if name == "ort" else name in names and path.is_file()
        if path.is_symlink() or not is_ours:
            return name
    return ""


def _sweep(target: Path, prefix: str) -> None:
    """Removes what killed processes have left beside a folder, or puts the old folder back if it was being replaced."""
    for stale in target.parent.glob(f"{glob.escape(prefix)}*"):
        if "-" in stale.name.removeprefix(prefix):
            # Of a neighbour whose name begins with that of the folder and a hyphen.
            continue
        with suppress(OSError):
            if time.time() - stale.stat().st_mtime > STALE_SECONDS:
                if (stale / "old").is_dir() and not target.exists():
                    (stale / "old").rename(target)
                shutil.rmtree(stale, ignore_errors=True)


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Writes a folder that ``check_folder`` has allowed: it holds the old files or the new ones, never some of both.

    Raises:
      RunDirError: it cannot be written; the old one is still there.
    """
    target = Path(os.path.realpath(folder))
    try:
        target.parent.mkdir(exist_ok=True)
        prefix = f".incomplete-{target.name}-"
        _sweep(target, prefix)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as work:
            new, old = Path(work, "new"), Path(work, "old")
            for name, content in files.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                with open(new / name, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            try:
                if target.exists():
                    target.rename(old)
                new.rename(target)
            except BaseException:
                if old.exists() and not target.exists():
                    old.rename(target)
                raise
    except OSError as error:
        hint = "fix that, or name another path with --output"
        raise RunDirError(f"cannot write {folder}: {error.strerror}; {hint}") from error
