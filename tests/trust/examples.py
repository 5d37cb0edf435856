"""The content of a robustness.json, without a network."""

from typing import Any

from cnn.intervals import accuracy_interval
from cnn.trust.corruptions import CORRUPTIONS
from cnn.trust.robustness import EPSILONS, mean_corruption_error


def _scores(right: int, count: int) -> dict[str, Any]:
    return {"accuracy": right / count, "accuracy_interval": list(accuracy_interval(right, count))}


def robustness_values() -> dict[str, Any]:
    """Of 2,000 images; each severity costs another 301 of them, or 101 with JPEG."""
    corruptions = {
        name: [
            {"strength": strength, **_scores(1800 - severity * (101 if name == "jpeg" else 301), 2000), "ece": 0.0625}
            for severity, strength in enumerate(entry.strengths, 1)
        ]
        for name, entry in CORRUPTIONS.items()
    }
    attacks = {
        name: [
            {"epsilon": epsilon, **_scores(900 - lost * number, 1000)}
            for number, epsilon in enumerate((0.0, *EPSILONS))
        ]
        for name, lost in (("fgsm", 101), ("pgd", 149))
    }
    return {
        "mean_corruption_error": mean_corruption_error(corruptions),
        "best_epoch": 3,
        "images": 2000,
        "test_images": 10_000,
        "clean": {**_scores(1800, 2000), "ece": 0.0123},
        "corruptions": corruptions,
        "attacked_images": 1000,
        "attacks": attacks,
    }
