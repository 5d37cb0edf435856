"""An experiment with every combination of some values, and several seeds each: a run for each, then a table."""

import contextlib
import dataclasses
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cnn.config import ExperimentConfig
from cnn.data.splits import Splits, check_splits, data_digest, load_named
from cnn.devices.sharding import find_devices, make_mesh
from cnn.errors import ConfigError, RunDirError
from cnn.intervals import Estimate, estimate
from cnn.rules import FILE, FUNCTION, GRID, YES_NO, checked, instance, optional
from cnn.runs import outputs, rundir
from cnn.runs.fit import fit
from cnn.runs.seeds import MAX_RUNS, check_seeds, fit_seeds
from cnn.runs.transfer import check_transfer
from cnn.serialization import from_dict
from cnn.text import parse_json, printable, read_json, shown

TABLE, SWEEP, SEEDS = "table.md", "sweep.json", "seeds.json"

NUMBERS = ("val_loss", "val_accuracy", "test_loss", "test_accuracy")
MAPS = ("val_map", "test_map")
"""Of a detector's runs, mean average precision."""

ROW = (*NUMBERS, *MAPS, "best_epoch", "stopped_epoch", "tta_test_loss", "tta_test_accuracy")


class Variant(NamedTuple):
    """One combination of values, and the results of its seeds."""

    changes: dict[str, Any]
    """Value by field, such as ``{"augment.flip": True}``."""
    config: ExperimentConfig
    rows: list[dict[str, Any]]
    """A seed's ``seed``, and its losses, accuracies and epochs, or ``diverged`` with the reason."""

    @property
    def name(self) -> str:
        """The changes in words; also the name of its directory."""
        return ",".join(f"{field}={_text(value)}" for field, value in self.changes.items()) or "as-it-is"

    @property
    def estimates(self) -> dict[str, Estimate]:
        """Mean, standard deviation and 95 % interval of each loss and score over the seeds that did not diverge."""
        finished = [row for row in self.rows if "diverged" not in row]
        names = [name for name in (*NUMBERS, *MAPS) if all(name in row for row in finished)]
        return {name: estimate([row[name] for row in finished]) for name in names} if finished else {}


def _text(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, (tuple, list)):
        return "-".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value).replace("/", "_")


def variants(config: ExperimentConfig, grid: Mapping[str, Sequence[Any]]) -> list[Variant]:
    """Returns every combination of the values of some fields; without fields, the experiment itself.

    Args:
      config: the experiment.
      grid: values by field, such as ``{"augment.flip": [True, False], "optim.learning_rate": [0.01, 0.02]}``.

    Raises:
      ConfigError: a field is unknown, or the seed or the name, or has no value, a wrong one, or one twice.
    """
    combinations = []
    if fixed := {"name", "train.seed"} & grid.keys():
        raise ConfigError(f"{min(fixed)} cannot be compared; --seeds sets the number of seeds")
    if empty := [field for field, values in grid.items() if not len(values)]:
        raise ConfigError(f"--{empty[0]} has no value; name some, such as --augment.flip true false")
    if (count := math.prod(map(len, grid.values()))) > MAX_RUNS:
        raise ConfigError(f"the values have {count:,} combinations, but at most {MAX_RUNS:,} are tried; name fewer")
    for values in itertools.product(*grid.values()):
        changes, changed = dict(zip(grid, values, strict=True)), dataclasses.asdict(config)
        for field, value in changes.items():
            *groups, name = field.split(".")
            group = changed
            for part in groups:
                group = group.get(part)
                if not isinstance(group, dict):
                    raise ConfigError(f"unknown field {field}; name one such as optim.learning_rate")
            group[name] = value
        combinations.append(Variant(changes, from_dict(changed), []))
    names = [variant.name for variant in combinations]
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise ConfigError(f"{twice[0]} is given twice; name each value once")
    return combinations


