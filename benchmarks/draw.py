"""Draws the pictures of docs/ladder.md from benchmarks/results/*.json: python -m benchmarks.draw."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.measure import RESULTS

IMAGES = Path("docs/images")


def ladder(result: dict[str, Any]) -> Any:
    """Returns test accuracy over the FLOPs of training; the line is the Pareto front."""
    figure, axes = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
    # Forward, and about twice that backward.
    flops = {name: 3 * rung["flops"] * rung["train_images"] * rung["epochs"] for name, rung in result["rungs"].items()}
    accuracy = {name: rung["summary"]["test_accuracy"] for name, rung in result["rungs"].items()}
    front: list[str] = []
    for name in sorted(flops, key=lambda name: flops[name]):
        if not front or accuracy[name]["mean"] > accuracy[front[-1]]["mean"]:
            front.append(name)
    axes.plot([flops[name] for name in front], [accuracy[name]["mean"] for name in front], ":", color="gray")
    for name, values in accuracy.items():
        axes.errorbar(flops[name], values["mean"], values["std"], fmt="o", color="C0", capsize=3)
        # Above the line for points on it, else beside the point.
        offset, side = ((-7, 4), "right") if name in front else ((8, -3), "left")
        axes.annotate(
            name,
            (flops[name], values["mean"]),
            offset,
            textcoords="offset points",
            fontsize=9,
            horizontalalignment=side,
        )
    axes.set(xscale="log", xlabel="FLOPs of training, if it takes all of its epochs", ylabel="test accuracy")
    axes.margins(x=0.17)
    axes.set_title("mean ± standard deviation of the seeds; dotted, the best for its cost", fontsize=10)
    axes.grid(alpha=0.2)
    return figure


def transfer(result: dict[str, Any]) -> Any:
    """Returns test accuracy over images per class, with a line per initialization and a panel per task."""
    titles = {"fashion": "two new classes of Fashion-MNIST", "digits": "scikit-learn's digits"}
    figure, panels = plt.subplots(1, len(titles), figsize=(9, 4.2), layout="constrained")
    for axes, (task, title) in zip(panels, titles.items(), strict=True):
        ways = result["tasks"][task]
        numbers = np.array([int(count) for count in next(iter(ways.values()))])
        for place, (way, counts) in enumerate(ways.items()):
            means, stds = ([values[name] for values in counts.values()] for name in ("mean", "std"))
            # Side by side, or the bars would overlap.
            beside = numbers * 1.03 ** (place - (len(ways) - 1) / 2)
            axes.errorbar(beside, means, stds, fmt="o-", capsize=3, label=way)
        axes.set(xscale="log", title=title, xlabel="images a class", ylabel="test accuracy")
        axes.set_xticks(numbers, list(map(str, numbers)), minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.2)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle("mean ± standard deviation of the seeds", fontsize=10)
    return figure


def main() -> None:
    """Draws a picture for each result that exists."""
    for name, draw in {"ladder": ladder, "transfer": transfer}.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            figure = draw(json.loads(path.read_text()))
            figure.savefig(IMAGES / f"{name}.png", dpi=150)
            plt.close(figure)
            print(f"wrote {IMAGES / name}.png")


if __name__ == "__main__":
    main()
