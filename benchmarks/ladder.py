"""Every rung of the ladder with several seeds, and what a step of it costs.

python -m benchmarks.ladder [--rungs softmax dense ...] [--seeds 5] [--directory runs/ladder]

A seed is a run of ``cnn.sweep`` in a directory of its own, so that the same command goes on where it was stopped.
Numbers are those of the best epoch by validation loss; the test images are read once a run. A rung that is not named
keeps what it had.
"""

import json
from pathlib import Path
from typing import Any

import cnn
from benchmarks.measure import RESULTS, machine, origin, run_main, summary, write_result
from cnn.__main__ import load_experiment
from cnn.cost import step_cost
from cnn.run import keep_compiled_programs
from cnn.state import epoch_steps
from cnn.sweeps import NUMBERS, ROW

RUNGS = (
    *("softmax", "dense", "fashion_cnn", "fashion_fast", "fashion_full"),
    *("alexnet", "resnet20", "efficientnet", "vit"),
)
"""Modules of ``experiments``, from the first to the last."""


def runs(experiment: str, seeds: int, directory: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Returns the rows of seeds 0, 1, ... and their origin; ``benchmarks.seeds`` has some of the rungs already."""
    measured = json.loads((RESULTS / "seeds.json").read_text())
    if experiment in measured["runs"]:
        return measured["runs"][experiment], measured["origins"][experiment]
    config = load_experiment(f"experiments.{experiment}")
    (variant,) = cnn.sweep(config, {}, range(seeds), directory, report=lambda line: print(experiment, line, flush=True))
    return variant.rows, origin()


def climb(experiment: str, seeds: int, directory: Path) -> dict[str, Any]:
    """Trains a rung, if it has not been, and returns what is known of it."""
    config = load_experiment(f"experiments.{experiment}")
    found, begun = runs(experiment, seeds, directory)
    layers = cnn.layer_table(cnn.create_state(config))
    # The fastest of three, as what else the machine does only adds to it.
    step_seconds = min(step_cost(config)["step_seconds"] for _ in range(3))
    rows = [{name: row[name] for name in ("seed", *ROW) if name in row} for row in found]
    return {
        "parameters": sum(layer.parameters for layer in layers),
        "flops": sum(layer.flops for layer in layers),
        "epochs": config.train.epochs,
        "train_images": config.data.train_images,
        "epoch_seconds": step_seconds * epoch_steps(config),
        "summary": {name: summary([row[name] for row in rows]) for name in NUMBERS},
        "rows": rows,
        "origin": begun,
        "machine": machine(),
    }


def main(rungs: tuple[str, ...] = RUNGS, seeds: int = 5, directory: Path = Path("runs/ladder")) -> None:
    """Climb, print a line for each run, and write ladder.json.

    Args:
        rungs: Modules of experiments.
        seeds: How many of each rung.
        directory: For the runs.
    """
    keep_compiled_programs()
    before = RESULTS / "ladder.json"
    kept: dict[str, Any] = json.loads(before.read_text())["rungs"] if before.exists() else {}
    for rung in rungs:
        kept[rung] = climb(rung, seeds, directory / rung)
        ordered = {name: kept[name] for name in RUNGS if name in kept}
        write_result("ladder", {"origins": {name: ordered[name]["origin"] for name in ordered}, "rungs": ordered})


if __name__ == "__main__":
    run_main(main)
