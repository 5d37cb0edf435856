"""The shipped experiments and the Keras notebook with several seeds, on the same split.

python -m benchmarks.seeds [--fashion-cnn 5] [--fashion-fast 10] [--float32 5] [--keras 3]

Each of our seeds is the command of a user, in its own process. Metrics are those of the best epoch by validation loss;
the test images are evaluated once per run. An experiment with 0 seeds keeps its previous result.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import PEERS_PYTHON, RESULTS, machine, origin, run_main, save_images, summary, write_result

NUMBERS = ("val_loss", "val_accuracy", "test_loss", "test_accuracy", "best_epoch", "stopped_epoch")
OURS = {
    "fashion_cnn": ("fashion_cnn",),
    "fashion_fast": ("fashion_fast",),
    "float32": ("fashion_fast", "--model.dtype", "float32"),
}
"""Experiment and options."""


def our_run(experiment: str, *options: str, seed: int) -> dict[str, float]:
    """Returns result.json of a seed."""
    with tempfile.TemporaryDirectory() as run_dir:
        command = [sys.executable, "-m", f"experiments.{experiment}", *options, "--train.seed", str(seed)]
        subprocess.run([*command, "--log.no_figures", "--run-dir", run_dir], check=True, stdout=subprocess.DEVNULL)
        return json.loads(Path(run_dir, "result.json").read_text())


def keras_run(seed: int, images: Path) -> dict[str, float]:
    """Returns the same metrics of Keras."""
    command = [str(PEERS_PYTHON), "-m", "benchmarks.keras_peer", str(images), "fit", str(seed)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def main(fashion_cnn: int = 5, fashion_fast: int = 10, float32: int = 5, keras: int = 3) -> None:
    """Run seeds 0, 1, ... one after the other, print each, and write seeds.json.

    Args:
        fashion_cnn: Number of seeds of the chapter's experiment.
        fashion_fast: Number of seeds of the fast recipe.
        float32: Number of seeds of the fast recipe in float32.
        keras: Number of seeds of the notebook in Keras.
    """
    counts = {"fashion_cnn": fashion_cnn, "fashion_fast": fashion_fast, "float32": float32, "keras": keras}
    before = RESULTS / "seeds.json"
    kept: dict[str, Any] = json.loads(before.read_text()) if before.exists() else {"runs": {}, "origins": {}}
    for older in kept["origins"].values():
        older.setdefault("machine", kept["machine"])
    runs: dict[str, list[dict[str, Any]]] = kept["runs"] | {name: [] for name, count in counts.items() if count}
    origins = kept["origins"] | {name: {**origin(), "machine": machine()} for name, count in counts.items() if count}
    with tempfile.TemporaryDirectory() as directory:
        images = Path(directory, "images.npz")
        save_images(images)
        # Taking turns, so that other load on the machine affects all alike.
        for seed in range(max(counts.values())):
            for name in (name for name, count in counts.items() if seed < count):
                result = keras_run(seed, images) if name == "keras" else our_run(*OURS[name], seed=seed)
                runs[name].append({"seed": seed, **{key: result[key] for key in NUMBERS}})
                print(name, runs[name][-1], flush=True)
    means = {name: {key: summary([row[key] for row in rows]) for key in NUMBERS} for name, rows in runs.items()}
    what = "best epoch by validation loss"
    write_result("seeds", {"what": what, "summary": means, "origins": origins, "runs": runs})


if __name__ == "__main__":
    run_main(main)
