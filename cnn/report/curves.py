"""The learning curves of a page: loss and accuracy, and of a detector mean average precision."""

from collections.abc import Mapping, Sequence
from typing import Any

MEASURES = {
    "map": ("Mean average precision", {"val_map": "validation, IoU 0.5 to 0.95", "val_map_50": "validation, IoU 0.5"}),
    "loss": ("Loss", {"train_loss": "training", "val_loss": "validation"}),
    "accuracy": ("Accuracy", {"train_accuracy": "training", "val_accuracy": "validation"}),
}
"""By name of a chart, its title, and the label of each curve by its key in a row of metrics.jsonl."""


def curves(history: Sequence[Mapping[str, Any]], best_epoch: int) -> dict[str, Any]:
    """Returns the curves for ``charts.js``: epochs, the best one, and by chart labels and values."""
    return {
        "epochs": [row["epoch"] for row in history],
        "best": best_epoch,
        **{
            name: [{"label": label, "values": [round(row[key], 6) for row in history]} for key, label in labels.items()]
            for name, labels in _measured(history).items()
        },
    }


def charts(history: Sequence[Mapping[str, Any]]) -> str:
    """Returns the elements in which ``charts.js`` draws the curves, HTML."""
    return "".join(
        f'<figure><h3>{MEASURES[name][0]}</h3><div class="chart" data-chart="{name}" role="img" '
        f'aria-label="{MEASURES[name][0]} by epoch"></div></figure>'
        for name in _measured(history)
    )


def _measured(history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The labels by key of each chart whose values all rows have."""
    return {
        name: labels for name, (_, labels) in MEASURES.items() if all(key in row for row in history for key in labels)
    }
