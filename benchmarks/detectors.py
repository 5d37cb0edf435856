"""Our detector beside torchvision's smallest, SSDlite, trained from scratch for the same seconds; equal test scenes.

python3.11 -m venv .venv-detector; .venv-detector/bin/pip install -r benchmarks/detector_peers.txt
PEERS_PYTHON=.venv-detector/bin/python python -m benchmarks.detectors [--seeds 3] [--peer-seeds 1]

A seed of ours is the command of a user, in its own directory below --directory: one that is finished is not trained
again. The peer trains for the seconds of a whole run of ours (the median), from 48,000 composed scenes that it finds in
memory. Both are measured by cnn/detection/average_precision.py on the same 2,000 test scenes, at the end and once.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jax
import numpy as np

import cnn
from benchmarks.measure import PEERS_PYTHON, RESULTS, run_main, summary, write_result
from cnn.data.scenes import compose_many
from cnn.detection.average_precision import average_precision, match
from cnn.detection.average_precision import summary as means_of
from cnn.detection.boxes import Detections
from cnn.runs.result import load_images
from cnn.runs.rundir import read_description, read_history, read_result
from experiments.yolo import CONFIG


def our_run(seed: int, directory: Path) -> Path:
    """Trains a seed unless its run is finished, and returns its directory."""
    run_dir = directory / f"seed{seed}"
    command = [sys.executable, "-m", "experiments.yolo", "--train.seed", str(seed), "--run-dir", str(run_dir)]
    subprocess.run([*command, "--log.no_figures"], check=True)
    return run_dir


def our_row(seed: int, run_dir: Path) -> dict[str, Any]:
    """Returns what a run has reached on the test scenes, and its whole seconds."""
    result, epochs = read_result(run_dir), len(read_history(run_dir))
    assert result
    return {
        "seed": seed,
        "seconds": sum(result["seconds"].values()),
        "scenes": read_description(run_dir)["train_images"] * epochs,
        "parameters": result["params"],
        "best_epoch": result["best_epoch"],
        "map": result["test_map"],
        "map_50": result["test_map_50"],
    }


def save_scenes(path: Path, splits: cnn.Splits) -> None:
    """Writes as many training scenes as there are training images, and the test scenes, for another environment."""
    train = compose_many(jax.random.key(1), splits.train, CONFIG.data.scenes, len(splits.train.labels))
    np.savez(path, train_images=train.images, train_labels=train.labels, test_images=splits.test.images)


def peer_row(seed: int, seconds: float, scenes: Path, test: cnn.Split, settings: tuple[str, ...]) -> dict[str, Any]:
    """Returns what torchvision's detector reaches in some seconds."""
    output = scenes.with_name("found.npz")
    command = [str(PEERS_PYTHON), "-m", "benchmarks.torchvision_peer", str(scenes), f"{seconds:.0f}", str(seed)]
    run = subprocess.run([*command, str(output), *settings], check=True, stdout=subprocess.PIPE, text=True)
    with np.load(output) as arrays:
        detections = Detections(arrays["boxes"], arrays["scores"], arrays["classes"])
    means = means_of(average_precision(match(detections, test.labels, len(cnn.class_names(CONFIG.data)))))
    return {"seed": seed, **json.loads(run.stdout.splitlines()[-1]), "map": means["map"], "map_50": means["map_50"]}


def main(
    seeds: int = 3,
    peer_seeds: int = 1,
    optimizer: Literal["SGD", "AdamW"] = "SGD",
    precision: Literal["float32", "bfloat16"] = "float32",
    seconds: float = 0,
    directory: Path = Path("runs/detectors"),
    results: Path = RESULTS,
) -> None:
    """Train both, print what they reach, and write detectors.json.

    Args:
        seeds: Seeds 0, 1, ... of ours.
        peer_seeds: Seeds of torchvision's, each for the median of the seconds of our runs.
        optimizer: The peer's.
        precision: The peer's; bfloat16 is autocast.
        seconds: Of the peer, for a trial; 0 for those of our runs.
        directory: Directory of our runs.
        results: Directory for the JSON file.
    """
    if seeds < 1:
        raise cnn.ConfigError(f"--seeds is {seeds}, but must be at least 1")
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "torchvision": []}
    for seed in range(seeds):
        run_dir = our_run(seed, directory)
        runs["ours"].append(our_row(seed, run_dir))
        print("ours", runs["ours"][-1], flush=True)
    seconds = seconds or median(row["seconds"] for row in runs["ours"])
    if peer_seeds:
        with tempfile.TemporaryDirectory() as place:
            scenes, splits = Path(place, "scenes.npz"), load_images(directory / "seed0")
            save_scenes(scenes, splits)
            for seed in range(peer_seeds):
                runs["torchvision"].append(peer_row(seed, seconds, scenes, splits.test, (optimizer, precision)))
                print("torchvision", runs["torchvision"][-1], flush=True)
    means = {
        name: {key: summary([row[key] for row in rows]) for key in ("map", "map_50", "seconds")}
        for name, rows in runs.items()
        if rows
    }
    what = "mean average precision on 2,000 test scenes; torchvision's ssdlite320_mobilenet_v3_large, from scratch"
    settings = {"optimizer": optimizer, "precision": precision}
    write_result("detectors", {"what": what, "peer": settings, "summary": means, "runs": runs}, results)


if __name__ == "__main__":
    run_main(main)
