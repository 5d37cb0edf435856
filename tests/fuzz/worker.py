"""The process in which examples run: a command's main() in it, its output, and what it changed; and its watchdog."""

import contextlib
import io
import os
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.forked import PROCESSES
from tests.fuzz import calls, world
from tests.fuzz.sandbox import MAKES_NOT, TRAINS_NOT, Settled, guard, prepare_libraries, published
from tests.fuzz.world import Mutation, World

MEMORY_BYTES = 2 << 30
"""Address space that an example may use beyond that of the process when it is ready."""

TINY = (
    *("--model.conv1_features", "2", "--model.conv2_features", "2", "--model.dense_features", "4"),
    *("--optim.batch_size", "16", "--train.epochs", "2", "--log.no_figures"),
)
"""Of experiments.fashion_cnn: the runs of the tree."""


class Example(NamedTuple):
    """What is run: a command line, perhaps after a mutation of a run's file, or a function with a wrong value."""

    kind: str
    """line, mutation or call."""
    module: str = ""
    arguments: tuple[str, ...] = ()
    trains: bool = False
    """Whether an accepted command line computes; otherwise it ends when it is about to."""
    mutation: Mutation | None = None
    call: calls.Call | None = None


class Outcome(NamedTuple):
    """What became of an example."""

    status: Any = None
    """The exit status; None of a call that returned."""
    stdout: str = ""
    stderr: str = ""
    changes: dict[str, tuple[str, str]] = {}
    """Added, removed or changed, and the digest, by path in the tree."""
    error: str = ""
    """The traceback of what was raised."""
    raised: tuple[str, str] = ("", "")
    """Its type and its text."""
    outside: tuple[str, ...] = ()
    """What the example tried to write outside of the tree."""
    mutation: str = ""
    """The mutation in words."""
    died: str = ""
    """How the process ended before it answered."""


SAME = " (the same content)"
"""Ends the words of a mutation that changes nothing that this process reads, such as permissions of root's files."""


class Settings(NamedTuple):
    """Of a worker."""

    place: Path
    """Directory for everything that it writes."""
    compiled: str
    """Directory of compiled programs."""


class Worker:
    """A process that answers one example after the other; a new one takes its place when it dies or hangs."""

    def __init__(self, settings: Settings, timeout: float):
        self._settings, self._timeout = settings, timeout
        self._process: Any = None

    def _start(self) -> None:
        self._connection, theirs = PROCESSES.Pipe()
        # Not before: a directory that a dead process has left may be in any state.
        shutil.rmtree(self._settings.place / "world", ignore_errors=True)
        self._process = PROCESSES.Process(target=_serve, args=(self._settings, theirs), daemon=True)
        self._process.start()
        theirs.close()
        if not self._connection.poll(200) or self._connection.recv() != "ready":
            raise RuntimeError("the worker does not start")
        self._first = _address_space(self._process.pid)

    def run(self, example: Example, timeout: float | None = None) -> Outcome:
        """Returns the outcome of an example."""
        # What thousands of commands leave in one process, no command of a user finds.
        if self._process is not None and _address_space(self._process.pid) > self._first + MEMORY_BYTES // 4:
            self.stop()
        if self._process is None:
            self._start()
        try:
            self._connection.send(example)
            if self._connection.poll(timeout or self._timeout):
                return self._connection.recv()
            died = "hang"
        except (EOFError, OSError):
            assert self._process
            self._process.join(10)
            died = f"exit code {self._process.exitcode}"
        self.stop()
        return Outcome(died=died)

    def stop(self) -> None:
        """Ends the process; the next example starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def _address_space(process: int | str) -> int:
    """Bytes of the memory that a process has mapped; 0 if it has ended."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[0]) * resource.getpagesize()
    return 0


def _serve(settings: Settings, connection: Any) -> None:
    """The worker's loop."""
    place = settings.place
    for name in ("tmp", "cache", "home"):
        (place / name).mkdir(exist_ok=True)
    os.environ.update(
        XDG_CACHE_HOME=str(place / "cache"),
        HOME=str(place / "home"),
        TMPDIR=str(place / "tmp"),
        MPLCONFIGDIR=str(place / "cache"),
        JAX_COMPILATION_CACHE_DIR=settings.compiled,
    )
    for name in ("FASHION_MNIST_DIR", "KERAS_HOME"):
        os.environ.pop(name, None)
    tempfile.tempdir = str(place / "tmp")
    sys.dont_write_bytecode = True
    prepare_libraries(settings.compiled)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    outside = guard([str(place), os.path.realpath(settings.compiled)])
    if not (place / "pristine").exists():
        _build(place / "building")
        (place / "building").rename(place / "pristine")
    tree = World(place / "pristine", place / "world")
    tree.reset()
    # What JAX and its libraries take once is no example's: some of each worker's first ones had no memory left.
    os.chdir(tree.root / "work")
    _command("cnn", ("predict", "runs/good", "files/boot.png"))
    os.chdir(tree.root)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space("self") + MEMORY_BYTES, resource.RLIM_INFINITY))
    connection.send("ready")
    before = world.snapshot(tree.root)
    with contextlib.suppress(EOFError):
        while True:
            example = connection.recv()
            outcome, before = _run(example, tree, before, outside)
            connection.send(outcome)


