"""``python -m cnn <verb>``: the verbs of ``cnn/verbs.py``, and those that take an experiment and its fields."""

import inspect
import sys
from pathlib import Path
from typing import Annotated

from cnn import verbs
from cnn.cli import (
    enable_compilation_cache,
    enable_onednn_bfloat16,
    exit_status,
    parse_options,
    refuse_idle,
    split_experiment,
)
from cnn.config import ExperimentConfig
from cnn.errors import ConfigError, UserError
from cnn.rules import integer, require
from cnn.text import printable, shown


def cost(arguments: list[str]) -> None:
    """Measure a training step: compilation, FLOPs, memory, time, and its share of the machine's matmul rate.

    usage: python -m cnn cost EXPERIMENT [--profile DIRECTORY] [--FIELD VALUE] ...

      EXPERIMENT     Module of the experiment, such as experiments.fashion_cnn.
      --profile      Directory for a trace of some steps, which Perfetto, chrome://tracing and XProf open.
      --FIELD        Any field of the configuration, such as --optim.batch_size 128 or --model.dtype bfloat16.
    """
    import tyro

    from cnn.look.cost import IDLE, format_cost, step_cost

    if {"-h", "--help"} & set(arguments[:1]):
        print(inspect.getdoc(cost))
        return
    name, experiment, rest = split_experiment(arguments)

    def measure(
        config: Annotated[ExperimentConfig, tyro.conf.arg(name="")] = experiment, profile: Path | None = None
    ) -> None:
        """Measure a training step.

        Args:
            config: The experiment.
            profile: Directory for a trace of some steps, which Perfetto, chrome://tracing and XProf open.
        """
        refuse_idle(experiment, config, IDLE)
        enable_onednn_bfloat16(config)
        print(format_cost(step_cost(config, profile=profile), f"a step of {name}, {config.optim.batch_size} images"))
        if profile:
            print(f"wrote a trace to {profile}; open its .trace.json.gz in Perfetto")

    parse_options(measure, f"python -m cnn cost {name}", rest)()


def sweep(arguments: list[str]) -> None:
    """Train with every combination of some values, and several seeds each; then print a table.

    usage: python -m cnn sweep EXPERIMENT [--seeds N] [--run-dir DIRECTORY] [--FIELD VALUE VALUE ...] ...

      EXPERIMENT     Module of the experiment, such as experiments.fashion_cnn.
      --seeds        Number of seeds, from 0. Default: 1.
      --run-dir      Directory for runs and table; the same command on it resumes. Default: runs/NAME/sweep-FIELDS, with
                     the table of the last sweep of these fields.
      --FIELD        Any field of the configuration but name and seed, such as --augment.flip true false.
    """
    from cnn.runs import sweeps

    if {"-h", "--help"} & set(arguments):
        print(inspect.getdoc(sweep))
        return
    _, config, rest = split_experiment(arguments)
    grid = sweeps.parse_grid(rest)
    options = {name: grid.pop(name, default) for name, default in (("seeds", [1]), ("run_dir", [None]))}
    for name, values in options.items():
        if len(values) != 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {shown(values)}, but must be one value")
    (seeds,), (run_dir,) = options.values()
    several = integer(1, sweeps.MAX_RUNS)
    require(several.holds(seeds), "seeds", seeds, several.allowed)
    default = Path("runs", config.name, f"sweep-{'-'.join(grid) or 'seeds'}")
    directory = default if run_dir is None else Path(run_dir)
    if idle := [field for field in grid if field.startswith("log.")]:
        raise ConfigError(f"--{idle[0]} has no effect in a sweep, whose runs draw and log nothing; leave it out")
    variants = sweeps.variants(config, grid)
    enable_onednn_bfloat16(*(variant.config for variant in variants))
    print(f"{len(variants)} combinations, {seeds} seeds each, in {printable(directory)}", flush=True)
    enable_compilation_cache()
    try:
        tried = sweeps.sweep(config, grid, range(seeds), directory, report=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print(f"stopped; the same command with --run-dir {printable(directory)} resumes", file=sys.stderr)
        raise
    print(f"\n{sweeps.table(tried)}\nwrote {printable(directory)}/table.md and sweep.json")


VERBS = {
    "data": verbs.data,
    "look": verbs.look,
    "predict": verbs.predict,
    "verify": verbs.verify,
    "evaluate": verbs.evaluate,
    "report": verbs.report,
    "labels": verbs.labels,
    "export": verbs.export,
    "play": verbs.play,
    "import": verbs.import_,
}

EXPERIMENT_VERBS = {"cost": cost, "sweep": sweep}
"""These take the fields of an experiment as options, and parse them themselves."""


def main(arguments: list[str]) -> None:
    """Runs the verb that the command line starts with."""
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help"):
        print("usage: python -m cnn VERB ...; python -m cnn VERB --help tells more\n")
        for name, function in (VERBS | EXPERIMENT_VERBS).items():
            print(f"  {name:10}{(function.__doc__ or '').splitlines()[0]}")
    elif verb in EXPERIMENT_VERBS:
        EXPERIMENT_VERBS[verb](rest)
    elif verb in VERBS:
        command = parse_options(VERBS[verb], f"python -m cnn {verb}", rest)
        enable_compilation_cache()
        command()
    else:
        names = ", ".join(VERBS | EXPERIMENT_VERBS)
        raise UserError(f"{shown(verb)} is not a verb of python -m cnn; the verbs are {names}")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
