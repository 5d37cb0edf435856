"""What the best epoch is chosen by: the validation loss, or a score of the validation images."""

from typing import Any

import jax
import numpy as np

from cnn.data.splits import Split
from cnn.runs.streaming import evaluation_windows, is_streamed
from cnn.training.confusion import balanced_accuracy, confusion_matrix, macro_f1
from cnn.training.state import TrainState


def class_scores(monitor: str, state: TrainState, val: Split) -> dict[str, float]:
    """Returns the scores that count all classes alike, for an epoch's row; {} if the monitor needs none."""
    if monitor in ("val_loss", "val_accuracy"):
        return {}
    windows = evaluation_windows(val) if is_streamed(val) else [(val, 0)]
    parts = (Split(part.images[start:], part.labels[start:]) for part, start in windows)
    counts = np.sum([jax.device_get(confusion_matrix(state, part)) for part in parts], axis=0)
    return {"val_balanced_accuracy": balanced_accuracy(counts), "val_macro_f1": macro_f1(counts)}


def monitored(monitor: str, row: dict[str, Any]) -> float:
    """Returns what the early stopper compares, which is lower for a better epoch."""
    return row[monitor] if monitor == "val_loss" else -row[monitor]
