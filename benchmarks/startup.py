"""Seconds from process start to the end of the first training step, seconds to compile, and memory of an epoch.

python -m benchmarks.startup [--rounds 3] [--images 48000] [--results DIR]

A process starts, imports, loads the images, builds the network and takes one step on 32 images; ours with an empty
compilation cache (cold) and with the compiled programs of an earlier process. The frameworks take turns, and have all
been started once before, so that their files are in memory. Memory is the peak resident memory of a process that trains
and validates for an epoch at batch 32, after its warm-up.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, compiled_programs_in, run_main, save_images, summary, write_result
from benchmarks.workers import worker

PEERS = ("keras_tensorflow", "torch")


def seconds_to_first_step(name: str, images: Path, environment: dict[str, str]) -> float:
    """Returns the seconds from the start of a process to its answer after the first step."""
    begin = time.perf_counter()
    with worker(name, images, environment=environment) as ask:
        answer = ask("step")
        seconds = time.perf_counter() - begin
    if "failed" in answer:
        raise RuntimeError(f"{name}: {answer['failed']}")
    return seconds


def peak_memory(name: str, train_images: int, images: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Returns the peak memory in MiB of a process that trains and validates for an epoch."""
    with worker(name, images, environment=environment) as ask:
        for do in ("warm_up", "epoch"):
            answer = ask(do, batch_size=32, images=train_images)
            if "failed" in answer:
                return answer
        return ask("memory")


def main(rounds: int = 3, images: int = 48_000, results: Path = RESULTS) -> None:
    """Measure starts, compilation and memory, print each, and write startup.json.

    Args:
        rounds: Number of starts of each.
        images: Number of training images of the epoch; a fourth of this number validates.
        results: Directory for startup.json.
    """
    first_step: dict[str, list[float]] = {}
    compilation: dict[str, list[float]] = {}
    # In this order: our second start uses the compiled programs of the first.
    processes = (("ours cold", "ours"), ("ours cached", "ours"), *((name, name) for name in PEERS))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "images.npz")
        save_images(path)
        for name in ("ours", *PEERS):
            seconds_to_first_step(name, path, compiled_programs_in(Path(directory, "first")))
        for number in range(rounds):
            cache = compiled_programs_in(Path(directory, f"round{number}"))
            for label, name in processes:
                seconds = seconds_to_first_step(name, path, cache)
                first_step.setdefault(label, []).append(seconds)
                print(f"round {number + 1}   first step   {label:16} {seconds:6.2f} s", flush=True)
            for label in ("cold", "cached"):
                with worker("ours", path, environment=cache) as ask:
                    seconds = ask("compile", batch_size=32, images=images)["seconds"]
                compilation.setdefault(label, []).append(seconds)
                print(f"round {number + 1}   train_epoch  {label:16} {seconds:6.2f} s", flush=True)
        memory, cache = {}, compiled_programs_in(Path(directory, "memory"))
        for label, name in processes:
            memory[label] = peak_memory(name, images, path, cache)
            print(f"memory   {label:16} {memory[label]}", flush=True)
    write_result(
        "startup",
        {
            "what": "seconds from process start to the first step, and to compile an epoch; MiB after an epoch",
            "images": images,
            "first_step_seconds": {label: summary(values) for label, values in first_step.items()},
            "compile_seconds": {label: summary(values) for label, values in compilation.items()},
            "peak_memory": memory,
        },
        results,
    )


if __name__ == "__main__":
    run_main(main)
