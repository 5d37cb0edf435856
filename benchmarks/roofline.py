"""Share of the machine's matrix-product rate that a training step reaches, and the growth of an epoch's time.

python -m benchmarks.roofline [--images 48000] [--rounds 3] [--results DIR] [--picture docs/images/growth.png]

The rate is the highest of products of two float32 matrices of 2048 x 2048 in the same process, before and after
each measurement. Epochs are passes of train_epoch, compiled before, without validation; the fastest of the rounds
counts. A wide network is timed on an eighth of the images and its seconds are multiplied.
"""

import dataclasses
import time
from math import prod
from pathlib import Path
from typing import Any

import jax

import cnn
from benchmarks.measure import RESULTS, run_main, write_result
from cnn.look.cost import matmul_rate
from experiments.fashion_cnn import CONFIG

BATCH_SIZES = (32, 128, 512)
SHARES = (1 / 4, 1 / 2, 1)
WIDTHS = (1, 2, 4)
PART = 8
"""A wide network trains on one part of so many."""


def flops_per_image(config: cnn.ExperimentConfig) -> int:
    """Returns the floating-point operations of the matrix products of a training step, per image.

    Forward, a layer has one multiplication and one addition per kernel value and output position; a dense layer has one
    position. Backward, the gradients of the kernel and of the input cost the same each; the gradient of the images, the
    input of the first layer, is not needed.
    """
    state = cnn.create_state(config)
    forward = [
        2 * prod(size or 1 for size in row.output_shape[:-1]) * state.params[row.name]["kernel"].size
        for row in cnn.layer_table(state)
        if "kernel" in state.params.get(row.name, {})
    ]
    return 3 * sum(forward) - forward[0]


def epoch_seconds(config: cnn.ExperimentConfig, split: cnn.Split, rounds: int) -> float:
    """Returns the seconds of the fastest pass over a split on the device."""
    state = cnn.create_state(config)
    train_epoch = cnn.train_epoch.lower(state, split, batch_size=config.optim.batch_size).compile()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        state, _ = jax.block_until_ready(train_epoch(state, split))
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def widened(config: cnn.ExperimentConfig, factor: int) -> cnn.ExperimentConfig:
    """Returns the experiment with the features of each hidden layer multiplied by a factor."""
    names = ("conv1_features", "conv2_features", "dense_features")
    features = {name: factor * getattr(config.model, name) for name in names}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **features))


def draw_growth(growth: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draws seconds over GFLOP, both logarithmic, with a line of proportional growth."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    whole = growth["images"][-1]
    work = [row["gflop"] for rows in growth.values() for row in rows]
    ends = min(work) / 1.5, max(work) * 1.5
    axes.plot(ends, [whole["seconds"] * end / whole["gflop"] for end in ends], ":", color="gray", label="proportional")
    for (_, rows), marker, label in zip(growth.items(), "os", ("more images", "wider layers"), strict=True):
        axes.plot([row["gflop"] for row in rows], [row["seconds"] for row in rows], f"{marker}-", label=label)
        for row in rows:
            axes.annotate(
                row["label"],
                (row["gflop"], row["seconds"]),
                (8, -12) if marker == "o" else (-8, 8),
                textcoords="offset points",
                horizontalalignment="left" if marker == "o" else "right",
                fontsize=9,
            )
    axes.set(xscale="log", yscale="log", xlabel="GFLOP an epoch", ylabel="seconds an epoch")
    axes.grid(which="both", alpha=0.2)
    axes.legend(loc="upper left", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"wrote {path}")


def main(
    images: int = 48_000, rounds: int = 3, results: Path = RESULTS, picture: Path = Path("docs/images/growth.png")
) -> None:
    """Measure the share of the matrix-product rate, print it, write roofline.json and draw growth.png.

    Args:
        images: Number of training images.
        rounds: Number of passes, of which the fastest counts.
        results: Directory for roofline.json.
        picture: File for the picture.
    """
    whole = jax.device_put(jax.tree.map(lambda array: array[:images], cnn.load_data(CONFIG.data).train))
    # The machine's rate drifts, so that one measurement may miss its peak.
    steps, peak = [], matmul_rate()
    for batch_size in BATCH_SIZES:
        config = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, batch_size=batch_size))
        seconds = epoch_seconds(config, whole, rounds)
        peak = max(peak, matmul_rate())
        rate = flops_per_image(config) * images / seconds
        steps.append(
            {
                "batch_size": batch_size,
                "gflop_per_step": flops_per_image(config) * batch_size / 1e9,
                "seconds_per_epoch": seconds,
                "gflop_per_second": rate / 1e9,
            }
        )
        print(f"batch {batch_size:3}   {rate / 1e9:6.1f} GFLOP/s; the peak so far is {peak / 1e9:.1f}", flush=True)

    growth: dict[str, list[dict[str, Any]]] = {"images": [], "width": []}
    for share in SHARES:
        count = round(images * share)
        split = jax.tree.map(lambda array, count=count: array[:count], whole)
        growth["images"].append(
            {
                "label": f"{count:,} images",
                "gflop": flops_per_image(CONFIG) * count / 1e9,
                "seconds": epoch_seconds(CONFIG, split, rounds),
            }
        )
        print(growth["images"][-1], flush=True)
    part = jax.tree.map(lambda array: array[: images // PART], whole)
    for factor in WIDTHS:
        config = widened(CONFIG, factor)
        growth["width"].append(
            {
                "label": f"{factor}x as wide",
                "gflop": flops_per_image(config) * images / 1e9,
                "seconds": PART * epoch_seconds(config, part, rounds),
            }
        )
        print(growth["width"][-1], flush=True)
    write_result(
        "roofline",
        {
            "what": "share of the float32 matrix-product rate, and seconds of a training pass",
            "images": images,
            "flops_per_image": flops_per_image(CONFIG),
            "matmul_gflop_per_second": peak / 1e9,
            "steps": [{**step, "share": step["gflop_per_second"] * 1e9 / peak} for step in steps],
            "growth": growth,
        },
        results,
    )
    draw_growth(growth, picture)


if __name__ == "__main__":
    run_main(main)