@checked(config=instance(ExperimentConfig), grid=GRID, directory=FILE, report=FUNCTION, together=optional(YES_NO))
def sweep(
    config: ExperimentConfig,
    grid: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    directory: str | Path,
    splits: Splits | None = None,
    report: Callable[[str], None] = lambda line: None,
    together: bool | None = None,
) -> list[Variant]:
    """Trains every variant with every seed, and writes table.md and sweep.json to a directory.

    Each run has its own run directory in it, so that the same call resumes where it was stopped, and finished runs are
    not repeated. A run whose loss is not finite is listed in the table as diverged, and the others continue.

    Args:
      config: the experiment.
      grid: values by field, as of ``variants``.
      seeds: of every variant.
      directory: for the runs and the table.
      splits: images to use instead of those that the configuration names.
      report: called with a line for each finished run.
      together: train the seeds of a variant in one call, without run directories, transfer, test-time augmentation
        and monitor; by default on an accelerator, unless a variant needs one of them.

    Raises:
      UserError: configuration, images or directory cannot be used; a wrong value is found before the first run.
    """
    check_seeds(seeds)
    directory, tried = Path(directory), variants(config, grid)
    if together is None:
        on_cpu = find_devices(config.train.device)[0].platform == "cpu"
        together = not on_cpu and not any(
            variant.config.transfer.source
            or variant.config.augment.test_time
            or variant.config.train.monitor != "val_loss"
            for variant in tried
        )
    # Variants of the same data share its arrays.
    images = cache(lambda data: load_named(data) if splits is None else (data, splits))
    resolved = []
    for variant in tried:
        data, loaded = images(variant.config.data)
        config = check_splits(dataclasses.replace(variant.config, data=data), loaded)
        make_mesh(config.mesh, config.train.device)
        check_transfer(config, len(loaded.train.labels))
        resolved.append((variant._replace(config=config), loaded))
    for variant, loaded in resolved:
        _check_place(variant, seeds, directory / variant.name, data_digest(loaded) if together else None)
    outputs.check_beginning(directory / TABLE, table(tried).splitlines()[0])
    outputs.check_beginning(directory / SWEEP, '{\n  "variants": [')
    for variant, loaded in resolved:
        place = directory / variant.name
        rows = _together(variant, seeds, place, loaded) if together else _in_turn(variant, seeds, place, loaded)
        for row in rows:
            variant.rows.append(row)
            report(f"{variant.name}  seed {row['seed']}  {_outcome(row)}")
    write(directory, tried)
    return tried


def _check_place(variant: Variant, seeds: Sequence[int], place: Path, digest: str | None) -> None:
    """Raises RunDirError if a variant's directory holds other runs; ``digest`` is that of its images in one call."""
    outputs.check_new_run(place / "run")
    if digest is None:
        for seed in seeds:
            rundir.check_entries(place / f"seed-{seed}", _with_seed(variant.config, seed))
    elif os.path.lexists(path := place / SEEDS):
        saved, expected = _saved_seeds(path), _description(variant, digest)
        if saved is None or any(saved[name] != value for name, value in expected.items()):
            raise RunDirError(f"{path} is of another configuration or data; name another directory with --run-dir")


def _with_seed(config: ExperimentConfig, seed: int) -> ExperimentConfig:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))


def _description(variant: Variant, digest: str) -> dict[str, Any]:
    """What the row of a seed follows from, as JSON has it."""
    return json.loads(json.dumps({"config": dataclasses.asdict(variant.config), "data_sha256": digest}))


