"""The shipped experiment with several seeds, and the notebook in Keras with some, on the same split.

python -m benchmarks.seeds [OURS] [KERAS]

Each of our seeds is the user's own command, a process of its own. Numbers are those of the best epoch by validation
loss; the test images are read once a run.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import PEERS_PYTHON, save_images, summary, write_result

NUMBERS = ("val_loss", "val_accuracy", "test_loss", "test_accuracy", "best_epoch", "stopped_epoch")


def our_run(seed: int, directory: Path) -> dict[str, float]:
    """Returns result.json of a seed."""
    run_dir = directory / f"seed{seed}"
    options = ["--train.seed", str(seed), "--log.no_figures", "--run-dir", str(run_dir)]
    command = [sys.executable, "-m", "experiments.fashion_cnn", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((run_dir / "result.json").read_text())


def keras_run(seed: int, images: Path) -> dict[str, float]:
    """Returns the same numbers of Keras."""
    command = [str(PEERS_PYTHON), "benchmarks/keras_peer.py", str(images), "fit", str(seed)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def main(ours: int = 5, keras: int = 3) -> None:
    """Runs them one after the other, prints each, and writes seeds.json."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "keras": []}
    with tempfile.TemporaryDirectory() as directory:
        images = Path(directory, "images.npz")
        save_images(images)
        for seed in range(max(ours, keras)):
            for name, count, run in (
                ("ours", ours, lambda seed: our_run(seed, Path(directory))),
                ("keras", keras, lambda seed: keras_run(seed, images)),
            ):
                if seed < count:
                    result = run(seed)
                    runs[name].append({"seed": seed, **{key: result[key] for key in NUMBERS}})
                    print(name, runs[name][-1], flush=True)
    means = {name: {key: summary([row[key] for row in rows]) for key in NUMBERS} for name, rows in runs.items() if rows}
    write_result("seeds", {"what": "best epoch by validation loss", "summary": means, "runs": runs})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
