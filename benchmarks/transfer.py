"""Accuracy over images per class: initialization from another network's layers against random initialization.

python -m benchmarks.transfer [--seeds 5] [--directory runs/transfer]

Two tasks: two classes of Fashion-MNIST, after training on the other eight; and scikit-learn's digits, after training
on all of Fashion-MNIST. The trunk, all layers but the logits, is transferred, and trained at the rate of the logits, at
a tenth of it, or not at all.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import cnn
from benchmarks.measure import run_main, summary, write_result
from cnn.cli import enable_compilation_cache
from experiments.fashion_fast import CONFIG

IMAGES_A_CLASS = {"fashion": (10, 50, 250), "digits": (10, 50, 90)}
"""Of the digits, there are no more than 90 of each to train on."""

NEW_CLASSES = (0, 6)
"""T-shirt and shirt, the pair that a trained network confuses most (``python -m cnn evaluate``)."""

TRUNK = ("conv*", "dense")
WAYS: dict[str, dict[str, Any]] = {
    "from scratch": {},
    "trunk at the same rate": {},
    "trunk at a tenth of the rate": {"learning_rate": 1e-2, "learning_rate_multipliers": ("conv*=0.1", "dense=0.1")},
    "trunk frozen": {"learning_rate": 1e-2, "learning_rate_multipliers": ("conv*=0", "dense=0")},
}
"""The trunk's rate is the same wherever it is trained; the logits, which begin at random, have ten times as much in the
last two, as in so few steps they come to little alone with less."""

STEPS = 300
"""Of every run on few images, however few they are."""

BATCH_SIZE = 20


def of_classes(split: cnn.Split, classes: tuple[int, ...]) -> cnn.Split:
    """Returns the images of some classes, relabelled from 0."""
    kept = np.isin(split.labels, classes)
    return cnn.Split(split.images[kept], np.searchsorted(classes, split.labels[kept]).astype(np.int32))


def some_of_each_class(split: cnn.Split, count: int, seed: int) -> cnn.Split:
    """Returns a number of images of each class, drawn at random."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(split.labels == label))[:count] for label in np.unique(split.labels)]
    chosen = np.concatenate(drawn)
    return cnn.Split(split.images[chosen], split.labels[chosen])


def digits() -> cnn.Splits:
    """Returns scikit-learn's 1,797 digits, resized to 28 x 28: 1,000 for training, the rest halved.

    Part of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    data: Any = load_digits()
    large = [
        np.asarray(Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((28, 28), Image.Resampling.BILINEAR))
        for image in data.images
    ]
    images, order = np.stack(large)[..., None], np.random.default_rng(0).permutation(len(large))
    parts = np.split(order, [1000, 1398])
    return cnn.Splits(*(cnn.Split(images[part], data.target[part].astype(np.int32)) for part in parts))


def accuracy(base: cnn.ExperimentConfig, way: str, source: Path, splits: cnn.Splits, seed: int, place: Path) -> float:
    """Returns the test accuracy after a number of steps on the given training images."""
    epochs = max(round(STEPS * BATCH_SIZE / len(splits.train.labels)), 1)
    transfer = cnn.TransferConfig() if way == "from scratch" else cnn.TransferConfig(str(source), TRUNK)
    config = dataclasses.replace(
        base,
        name="transfer",
        optim=cnn.OptimConfig(schedule="one_cycle", batch_size=BATCH_SIZE, **WAYS[way]),
        transfer=transfer,
        train=cnn.TrainConfig(epochs=epochs, patience=epochs, seed=seed, fused=True),
    )
    return cnn.fit(config, place, splits).summary["test_accuracy"]


def main(seeds: int = 5, directory: Path = Path("runs/transfer")) -> None:
    """Train both sources, then every initialization on every number of images; print each, and write transfer.json.

    Args:
        seeds: Number of seeds of each, every seed with its own images.
        directory: Directory of the runs; the same command resumes them.
    """
    enable_compilation_cache()
    fashion = cnn.load_data(CONFIG.data)
    old = tuple(label for label in range(10) if label not in NEW_CLASSES)
    tasks = {
        "fashion": (old, cnn.Splits(*(of_classes(split, NEW_CLASSES) for split in fashion))),
        "digits": (tuple(range(10)), digits()),
    }
    results: dict[str, Any] = {}
    for task, (classes, splits) in tasks.items():
        source = directory / task / "source"
        wide = dataclasses.replace(CONFIG, model=cnn.ModelConfig(classes=len(classes)))
        cnn.fit(wide, source, cnn.Splits(*(of_classes(split, classes) for split in fashion)))
        base = dataclasses.replace(CONFIG, model=cnn.ModelConfig(classes=len(np.unique(splits.train.labels))))
        for count in IMAGES_A_CLASS[task]:
            for way in WAYS:
                found = []
                for seed in range(seeds):
                    few = splits._replace(
                        train=some_of_each_class(splits.train, count, seed),
                        # As few validation images: a user with 10 per class has no 1,000 to choose an epoch by.
                        val=some_of_each_class(splits.val, min(count, 30), seed),
                    )
                    place = directory / task / f"{way.replace(' ', '-')}-{count}-{seed}"
                    found.append(accuracy(base, way, source, few, seed, place))
                print(task, way, count, f"{np.mean(found):.4f}", flush=True)
                results.setdefault(task, {}).setdefault(way, {})[str(count)] = summary(found) | {"values": found}
    what = f"test accuracy by images a class, {STEPS} steps of {BATCH_SIZE} images"
    write_result("transfer", {"what": what, "new_classes": NEW_CLASSES, "tasks": results})


if __name__ == "__main__":
    run_main(main)
