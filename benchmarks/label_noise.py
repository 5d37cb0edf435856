"""Wrong labels that are found: some training labels are changed at random, and the suspects are compared with them.

python -m benchmarks.label_noise [--rates 0.01 0.05 0.1] [--folds 3] [--seed 0] [--directory runs/label-noise]

Each rate takes a training of fashion_fast for each fold, some 30 seconds on two idle cores. An image whose published
label is wrong counts against the precision, as only the changed labels are known to be wrong.
"""

from pathlib import Path
from typing import Any

import numpy as np

import cnn
from benchmarks.measure import run_main, write_result
from cnn.cli import enable_compilation_cache, enable_onednn_bfloat16
from cnn.trust.confident import confident_classes, find_suspects
from cnn.trust.folds import out_of_sample
from experiments.fashion_fast import CONFIG


def flip_labels(labels_N: np.ndarray, rate: float, seed: int, classes: int = 10) -> np.ndarray:
    """Returns the labels with a share of them changed to another class at random, int32 [N]."""
    rng = np.random.default_rng(seed)
    flipped = rng.choice(len(labels_N), round(rate * len(labels_N)), replace=False)
    noisy_N = labels_N.copy()
    noisy_N[flipped] = (labels_N[flipped] + rng.integers(1, classes, len(flipped))) % classes
    return noisy_N


def scores(is_suspect_N: np.ndarray, is_flipped_N: np.ndarray) -> dict[str, Any]:
    """Returns the number of suspects, and their recall and precision."""
    found, suspects = int((is_suspect_N & is_flipped_N).sum()), int(is_suspect_N.sum())
    return {"suspects": suspects, "recall": found / int(is_flipped_N.sum()), "precision": found / max(suspects, 1)}


def main(
    rates: tuple[float, ...] = (0.01, 0.05, 0.1),
    folds: int = 3,
    seed: int = 0,
    directory: Path = Path("runs/label-noise"),
) -> None:
    """Train the folds at each rate, print recall and precision, and write label_noise.json.

    Args:
        rates: Shares of the training and validation labels that are changed.
        folds: Number of trainings at each rate.
        seed: Of the changes.
        directory: Directory of the runs; the same command resumes them.
    """
    enable_onednn_bfloat16(CONFIG)
    enable_compilation_cache()
    splits = cnn.load_data(CONFIG.data)
    labels_N, train = np.concatenate([splits.train.labels, splits.val.labels]), len(splits.train.labels)
    rows = []
    for rate in rates:
        noisy_N = flip_labels(labels_N, rate, seed)
        flipped = splits._replace(
            train=splits.train._replace(labels=noisy_N[:train]), val=splits.val._replace(labels=noisy_N[train:])
        )
        place = directory / f"{rate}-seed-{seed}"
        probabilities_NxK = out_of_sample(CONFIG, flipped, place, folds, lambda line: print(line, flush=True))
        suspects, is_suspect_N = find_suspects(probabilities_NxK, noisy_N), np.zeros(len(noisy_N), bool)
        is_suspect_N[suspects.images] = True
        confident_N = confident_classes(probabilities_NxK, noisy_N)
        rules = {"ours": is_suspect_N, "confident joint": (confident_N >= 0) & (confident_N != noisy_N)}
        right = suspects.suggestions == labels_N[suspects.images]
        rows.append(
            {
                "rate": rate,
                "flipped": int((noisy_N != labels_N).sum()),
                "images": len(labels_N),
                "accuracy": float((probabilities_NxK.argmax(1) == labels_N).mean()),
                "rules": {name: scores(rule_N, noisy_N != labels_N) for name, rule_N in rules.items()},
                "suggestions_right": float(right[(noisy_N != labels_N)[suspects.images]].mean()),
            }
        )
        print(rows[-1], flush=True)
    what = "suspects among labels of which a share was changed at random"
    write_result("label_noise", {"what": what, "experiment": CONFIG.name, "folds": folds, "seed": seed, "rows": rows})


if __name__ == "__main__":
    run_main(main)
