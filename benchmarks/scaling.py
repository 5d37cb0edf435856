"""Cost of a step on many devices: the step of one, measured here, and the all-reduce between them, computed.

python -m benchmarks.scaling [--rounds 5] [--results DIR]

Each device computes the gradients of its own images, and an all-reduce adds them: the gradients' bytes pass a link
2 (n - 1) / n times, with 2 log2 n latencies (R. Thakur, R. Rabenseifner and W. Gropp, Optimization of
Collective Communication Operations in MPICH, 2005, section 4.4). No overlap with the computation is
assumed, which is the worst case. The rates of the links are nominal.
"""

import dataclasses
import math
import statistics
import time
from pathlib import Path

import jax
import numpy as np

import cnn
from benchmarks.measure import RESULTS, run_main, write_result
from experiments.fashion_cnn import CONFIG

IMAGES_A_DEVICE = (1, 4, 16, 32, 128)
DEVICES = (8, 64, 512)
STEPS = 60
LINKS = {
    "10 Gbit/s Ethernet": {"bytes_per_second": 1.25e9, "latency_seconds": 30e-6},
    "100 Gbit/s InfiniBand": {"bytes_per_second": 12.5e9, "latency_seconds": 3e-6},
}


def step_seconds(images: int, split: cnn.Split, rounds: int) -> float:
    """Returns the median seconds of a step at a batch size, from passes of train_epoch."""
    config = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, batch_size=images))
    part = jax.tree.map(lambda array: array[: images * STEPS], split)
    state, seconds = cnn.create_state(config), []
    train_epoch = cnn.train_epoch.lower(state, part, batch_size=images).compile()
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        state, _ = jax.block_until_ready(train_epoch(state, part))
        seconds.append((time.perf_counter() - begin) / STEPS)
    return statistics.median(seconds[1:])


def all_reduce_seconds(devices: int, gradient_bytes: int, bytes_per_second: float, latency_seconds: float) -> float:
    """Returns the seconds of an all-reduce of the gradients."""
    return 2 * (devices - 1) / devices * gradient_bytes / bytes_per_second + 2 * math.log2(devices) * latency_seconds


def main(rounds: int = 5, results: Path = RESULTS) -> None:
    """Measure steps on one device, compute those on many, print them, and write scaling.json.

    Args:
        rounds: Number of passes after a warm-up, of which the median counts.
        results: Directory for scaling.json.
    """
    split = jax.device_put(cnn.load_data(CONFIG.data).train)
    steps = {images: step_seconds(images, split, rounds) for images in IMAGES_A_DEVICE}
    for images, seconds in steps.items():
        print(f"{images:4} images a step: {1000 * seconds:6.2f} ms", flush=True)
    gradient_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(cnn.create_state(CONFIG).params))
    many = []
    for link, numbers in LINKS.items():
        for devices in DEVICES:
            told = all_reduce_seconds(devices, gradient_bytes, **numbers)
            # Computation and all-reduce take equally long: half of the rate of the devices remains.
            even = next((i for i in range(1, 10_000) if np.interp(i, list(steps), list(steps.values())) >= told), None)
            many.append(
                {
                    "link": link,
                    "devices": devices,
                    "all_reduce_seconds": told,
                    "efficiency": {images: seconds / (seconds + told) for images, seconds in steps.items()},
                    "images_a_device_at_half": even,
                }
            )
            print(many[-1], flush=True)
    write_result(
        "scaling",
        {
            "what": "seconds of a training step, on one device measured, on many computed",
            "step_seconds": steps,
            "gradient_bytes": gradient_bytes,
            "links": LINKS,
            "many": many,
        },
        results,
    )


if __name__ == "__main__":
    run_main(main)
