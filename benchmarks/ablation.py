"""The full recipe with one ingredient removed or added at a time: the effect of each.

python -m benchmarks.ablation [--seeds 5] [--epochs 12] [--directory runs/ablation]

Fewer epochs than the recipe's own, so that it takes some minutes on a GPU and three hours on two cores; the effect of
an ingredient depends on the number of epochs. Metrics are those of the best epoch by validation loss.
"""

import dataclasses
from pathlib import Path
from typing import Any

import cnn
from benchmarks.measure import run_main, summary, write_result
from cnn.cli import enable_compilation_cache
from cnn.devices.sharding import find_devices
from cnn.runs.sweeps import NUMBERS
from experiments.fashion_full import CONFIG

INGREDIENTS: dict[str, dict[str, Any]] = {
    "the full recipe": {},
    "without flip": {"augment.flip": False},
    "without shift": {"augment.shift": 0},
    "without flip and shift": {"augment.flip": False, "augment.shift": 0},
    "without the average": {"optim.average_decay": 0.0},
    "without weight decay": {"optim.weight_decay": 0.0},
    "without dropout": {"model.dropout_rate": 0.0},
    "a constant rate": {"optim.schedule": "constant"},
    "cosine with warm-up": {"optim.schedule": "warmup_cosine"},
    "Adam instead of Muon": {"optim.name": "adam", "optim.learning_rate": 4e-3},
    "SGD with Nesterov's momentum instead of Muon": {
        "optim.name": "sgd",
        "optim.learning_rate": 0.1,
        "optim.momentum": 0.9,
        "optim.weight_decay": 5e-4,
    },
    "with cutout": {"augment.cutout": 8},
    "with random erasing": {"augment.erase": 0.25},
    "with mixup": {"augment.mixup": 0.2},
    "with cutmix": {"augment.cutmix": 1.0},
    "with label smoothing": {"optim.label_smoothing": 0.1},
    "with gradients clipped": {"optim.clip_norm": 1.0},
    "two steps accumulated": {"optim.accumulate_steps": 2, "optim.batch_size": 64},
}
"""What is changed, by field. Rates and shares are the papers' or the first that were tried; none was tuned."""


def main(seeds: int = 5, epochs: int = 12, directory: Path = Path("runs/ablation")) -> None:
    """Train each variant, print a line for each run, and write ablation.json.

    Args:
        seeds: Number of seeds of each variant.
        epochs: Passes over the training images.
        directory: Directory of the runs; the same command resumes them.
    """
    enable_compilation_cache()
    config = dataclasses.replace(CONFIG, train=cnn.TrainConfig(epochs=epochs, patience=epochs, fused=True))
    device = find_devices(config.train.device)[0].device_kind
    rows = {}

    def report(line: str) -> None:
        print(line, flush=True)

    for name, changes in INGREDIENTS.items():
        grid = {field: [value] for field, value in changes.items()}
        # One after the other on an accelerator, too, as only then a finished seed is kept.
        (variant,) = cnn.sweep(config, grid, range(seeds), directory, report=report, together=False)
        finished = [row for row in variant.rows if "diverged" not in row]
        if not finished:
            print(f"{name}: no seed has come to a number")
            continue
        numbers = {number: summary([row[number] for row in finished]) for number in NUMBERS}
        rows[name] = {"changes": changes, "summary": numbers, "rows": variant.rows}
        write_result("ablation", {"device": device, "experiment": CONFIG.name, "epochs": epochs, "variants": rows})


if __name__ == "__main__":
    run_main(main)
