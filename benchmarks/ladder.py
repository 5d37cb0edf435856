"""Every rung of the ladder with several seeds, and the cost of a training step.

python -m benchmarks.ladder [--rungs softmax dense ...] [--seeds 5] [--directory runs/ladder] [--rows-of FILE]

A seed is a run of ``cnn.sweep`` in its own directory, so that the same command resumes. Metrics are those of the best
epoch by validation loss; the test images are evaluated once per run. A rung that is not named keeps its old result.
--rows-of adds seeds that were trained on an accelerator, so that only the seconds are measured here. All rungs of a
command compute in one type.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cnn
from benchmarks.measure import RESULTS, machine, origin, run_main, summary, write_result
from cnn.cli import enable_compilation_cache, enable_onednn_bfloat16, load_experiment
from cnn.config import ExperimentConfig
from cnn.devices.sharding import find_devices
from cnn.look.cost import step_cost
from cnn.resolution import resolve
from cnn.runs.sweeps import NUMBERS, ROW
from cnn.serialization import differences, from_dict
from cnn.training.optim import epoch_steps

RUNGS = (
    *("softmax", "dense", "lstm", "fashion_cnn", "fashion_fast", "fashion_full"),
    *("alexnet", "resnet20", "efficientnet", "vit", "fashion_best"),
)
"""Modules of ``experiments``, from the first to the last."""

BFLOAT16 = ("fashion_fast", "resnet20", "fashion_best")
"""Those that compute in bfloat16, in commands apart from the others."""


def train(config: ExperimentConfig, seeds: int, directory: Path, together: bool | None) -> dict[str, Any]:
    """Returns the rows of seeds 0, 1, ..., their origin, and the device and versions that trained them.

    The rungs of ``benchmarks.seeds`` are read from its result.
    """
    seeds_file = RESULTS / "seeds.json"
    measured = json.loads(seeds_file.read_text()) if seeds_file.exists() else {"runs": {}}
    if config.name in measured["runs"]:
        return {"rows": measured["runs"][config.name], "origin": measured["origins"][config.name], "device": "cpu"}

    def report(line: str) -> None:
        print(config.name, line, flush=True)

    (variant,) = cnn.sweep(config, {}, range(seeds), directory, report=report, together=together)
    device, here = find_devices(config.train.device)[0].device_kind, machine()
    versions = {"python": here["python"], "jax": here["versions"]["jax"]}
    return {"rows": variant.rows, "origin": origin(), "device": device, "trained_with": versions}


def trained_elsewhere(path: Path, configs: dict[str, ExperimentConfig]) -> dict[str, Any]:
    """Returns the rungs of another machine's file; raises ConfigError unless their configurations are those here."""
    try:
        found = json.loads(path.read_text())["rungs"]
        trained = {rung: from_dict(found[rung]["config"]) for rung in configs if rung in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise cnn.ConfigError(f"--rows-of is {path}, but must be a ladder.json of another machine") from error
    for rung, config in configs.items():
        if rung not in trained:
            raise cnn.ConfigError(f"--rungs are {', '.join(configs)}, but {path} has no {rung}; name some that it has")
        # Seed, device and fusing are ignored in the comparison.
        train = dataclasses.replace(config.train, epochs=trained[rung].train.epochs)
        if changed := differences(
            resolve(dataclasses.replace(trained[rung], train=train, log=config.log)), resolve(config)
        ):
            raise cnn.ConfigError(f"{path} has {rung} with another {changed[0]}; train it again")
    return found


def climb(config: ExperimentConfig, trained: dict[str, Any]) -> dict[str, Any]:
    """Measures the cost of a step of a rung, and returns its results."""
    layers = cnn.layer_table(cnn.create_state(config))
    # The fastest of three, as other load on the machine only adds to it.
    step_seconds = min(step_cost(config)["step_seconds"] for _ in range(3))
    rows = [{name: row[name] for name in ("seed", *ROW) if name in row} for row in trained["rows"]]
    return {
        "parameters": sum(layer.parameters for layer in layers),
        "flops": sum(layer.flops for layer in layers),
        "epochs": config.train.epochs,
        "train_images": config.data.train_images,
        "epoch_seconds": step_seconds * epoch_steps(config),
        "summary": {name: summary([row[name] for row in rows]) for name in NUMBERS},
        "rows": rows,
        "origin": trained["origin"],
        "device": trained["device"],
        "trained_with": trained.get("trained_with"),
        "config": dataclasses.asdict(config),
        "machine": machine(),
    }


def main(
    rungs: tuple[str, ...] = tuple(rung for rung in RUNGS if rung not in BFLOAT16),
    seeds: int = 5,
    directory: Path = Path("runs/ladder"),
    together: bool | None = None,
    rows_of: Path | None = None,
    results: Path = RESULTS,
) -> None:
    """Climb, print a line for each run, and write ladder.json.

    Args:
        rungs: Modules of experiments.
        seeds: Number of seeds of each rung.
        directory: Directory of the runs.
        together: Train the seeds of a rung in one call; by default on an accelerator.
        rows_of: A ladder.json of another machine, whose seeds are used; only the cost of a step is measured here.
        results: Directory for the JSON file.
    """
    configs = {rung: load_experiment(f"experiments.{rung}") for rung in rungs}
    enable_onednn_bfloat16(*configs.values())
    enable_compilation_cache()
    before, other = results / "ladder.json", trained_elsewhere(rows_of, configs) if rows_of else {}
    kept: dict[str, Any] = json.loads(before.read_text())["rungs"] if before.exists() else {}
    for rung, config in configs.items():
        kept[rung] = climb(config, other[rung] if rows_of else train(config, seeds, directory / rung, together))
        ordered = {name: kept[name] for name in RUNGS if name in kept}
        origins = {name: {"machine": of["machine"], **of["origin"]} for name, of in ordered.items()}
        write_result("ladder", {"origins": origins, "rungs": ordered}, results)


if __name__ == "__main__":
    run_main(main)
