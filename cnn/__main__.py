"""``python -m cnn <verb>``: each verb is one function of a module of the library."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Annotated, Literal

from cnn.cli import enable_compilation_cache, enable_onednn_bfloat16, exit_status, parse_options
from cnn.config import DataConfig, ExperimentConfig
from cnn.errors import ConfigError, DamagedError, DataError, UserError
from cnn.exchange.exporting import FormatName
from cnn.rules import integer, require
from cnn.run import default_run_dir, result_table


def data(data: DataConfig) -> None:
    """Fetch, verify and cache a data set."""
    from cnn.data.cache import prepare

    print(prepare(data))


def look(run_dir: Path, /, layer: str | None = None, image: Path | None = None) -> None:
    """Draw the figures of a finished run again; with --layer or --image, one layer: its kernels, and an image in it.

    Args:
        run_dir: Directory of the run.
        layer: Name of a layer, as summary.txt has it; without it, the last one that has pixels.
        image: PNG or JPEG file; without it, the first training image.
    """
    from cnn.look.pictures import draw_figures, draw_layer
    from cnn.runs.result import load_result

    if layer is not None or image is not None:
        print(*draw_layer(run_dir, layer, image), sep="\n")
        return
    config, result = load_result(run_dir)
    print(*draw_figures(run_dir, config, result), sep="\n")


def evaluate(run_dir: Path, /) -> None:
    """Say how good the best network of a run is, where it is wrong, and how sure it may be; draw and write it, too.

    Args:
        run_dir: Directory of the run.
    """
    from cnn.look.evaluation import evaluate_run, format_evaluation

    values, figures = evaluate_run(run_dir)
    print(format_evaluation(values))
    print(f"\nwrote {run_dir}/evaluation.json", *figures, sep="\n")


def report(run_dirs: tuple[Path, ...], /, output: Path | None = None) -> None:
    """Write a page on a run, with its curves, mistakes and layers; of several runs, a page that compares them.

    Args:
        run_dirs: Directories of finished runs; all others are compared with the first.
        output: The HTML file; without it, report.html in the run's directory, or comparison.html here.
    """
    from cnn.report.comparison import write_comparison
    from cnn.report.report import write_report

    if not run_dirs:
        raise ConfigError(
            "no run is named; python -m cnn report RUN_DIR writes the page of one, of several a comparison"
        )
    enable_compilation_cache()
    if len(run_dirs) == 1:
        print(f"wrote {write_report(run_dirs[0], output)}")
    else:
        print(f"wrote {write_comparison(run_dirs, output or Path('comparison.html'))}")


def cost(arguments: list[str]) -> None:
    """Say what a training step costs: compilation, FLOPs, memory, time, and its share of the machine's best.

    usage: python -m cnn cost EXPERIMENT [--profile DIRECTORY] [--FIELD VALUE] ...

      EXPERIMENT     Module of the experiment, such as experiments.fashion_cnn.
      --profile      Directory for a trace of some steps, which Perfetto, chrome://tracing and XProf open.
      --FIELD        Any field of the configuration, such as --optim.batch_size 128 or --model.dtype bfloat16.
    """
    import tyro

    from cnn.look.cost import format_cost, step_cost

    if not arguments or arguments[0].startswith("-"):
        raise ConfigError("the experiment comes first; python -m cnn cost experiments.fashion_cnn names one")
    name, *rest = arguments
    experiment = load_experiment(name)

    def measure(
        config: Annotated[ExperimentConfig, tyro.conf.arg(name="")] = experiment, profile: Path | None = None
    ) -> None:
        """Say what a training step costs.

        Args:
            config: The experiment.
            profile: Directory for a trace of some steps, which Perfetto, chrome://tracing and XProf open.
        """
        enable_onednn_bfloat16(config)
        print(format_cost(step_cost(config, profile=profile), f"a step of {name}, {config.optim.batch_size} images"))
        if profile:
            print(f"wrote a trace to {profile}; open its .trace.json.gz in Perfetto")

    parse_options(measure, f"python -m cnn cost {name}", rest)()


def verify(run_dir: Path, /) -> None:
    """Say which files and checkpoints of a run are whole; exit status 1 if one is not.

    Args:
        run_dir: Directory of the run.
    """
    from cnn.runs.verify import verify

    found = verify(run_dir)
    for name, problem in found.items():
        print(f"{name:20}  {problem or 'good'}")
    if damaged := [name for name, problem in found.items() if problem]:
        raise DamagedError(f"damaged in {run_dir}: {', '.join(damaged)}")


def predict(
    run_dir: Path, files: tuple[Path, ...], /, json: bool = False, invert: Literal["auto", "yes", "no"] = "auto"
) -> None:
    """Say what the best network of a run takes images for; exit status 2 if one cannot be read, after all others.

    Args:
        run_dir: Directory of the run.
        files: PNG or JPEG files, or directories of them; - for standard input.
        json: Print a JSON object for each.
        invert: Whether dark and light are exchanged; auto decides by each image's border, as the data is light on dark.
    """
    from cnn.data.image_files import image_files
    from cnn.look.prediction import predict_files

    if not files:
        raise DataError("no file is named; python -m cnn predict RUN_DIR FILE... takes PNG and JPEG files")
    unread = 0
    found = image_files(files)
    inverted = {"auto": None, "yes": True, "no": False}[invert]
    for line, is_read in predict_files(run_dir, found, inverted, json):
        print(line, flush=True)
        unread += not is_read
    if unread:
        which = f"{unread} of the {len(found)}" if len(found) > 1 else "the file"
        raise DataError(f"{which} could not be read; the lines above say why")


def export(run_dir: Path, /, format: FormatName, output: Path | None = None) -> None:
    """Write the best network of a run to a file that can be read, or run, without this project.

    Args:
        run_dir: Directory of the run.
        format: safetensors holds the weights; stablehlo and onnx the network too, from pixels to probabilities.
        output: The file; without it, export/model.FORMAT in the directory of the run.
    """
    from cnn.exchange.exporting import export_run

    print(export_run(run_dir, format, output))


def import_(file: Path, /, run_dir: Path | None = None, experiment: str | None = None) -> None:
    """Make a run of weights that were trained elsewhere: in Keras, in PyTorch, or here and exported as safetensors.

    Args:
        file: FILE.keras, FILE.pt from torch.save(model.state_dict(), ...), or FILE.safetensors.
        run_dir: Directory that is made for the run; without it, runs/NAME/TIME, the time in UTC.
        experiment: Module of the experiment with that architecture, such as experiments.alexnet; without it, what a
            safetensors file says, or else experiments.fashion_cnn.
    """
    from cnn.exchange.importing import import_run, load_weights

    state, config = load_weights(file, load_experiment(experiment) if experiment else None)
    run_dir = run_dir or default_run_dir(config.name)
    print(result_table(import_run(file, run_dir, state, config)))
    print(f"run directory: {run_dir}")


def sweep(arguments: list[str]) -> None:
    """Train with every combination of some values, and several seeds each; then print a table.

    usage: python -m cnn sweep EXPERIMENT [--seeds N] [--run-dir DIRECTORY] [--FIELD VALUE VALUE ...] ...

      EXPERIMENT     Module of the experiment, such as experiments.fashion_cnn.
      --seeds        How many seeds, from 0; 1 if left out.
      --run-dir      Directory for runs and table; the same command on it goes on. Without it, runs/NAME/sweep-FIELDS,
                     where the table is that of the last sweep of these fields.
      --FIELD        Any field of the configuration but name and seed, such as --augment.flip true false.
    """
    from cnn.runs import sweeps

    if not arguments or arguments[0].startswith("-"):
        raise ConfigError("no experiment is named; python -m cnn sweep experiments.fashion_cnn --seeds 3 names one")
    config, grid = load_experiment(arguments[0]), sweeps.parse_grid(arguments[1:])
    options = {name: grid.pop(name, default) for name, default in (("seeds", [1]), ("run_dir", [None]))}
    for name, values in options.items():
        if len(values) != 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {values}, but must be one value")
    (seeds,), (run_dir,) = options.values()
    several = integer(1)
    require(several.holds(seeds), "seeds", seeds, several.allowed)
    default = Path("runs", config.name, f"sweep-{'-'.join(grid) or 'seeds'}")
    directory = default if run_dir is None else Path(run_dir)
    variants = sweeps.variants(config, grid)
    enable_onednn_bfloat16(*(variant.config for variant in variants))
    print(f"{len(variants)} combinations, {seeds} seeds each, in {directory}", flush=True)
    enable_compilation_cache()
    try:
        found = sweeps.sweep(config, grid, range(seeds), directory, report=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print(f"stopped; the same command with --run-dir {directory} goes on from there", file=sys.stderr)
        raise
    print(f"\n{sweeps.table(found)}\nwrote {directory}/table.md and sweep.json")


def load_experiment(name: str) -> ExperimentConfig:
    """Returns the CONFIG of an experiment's module.

    Raises:
      ConfigError: there is no such module, or it has none.
    """
    try:
        config = getattr(importlib.import_module(name), "CONFIG", None)
    except ImportError as error:
        raise ConfigError(f"cannot import {name!r} ({error}); name a module such as experiments.fashion_cnn") from None
    if not isinstance(config, ExperimentConfig):
        raise ConfigError(f"{name!r} has no CONFIG; name a module such as experiments.fashion_cnn")
    return config


VERBS = {
    "data": data,
    "look": look,
    "predict": predict,
    "verify": verify,
    "cost": cost,
    "sweep": sweep,
    "evaluate": evaluate,
    "report": report,
    "export": export,
    "import": import_,
}


def main(arguments: list[str]) -> None:
    """Runs the verb that the command line begins with."""
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help"):
        print("usage: python -m cnn VERB ...; python -m cnn VERB --help tells more\n")
        for name, function in VERBS.items():
            print(f"  {name:10}{(function.__doc__ or '').splitlines()[0]}")
    elif verb in ("sweep", "cost"):
        # Their options are fields of an experiment.
        asked = {"-h", "--help"} & set(rest if verb == "sweep" else rest[:1])
        print(inspect.getdoc(VERBS[verb])) if asked else VERBS[verb](rest)
    elif verb in VERBS:
        parse_options(VERBS[verb], f"python -m cnn {verb}", rest)()
    else:
        raise UserError(f"{verb!r} is not a verb of python -m cnn; the verbs are {', '.join(VERBS)}")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
