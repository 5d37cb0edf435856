"""What an experiment's ``main()`` calls: command line -> fit -> figures and report -> the table of results."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import jax

from cnn.cli import enable_compilation_cache, enable_onednn_bfloat16, exit_status, parse_options, refuse_idle
from cnn.config import ExperimentConfig
from cnn.data.splits import Splits
from cnn.devices.processes import is_primary, join_processes, leave
from cnn.devices.sharding import make_mesh, usable_cores
from cnn.errors import ConfigError, DamagedError, RunDirError, Stopped, report_and_exit
from cnn.resolution import resolve_as
from cnn.runs import outputs, rundir
from cnn.text import one_line, printable, reason

# An experiment, which imports this, is constructed before it calls main(): a wrong value in it is one line, too.
sys.excepthook = report_and_exit


def main(config: ExperimentConfig, splits: Splits | None = None) -> None:
    """Runs an experiment with the options of the command line, and exits.

    Args:
      config: the experiment's own values, which are the defaults of the options.
      splits: images to use instead of those that the configuration names.
    """
    import tyro

    defaults = config

    def experiment(
        config: Annotated[ExperimentConfig, tyro.conf.arg(name="")] = config,
        run_dir: Path | None = None,
        distributed: bool = False,
        coordinator: str | None = None,
        processes: int | None = None,
        process_index: int | None = None,
    ) -> None:
        """Train, keep the best, and look inside.

        Args:
            config: The experiment.
            run_dir: Directory for everything that the run writes; the same command on it resumes an unfinished run.
                Default: runs/NAME/TIME, the time in UTC.
            distributed: Be one of several processes, started by SLURM, Kubernetes or a TPU pod, or named by the next
                three options; all need the same --run-dir on a shared disk.
            coordinator: HOST:PORT at which the primary process listens.
            processes: Number of processes.
            process_index: Index of this process, from 0.
        """
        refuse_idle(defaults, config)
        cluster = coordinator, processes, process_index
        if distributed:
            if run_dir is None:
                raise ConfigError("--distributed needs --run-dir, a directory that all processes can read")
            join_processes(*cluster)
            # That has installed a handler of JAX's, which ends nothing.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        elif cluster != (None, None, None):
            raise ConfigError("--coordinator, --processes and --process-index are for --distributed; add it")
        if config.model.family.startswith("__main__."):
            name = sys.argv[0].removesuffix(".py").replace("/", ".")
            raise ConfigError(f"a network that is run as a script cannot be found again; run python -m {name}")
        with named_or_new(run_dir, config.name) as directory:
            run(config, directory, splits)

    program = f"python -m experiments.{config.name}"
    leave(lambda: parse_options(experiment, program, sys.argv[1:])(), exit_status)


def default_run_dir(name: str, root: Path = Path("runs")) -> Path:
    """Makes and returns a directory for a run that starts now; other runs of the same second have other directories.

    Raises:
      RunDirError: a symbolic link leads it out of ``root``, or it cannot be made.
    """
    parent, time_utc = root / name, datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    if not parent.resolve().is_relative_to(root.resolve()):
        raise RunDirError(f"{parent} leads out of {root}, to {parent.resolve()}; name it with --run-dir")
    outputs.check_new_run(parent / time_utc)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        path, number = parent / time_utc, 1
        while True:
            try:
                path.mkdir()
                return path
            except FileExistsError:
                number += 1
                path = parent / f"{time_utc}-{number}"
    except OSError as error:
        raise RunDirError(f"cannot make a directory in {parent}: {error.strerror}; name one with --run-dir") from error


@contextlib.contextmanager
def named_or_new(run_dir: Path | None, name: str) -> Iterator[Path]:
    """Gives the directory that the user names, else a new one, which is removed if nothing is written into it."""
    if run_dir is not None:
        yield run_dir
        return
    made = [path for path in (Path("runs", name), Path("runs")) if not path.exists()]
    run_dir = default_run_dir(name)
    try:
        yield run_dir
    finally:
        with contextlib.suppress(OSError):
            if os.listdir(run_dir) == [rundir.LOCK]:
                (run_dir / rundir.LOCK).unlink()
            for path in (run_dir, *made):
                path.rmdir()


def run(config: ExperimentConfig, run_dir: Path, splits: Splits | None = None) -> None:
    """Trains or resumes, unless the run is finished; draws the figures if they are missing; prints the result."""
    enable_onednn_bfloat16(config)
    enable_compilation_cache()
    finished = rundir.is_finished(run_dir, config)
    result = _fit(config, run_dir, splits, finished)
    if not is_primary():
        return
    if finished:
        print("this run has finished; name another --run-dir to train again")
    print(result_table(result.summary), flush=True)
    drawn = "figures" in result.summary["seconds"] and (run_dir / rundir.FIGURES).is_dir()
    if config.log.figures and not drawn:
        _draw(config, run_dir, result, splits)
    elif config.log.figures and not (run_dir / rundir.REPORT).exists():
        write_page(run_dir, splits)
    print(f"run directory: {printable(run_dir)}")


def _fit(config: ExperimentConfig, run_dir: Path, splits: Splits | None, finished: bool) -> Any:
    """``fit`` with the progress on the terminal, and with what its exceptions mean to a user."""
    from cnn.look.tracking import tracked
    from cnn.report.live import live_page
    from cnn.runs.fit import fit

    devices = make_mesh(config.mesh, config.train.device).devices.ravel()
    _say(f"{config.name} on {device_name(devices)}, run directory {printable(run_dir)}")
    if (run_dir / rundir.HISTORY).exists() and not finished:
        _say(f"found an unfinished run; its epochs so far: {printable(run_dir / rundir.HISTORY)}")
    try:
        with (
            tracked(config, run_dir, splits, warn) as track,
            live_page(config, run_dir, splits, warn) as show,
            progress(config.train.epochs) as report,
        ):

            def track_and_show(row, state):
                track(row, state)
                show(row, state)

            return fit(config, run_dir, splits, report, warn, track_and_show)
    except KeyboardInterrupt as stop:
        reached = str(stop) if isinstance(stop, Stopped) and str(stop) else "stopped"
        _say(one_line(f"{reached}; the same command with --run-dir {run_dir} resumes it"), sys.stderr)
        raise
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise DamagedError(f"this process or another has failed ({reason(error)}); start all again") from error


def _draw(config: ExperimentConfig, run_dir: Path, result: Any, splits: Splits | None) -> None:
    """Draws the figures, keeps what the unknown is told by, notes the seconds that took, and writes the report."""
    from cnn.look.run_figures import draw_figures
    from cnn.runs.result import load_images
    from cnn.trust.reference import keep_reference

    _say(f"drawing {printable(run_dir / rundir.FIGURES)}")
    start = time.perf_counter()
    # With what it had left to its data, such as the names of the classes.
    config = resolve_as(config, rundir.read_description(run_dir)["config"])
    splits = splits or load_images(run_dir, config.data)
    draw_figures(run_dir, config, result, splits)
    # The run has released its directory, and another may have taken its place meanwhile.
    if rundir.read_result(run_dir) == result.summary:
        if config.model.task == "classification":
            keep_reference(run_dir, result.state, splits)
        seconds = {**result.summary["seconds"], "figures": time.perf_counter() - start}
        # If it is killed before there is a new one, the same command writes it.
        with contextlib.suppress(OSError):
            (run_dir / rundir.REPORT).unlink()
        rundir.write_result(run_dir, {**result.summary, "seconds": seconds})
        write_page(run_dir, splits)


def write_page(run_dir: Path, splits: Splits | None = None) -> None:
    """Writes report.html, or warns: the run is complete without it."""
    from cnn.report.report import write_report

    _say(f"writing {printable(run_dir / rundir.REPORT)}")
    try:
        write_report(run_dir, splits=splits)
    except Exception as error:
        warn(f"the report is not written: {reason(error)}; python -m cnn report {run_dir} tries again")


def _say(line: str, stream: Any = None) -> None:
    """Prints a line, on the primary process only."""
    if is_primary():
        print(line, file=stream, flush=True)


def note(line: str) -> None:
    """Prints what a command does besides its output."""
    _say(line, sys.stderr)


def warn(line: str) -> None:
    """Prints a problem that does not stop the run."""
    _say(f"warning: {one_line(line)}", sys.stderr)


def device_name(devices: Any) -> str:
    """Returns what a user calls JAX's devices: their kind and number, or for a CPU the cores that it may use."""
    first, number = devices[0], len(devices)
    name = f"cpu ({usable_cores()} cores)" if first.platform == "cpu" else f"{first.platform} ({first.device_kind})"
    return name if number == 1 else f"{number} x {name}"


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """Returns an epoch's numbers on a line that fits into 80 columns."""
    score = f"accuracy {row['train_accuracy']:.4f} (val {row['val_accuracy']:.4f})"
    if "val_map" in row:
        score = f"val mAP {row['val_map']:.4f} (IoU 0.5 {row['val_map_50']:.4f})"
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  "
        f"loss {row['train_loss']:.4f} (val {row['val_loss']:.4f})  {score}  {row['seconds']:.1f} s"
    )


