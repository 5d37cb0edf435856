"""Kills a training process at random moments, resumes it, and compares the outcome with that of an uninterrupted run.

``make torture`` kills 200 times; tests/runs/test_torture.py 20 times.
"""

import gc
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

import cnn
from cnn.runs import checkpoint, identity
from cnn.runs import verify as verification
from tests.forked import PROCESSES
from tests.helpers import shrink, without_times

SECONDS_TO_KILL = 1.5
"""A process is killed within this time after its imports, or within 0.6 of the time of an uninterrupted run if that is
longer, so that a slow machine, too, is killed while loading, training and saving."""

CONFIG = cnn.ExperimentConfig(
    model=cnn.ModelConfig(conv1_features=4, conv2_features=8, dense_features=16),
    optim=cnn.OptimConfig(batch_size=8),
    train=cnn.TrainConfig(epochs=2, patience=2, checkpoint_steps=10),
)


def train(run_dir: Path, splits: cnn.Splits, compiles: bool, ready: Any) -> None:
    """A run that spends about a third of its time on saving."""
    if not compiles:
        # A killed process must not leave half an entry in the compilation cache.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", float("inf"))
    # As in tests/conftest.py.
    gc.freeze()
    ready.set()
    cnn.fit(CONFIG, run_dir, splits)


def start(run_dir: Path, splits: cnn.Splits, compiles: bool = False) -> Any:
    """Starts a process that trains, and returns when it is about to."""
    ready = PROCESSES.Event()
    process = PROCESSES.Process(target=train, args=(run_dir, splits, compiles, ready))
    process.start()
    assert ready.wait(200), process.exitcode
    return process


def finish(process: Any) -> int:
    """Waits for a process, and returns its exit status; -9 for one that was killed."""
    process.join(200)
    return process.exitcode


def outcome(run_dir: Path) -> Any:
    """The outcome of a finished run without times: the digests in its checkpoints, and its files, but not its ID."""
    with checkpoint.open_checkpoints(run_dir) as checkpoints:
        saved = {step: checkpoints.orbax.metadata(step).custom_metadata for step in checkpoint.steps(checkpoints)}
    files = {
        name: (run_dir / name).read_text() for name in ("metrics.jsonl", "kernels.jsonl", "result.json", "summary.txt")
    }
    result = json.loads(files["result.json"])
    return without_times(
        {
            "checkpoints": {str(step): {**metadata, identity.RUN: None} for step, metadata in saved.items()},
            "history": [json.loads(line) for line in files["metrics.jsonl"].splitlines()],
            "result": {name: value for name, value in result.items() if name not in identity.SIGNED},
            "summary": files["summary.txt"],
            "kernels": files["kernels.jsonl"],
            "entries": sorted(path.name for place in (run_dir, run_dir / "checkpoints") for path in place.iterdir()),
        }
    )


def torture(kills: int, directory: Path, seed: int = 0) -> dict[str, int]:
    """Trains to the end with a number of kills, in as many runs as they need; raises if anything is lost.

    Returns:
      Counts: kills, kills after a checkpoint, kills while one was written or removed, and finished runs, all of which
      have the same bits.
    """
    rng, splits = random.Random(seed), shrink(cnn.load_data(CONFIG.data), 500)
    seconds = 0.0
    # The first fills the compilation cache; the second takes the time of a run that finds everything compiled.
    for name in ("compiling", "uninterrupted"):
        process, begin = start(directory / name, splits, name == "compiling"), time.monotonic()
        assert finish(process) == 0
        seconds = time.monotonic() - begin
    seconds_to_kill = max(SECONDS_TO_KILL, 0.6 * seconds)
    expected = outcome(directory / "uninterrupted")
    assert outcome(directory / "compiling") == expected

    counts: dict[str, int] = dict.fromkeys(
        ("kills", "after a checkpoint", "while saving", "runs that finished", "runs equal to the uninterrupted one"), 0
    )
    while counts["kills"] < kills or counts["runs that finished"] == 0:
        run_dir, latest = directory / f"killed-{counts['runs that finished']}", -1
        while True:
            process = start(run_dir, splits)
            if counts["kills"] < kills:
                process.join(rng.uniform(0, seconds_to_kill))
                process.kill()
            status = finish(process)
            if status == 0:
                break
            assert status == -9
            counts["kills"] += 1
            counts["while saving"] += any(
                not (path / checkpoint.MANIFEST).exists() for path in (run_dir / "checkpoints").glob("*")
            )
            # Nothing is damaged, and no checkpoint is lost.
            if (run_dir / "config.json").exists():
                problems = verification.verify(run_dir)
                assert not any(problems.values()), problems
                steps = [int(name.split("/")[1]) for name in problems if "/" in name]
                assert max(steps, default=-1) >= latest, (steps, latest)
                latest = max(steps, default=-1)
                counts["after a checkpoint"] += latest > 0
            if not counts["after a checkpoint"]:
                # The machine has become slower than it was when the whole run was timed.
                seconds_to_kill *= 1.1
        counts["runs that finished"] += 1
        assert outcome(run_dir) == expected, run_dir
        counts["runs equal to the uninterrupted one"] += 1
    return counts


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as compiled, tempfile.TemporaryDirectory() as place:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        begin = time.monotonic()
        summary = torture(int(sys.argv[1]), Path(place))
        # About one of ten hits a save.
        assert summary["kills"] < 100 or summary["while saving"] > 0, summary
        for name, count in summary.items():
            print(f"{count:4} {name}")
        print(f"{time.monotonic() - begin:4.0f} seconds")
