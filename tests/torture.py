"""Kills a training process at random moments, again and again, and compares what it comes to with an uninterrupted run.

``make torture`` kills 200 times; tests/runs/test_resume.py 20 times.
"""

import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cnn
from cnn.runs import checkpoint
from cnn.runs import verify as verification
from tests.helpers import without_times

# Processes of their own, forked from one that has imported everything and computed nothing: importing takes longer than
# training does here.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["cnn", "orbax.checkpoint"])

SECONDS_TO_KILL = 1.5
"""A process is killed within this time after its imports, or 0.6 of what a whole run takes where that is more, so that
loading, training and saving fall into it on a slow machine too."""

CONFIG = cnn.ExperimentConfig(
    model=cnn.ModelConfig(conv1_features=4, conv2_features=8, dense_features=16),
    optim=cnn.OptimConfig(batch_size=8),
    train=cnn.TrainConfig(epochs=2, patience=2, checkpoint_steps=10),
)


def train(run_dir: Path, begun: Any) -> None:
    """What is killed: a run that spends about a third of its time on saving."""
    splits = cnn.load_data(CONFIG.data)
    small = cnn.Splits(*(cnn.Split(split.images[:500], split.labels[:500]) for split in splits))
    begun.set()
    cnn.fit(CONFIG, run_dir, small)


def start(run_dir: Path) -> Any:
    """Starts a process that trains, and returns when it is about to."""
    begun = PROCESSES.Event()
    process = PROCESSES.Process(target=train, args=(run_dir, begun))
    process.start()
    assert begun.wait(200), process.exitcode
    return process


def finish(process: Any) -> int:
    """Waits for a process, and returns its exit status; -9 for one that was killed."""
    process.join(200)
    return process.exitcode


def outcome(run_dir: Path) -> Any:
    """What a finished run has come to, without the times: digests of all that is in its checkpoints, and its files."""
    with checkpoint.open_checkpoints(run_dir) as checkpoints:
        saved = {step: checkpoints.metadata(step).custom_metadata for step in checkpoint.steps(checkpoints)}
    files = {
        name: (run_dir / name).read_text() for name in ("metrics.jsonl", "kernels.jsonl", "result.json", "summary.txt")
    }
    return without_times(
        {
            "checkpoints": {str(step): found for step, found in saved.items()},
            "history": [json.loads(line) for line in files["metrics.jsonl"].splitlines()],
            "result": json.loads(files["result.json"]),
            "summary": files["summary.txt"],
            "kernels": files["kernels.jsonl"],
            "entries": sorted(path.name for place in (run_dir, run_dir / "checkpoints") for path in place.iterdir()),
        }
    )


def torture(kills: int, directory: Path, seed: int = 0) -> dict[str, int]:
    """Trains to the end, killing so many times on the way, in as many runs as that takes; raises if anything is lost.

    Returns:
      What happened: kills, those that a checkpoint went before, those in the middle of writing or removing one, and
      runs that finished, all to the same bits.
    """
    rng = random.Random(seed)
    seconds = 0.0
    for name in ("compiling", "whole"):  # those that are killed find everything compiled, as the second does
        process, begin = start(directory / name), time.monotonic()
        assert finish(process) == 0
        seconds = time.monotonic() - begin
    seconds_to_kill = max(SECONDS_TO_KILL, 0.6 * seconds)
    expected = outcome(directory / "whole")
    assert outcome(directory / "compiling") == expected

    counts: dict[str, int] = dict.fromkeys(
        ("kills", "after a checkpoint", "while saving", "runs that finished", "runs equal to the uninterrupted one"), 0
    )
    while counts["kills"] < kills or counts["runs that finished"] == 0:
        run_dir, latest = directory / f"killed-{counts['runs that finished']}", -1
        while True:
            process = start(run_dir)
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
            # Nothing that is there is damaged, and nothing that was there has gone.
            if (run_dir / "config.json").exists():
                found = verification.verify(run_dir)
                assert not any(found.values()), found
                steps = [int(name.split("/")[1]) for name in found if "/" in name]
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
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
        begin = time.monotonic()
        summary = torture(int(sys.argv[1]), Path(place))
        # One of ten or so comes while a checkpoint is written.
        assert summary["kills"] < 100 or summary["while saving"] > 0, summary
        for name, count in summary.items():
            print(f"{count:4} {name}")
        print(f"{time.monotonic() - begin:4.0f} seconds")