def _build(root: Path) -> None:
    """Makes the tree: runs that are finished, stopped, imported, of a sweep; images, weights, notes, a pipe, links."""
    import numpy as np
    from PIL import Image

    from cnn.data import idx
    from tests.helpers import Interrupted

    shutil.rmtree(root, ignore_errors=True)
    work = root / "work"
    work.mkdir(parents=True)
    os.chdir(work)
    for name in ("published", "files", "empty"):
        Path(name).mkdir()
    for field, content in published().items():
        Path("published", idx.IDX_FILES[field].name).write_bytes(content)

    def run(module: str, *arguments: str) -> None:
        outcome = _command(module, arguments)
        if outcome.status:
            raise RuntimeError(f"{module} {arguments}: {outcome}")

    run("cnn", "data", "--data.source", "published")
    run("experiments.fashion_cnn", *TINY, "--run-dir", "runs/good")
    run("experiments.fashion_cnn", *TINY, "--train.seed", "1", "--run-dir", "runs/other")
    with contextlib.suppress(Interrupted):
        calls.interrupted_run(TINY, "runs/stopped")
    run("cnn", "export", "runs/good", "--format", "safetensors")
    run("cnn", "export", "runs/good", "--format", "safetensors", "--output", "files/weights.safetensors")
    run("cnn", "import", "files/weights.safetensors", "--run-dir", "runs/imported")
    run("cnn", "evaluate", "runs/good")
    # It also keeps what says that an image is unlike the training images.
    run("cnn", "evaluate", "runs/good", "--unknown")
    run("cnn", "sweep", "experiments.fashion_cnn", *_as_grid(), "--run-dir", "runs/swept")
    image = np.random.default_rng(1).integers(0, 255, (28, 28), np.uint8)
    for name in ("boot.png", "bag.gif", *(f"classes/{kind}/{number}.png" for kind in "ab" for number in range(5))):
        Path("files", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(f"files/{name}")
    Path("files/notes.txt").write_text("mine\n")
    Path("files/values.json").write_text('{"mine": 1}\n')
    os.mkfifo("files/pipe")
    Path("files/null").symlink_to("/dev/null")
    Path("files/nowhere").symlink_to("missing")
    Path("files/to_good").symlink_to("../runs/good")


def _as_grid() -> list[str]:
    """TINY as options of a sweep."""
    fields = [text for text in TINY if text != "--log.no_figures"]
    return [*fields[:-1], "1"]


def _run(example: Example, tree: World, before: world.Snapshot, outside: list[str]) -> tuple[Outcome, world.Snapshot]:
    """Returns an example's outcome, and the snapshot of the tree, pristine again."""
    os.chdir(tree.root / "work")
    outside.clear()
    words, start = "", before
    if example.mutation:
        file = world.labels(tree.root)[example.mutation.file]
        words = world.mutate(tree.root, example.mutation, ("work/runs/good/", "work/runs/other/"))
        if world.digest(file) == world.digest(tree.pristine / file.relative_to(tree.root)):
            words += SAME
        start = world.snapshot(tree.root)
    if example.kind != "mutation" and not example.trains:
        TRAINS_NOT.set()
    # Those of the other experiments take seconds.
    if example.kind == "line" and example.module != "experiments.fashion_cnn" and example.arguments[:1] != ("import",):
        MAKES_NOT.set()
    if call := example.call:
        outcome = _captured(lambda: calls.run(call))
    else:
        outcome = _command(example.module, example.arguments)
    TRAINS_NOT.clear()
    MAKES_NOT.clear()
    after = world.snapshot(tree.root)
    changes = {}
    for path in start.keys() | after.keys():
        if start.get(path) != after.get(path):
            what = "added" if path not in start else "removed" if path not in after else "changed"
            good = tree.pristine / path
            same = what == "changed" and start.get(path) == before.get(path)
            # A finished run that gets its figures notes the seconds that they took.
            content = world.meaning if good.name == "result.json" else world.digest
            if not (same and content(tree.root / path) == content(good)):
                changes[path] = what, world.meaning(tree.root / path)
    os.chdir(tree.root)
    if touched := [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]:
        tree.restore(touched)
        after = world.snapshot(tree.root)
    return outcome._replace(changes=changes, outside=tuple(outside), mutation=words), after


def _command(module: str, arguments: tuple[str, ...] | list[str]) -> Outcome:
    """The outcome of ``python -m MODULE ARGUMENTS``."""
    from cnn import cli, run
    from cnn.__main__ import main
    from cnn.cli import load_experiment

    def command() -> Any:
        if module == "cnn":
            return cli.exit_status(lambda: main(list(arguments)))
        sys.argv = [module, *arguments]
        run.main(load_experiment(module))

    return _captured(command)


def _captured(function: Callable[[], Any]) -> Outcome:
    """What a function prints, by whatever library, and how it ends."""
    status, error, raised = None, "", ("", "")
    saved = os.dup(1), os.dup(2)
    files = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    for number, file in enumerate(files, 1):
        os.dup2(file.fileno(), number)
    streams = sys.stdout, sys.stderr
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(open(2, "wb", 0, closefd=False), encoding="utf-8", write_through=True)
    try:
        # As of a process of its own: the filters that Python starts with.
        with warnings.catch_warnings():
            warnings.resetwarnings()
            for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", category)
            try:
                status = function()
            except SystemExit as stop:
                status = stop.code or 0
            except Settled:
                status = 0
            except BaseException as exception:
                status, error = 1, traceback.format_exc()
                raised = f"{type(exception).__module__}.{type(exception).__name__}", str(exception)
            with contextlib.suppress(Exception):
                sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = streams
        for number, descriptor in enumerate(saved, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
    texts = []
    for file in files:
        file.seek(0)
        texts.append(file.read(1_000_000).decode("utf-8", "backslashreplace"))
        file.close()
    _tidy()
    return Outcome(status, *texts, error=error, raised=raised)


def _tidy() -> None:
    """Closes what a failed command has left open."""
    import matplotlib.pyplot as plt

    plt.close("all")