@contextlib.contextmanager
def progress(epochs: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives a function that prints an epoch's row: above a progress bar on a terminal, as a plain line when piped."""
    if not is_primary():
        yield lambda row: None
        return
    if not sys.stdout.isatty():
        yield lambda row: print(epoch_line(row, epochs), flush=True)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("epochs", total=epochs)

        def report(row):
            bar.console.print(epoch_line(row, epochs), highlight=False)
            bar.update(task, completed=row["epoch"])

        yield report


def result_table(summary: dict[str, Any]) -> str:
    """Returns the result of a run as a small table."""
    sets = {"val": "validation", "test": "test", "tta_test": "test, TTA"}
    heads = {"loss": "loss", "accuracy": "accuracy", "map": "mAP", "map_50": "mAP 0.5"}
    heads = {name: head for name, head in heads.items() if any(f"{key}_{name}" in summary for key in sets)}
    widths = [10, *[12] * (len(heads) - 1)]
    rule = "-" * (12 + sum(widths))

    def line(title: str, cells: Iterable[str]) -> str:
        return f"{title:12}{''.join(f'{cell:>{width}}' for cell, width in zip(cells, widths, strict=True))}".rstrip()

    def cells(name: str) -> list[str]:
        values = [summary.get(f"{name}_{head}") for head in heads]
        return ["" if value is None else f"{value:.4f}" for value in values]

    numbers = "".join(f"{line(title, cells(name))}\n" for name, title in sets.items() if f"{name}_loss" in summary)
    seconds = ", ".join(f"{phase} {value:.1f}" for phase, value in summary["seconds"].items())
    origin = f"best epoch {summary['best_epoch']} of {summary['stopped_epoch']}"
    if "imported" in summary:
        origin = f"imported from {summary['imported']['file']}"
    return (
        f"\n{line('', heads.values())}\n{rule}\n"
        f"{numbers}{rule}\n"
        f"{origin}, {summary['params']:,} parameters\n"
        f"seconds: {seconds}"
    )
