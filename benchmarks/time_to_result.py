"""Seconds from process start to the first epoch whose validation metrics reach a mark.

python -m benchmarks.time_to_result [--seeds 3] [--epochs N] [--results DIR]

The marks are the published results of the notebook's two editions. Every run is the command of a user, piped: the time
is when the epoch's line arrives. The notebook in Keras on TensorFlow trains 20 epochs without early stopping; ours stop
as shipped. A run that does not reach a mark counts with its whole time, which is a lower bound. "cold" is with an empty
compilation cache, "warm" is the same run repeated; all files have been read before.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import PEERS_PYTHON, RESULTS, compiled_programs_in, run_main, save_images, write_result

MARKS = {
    "second edition": {"val_loss": 0.235, "val_accuracy": 0.9191},
    "first edition": {"val_loss": 0.2203, "val_accuracy": 0.9235},
}


def stamped_lines(command: list[str], environment: dict[str, str]) -> tuple[list[tuple[float, str]], float]:
    """Returns the lines that a command prints, each with its seconds since the start, and the total seconds.

    Raises:
      CalledProcessError: it fails; what it wrote to stderr is shown.
    """
    with tempfile.TemporaryFile("w+") as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **environment}
        )
        assert process.stdout
        lines = [(time.perf_counter() - begin, line) for line in process.stdout]
        status, seconds = process.wait(), time.perf_counter() - begin
        if status:
            errors.seek(0)
            print(errors.read(), file=sys.stderr)
            raise subprocess.CalledProcessError(status, command)
    return lines, seconds


def our_run(experiment: str, seed: int, options: list[str], cache: Path) -> dict[str, Any]:
    """Returns the epochs of an experiment's command; compiled programs are cached in ``cache``."""
    with tempfile.TemporaryDirectory() as run_dir:
        command = [sys.executable, "-m", f"experiments.{experiment}", "--train.seed", str(seed)]
        command += ["--log.no_figures", "--run-dir", run_dir, *options]
        lines, seconds = stamped_lines(command, compiled_programs_in(cache))
        rows = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    stamps = [stamp for stamp, line in lines if line.startswith("epoch ")]
    return run_summary(stamps, rows, seconds)


def notebook_run(seed: int, epochs: int, images: Path) -> dict[str, Any]:
    """Returns the epochs of the notebook in Keras."""
    command = [str(PEERS_PYTHON), "-m", "benchmarks.keras_peer", str(images), "notebook", str(seed), str(epochs)]
    lines, seconds = stamped_lines(command, {"KERAS_BACKEND": "tensorflow"})
    return run_summary([stamp for stamp, _ in lines], [json.loads(line) for _, line in lines], seconds)


def run_summary(stamps: list[float], rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Returns when a run reached each mark, and its epochs."""
    epochs = [
        {"seconds": stamp, **{key: row[key] for key in ("epoch", "val_loss", "val_accuracy")}}
        for stamp, row in zip(stamps, rows, strict=True)
    ]
    marks = {}
    for name, mark in MARKS.items():
        good = (
            epoch
            for epoch in epochs
            if epoch["val_loss"] <= mark["val_loss"] and epoch["val_accuracy"] >= mark["val_accuracy"]
        )
        first = next(good, None)
        marks[name] = (
            {"reached": True, "seconds": first["seconds"], "epoch": first["epoch"]}
            if first
            else {"reached": False, "seconds": seconds}
        )
    return {"seconds": seconds, "marks": marks, "epochs": epochs}


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns by variant the median seconds to each mark, the runs that reached it, and the ratio to the notebook."""
    medians = {
        variant: {mark: statistics.median(row["marks"][mark]["seconds"] for row in rows) for mark in MARKS}
        for variant, rows in runs.items()
    }
    return {
        variant: {
            mark: {
                "median_seconds": medians[variant][mark],
                "reached": sum(row["marks"][mark]["reached"] for row in rows),
                "n": len(rows),
                "over_notebook": medians[variant][mark] / medians["notebook"][mark],
            }
            for mark in MARKS
        }
        for variant, rows in runs.items()
    }


def main(seeds: int = 3, epochs: int | None = None, results: Path = RESULTS) -> None:
    """Measure the time to a result, print each run, and write time_to_result.json.

    Args:
        seeds: Seeds 0, 1, ... of each variant.
        epochs: Maximum epochs of every run, for a trial; by default 20 for the notebook, and ours as shipped.
        results: Directory for time_to_result.json.
    """
    shorter = ["--train.epochs", str(epochs)] if epochs else []
    runs: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        images, chapter_cache = Path(directory, "images.npz"), Path(directory, "chapter")
        save_images(images)
        # One epoch, so that everything is compiled; both read their files for the first time.
        our_run("fashion_cnn", 0, ["--train.epochs", "1"], chapter_cache)
        notebook_run(0, 1, images)
        for seed in range(seeds):
            fast_cache = Path(directory, f"fast{seed}")
            for variant, run in (
                ("notebook", lambda seed: notebook_run(seed, epochs or 20, images)),
                ("fashion_fast cold", lambda seed, cache=fast_cache: our_run("fashion_fast", seed, shorter, cache)),
                ("fashion_fast warm", lambda seed, cache=fast_cache: our_run("fashion_fast", seed, shorter, cache)),
                ("fashion_cnn warm", lambda seed: our_run("fashion_cnn", seed, shorter, chapter_cache)),
            ):
                result = run(seed)
                runs.setdefault(variant, []).append({"seed": seed, **result})
                told = (
                    f"{name} {'' if mark['reached'] else 'not in '}{mark['seconds']:.1f} s"
                    for name, mark in result["marks"].items()
                )
                print(f"{variant:18} seed {seed}: {', '.join(told)}", flush=True)
    write_result(
        "time_to_result",
        {
            "what": "seconds from process start to an epoch as good as a mark",
            "marks": MARKS,
            "summary": summarise(runs),
            "runs": runs,
        },
        results,
    )


if __name__ == "__main__":
    run_main(main)