def _saved_seeds(path: Path) -> dict[str, Any] | None:
    """The content of a file of the seeds of one call; None if it is not what ``_together`` writes, or there is none."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        saved = read_json(path)
        if isinstance(saved, dict) and {"config", "seeds", "data_sha256", "rows"} <= saved.keys():
            return saved if [row["seed"] for row in saved["rows"]] == saved["seeds"] else None
    return None


def _in_turn(variant: Variant, seeds: Sequence[int], place: Path, splits: Splits):
    """Each seed by ``fit``, which resumes unfinished runs."""
    for seed in seeds:
        config = _with_seed(variant.config, seed)
        try:
            summary = fit(config, place / f"seed-{seed}", splits).summary
        except FloatingPointError as error:
            yield {"seed": seed, "diverged": str(error)}
        else:
            yield {
                "seed": seed,
                **{name: summary[name] for name in ROW if name in summary},
                "seconds": sum(summary["seconds"].values()),
            }


def _together(variant: Variant, seeds: Sequence[int], place: Path, splits: Splits):
    """All seeds that a file has no rows of in one call, or one call each if one of them diverges; then it has them."""
    path, expected = place / SEEDS, _description(variant, data_digest(splits))
    saved = _saved_seeds(path)
    known = saved["rows"] if saved is not None and {name: saved[name] for name in expected} == expected else []
    by_seed = {row["seed"]: row for row in known}
    if new := [seed for seed in seeds if seed not in by_seed]:
        _make(place)
        try:
            rows = fit_seeds(variant.config, new, splits).rows
        except FloatingPointError as error:
            if len(new) == 1:
                rows = [{"seed": new[0], "diverged": str(error)}]
            else:
                rows = [row for seed in new for row in _together(variant, [seed], place / f"seed-{seed}", splits)]
        by_seed |= {row["seed"]: row for row in rows}
        rundir.write_json(path, {**expected, "seeds": list(by_seed), "rows": list(by_seed.values())})
    return [by_seed[seed] for seed in seeds]


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirError(f"cannot use {directory}: {error.strerror}; name another directory with --run-dir") from error


def _outcome(row: dict[str, Any]) -> str:
    if "diverged" in row:
        return row["diverged"]
    return (
        f"val loss {row['val_loss']:.4f}  val accuracy {row['val_accuracy']:.4f}  "
        f"test accuracy {row['test_accuracy']:.4f}  epoch {row['best_epoch']} of {row['stopped_epoch']}"
    )


def table(tried: Sequence[Variant]) -> str:
    """Returns a Markdown table: mean and standard deviation of each variant, and test accuracy's 95 % interval."""
    fields, maps = list(tried[0].changes), [name for name in MAPS if any(name in one.estimates for one in tried)]
    titles = ["n", "val loss", "val accuracy", "test accuracy", "its 95 % interval"]
    titles += [name.replace("_map", " mAP") for name in maps]
    lines = [f"| {' | '.join([*fields, *titles])} |", f"|{'---|' * (len(fields) + len(titles))}"]
    for variant in tried:
        diverged, estimates = sum("diverged" in row for row in variant.rows), variant.estimates
        count = f"{len(variant.rows) - diverged}" + (f", {diverged} diverged" if diverged else "")
        cells = [f"`{_text(variant.changes[field])}`" for field in fields] + [count]
        cells += [_spread(estimates[name]) if estimates else "" for name in ("val_loss", "val_accuracy")]
        cells += [_spread(estimates["test_accuracy"]), _interval(estimates["test_accuracy"])] if estimates else ["", ""]
        cells += [_spread(estimates[name]) if estimates else "" for name in maps]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(value: Estimate) -> str:
    return f"{value.mean:.4f}" + ("" if math.isnan(value.std) else f" ± {value.std:.4f}")


def _interval(value: Estimate) -> str:
    return "" if math.isnan(value.std) else f"{value.low:.4f} to {value.high:.4f}"


def write(directory: Path, tried: Sequence[Variant]) -> None:
    """Writes table.md, and sweep.json with every row, to a directory."""
    _make(directory)
    rundir.write_text(directory / TABLE, table(tried))
    described = [
        {"changes": variant.changes, "config": dataclasses.asdict(variant.config), "rows": variant.rows}
        for variant in tried
    ]
    rundir.write_json(directory / SWEEP, {"variants": described})


def parse_grid(arguments: Sequence[str]) -> dict[str, list[Any]]:
    """Returns the values by field that a command line names: ``--augment.flip true false`` and so on.

    A value is parsed as JSON, so that ``true``, ``3`` and ``[64, 32]`` have their types; anything else is text, and so
    is the directory of ``--run-dir``.

    Raises:
      ConfigError: a value comes before the first field, or a field is given twice.
    """
    grid: dict[str, list[Any]] = {}
    field, values = "", None
    for argument in arguments:
        if argument.startswith("--"):
            field, values = argument[2:].replace("-", "_"), []
            if field in grid:
                raise ConfigError(f"--{printable(field)} is given twice; name it once, with all of its values")
            grid[field] = values
        elif values is None:
            raise ConfigError(f"{shown(argument)} has no field before it; start with one, such as --augment.flip")
        else:
            values.append(argument if field == "run_dir" else _value(argument))
    return grid


def _value(text: str) -> Any:
    try:
        return parse_json(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        return text
