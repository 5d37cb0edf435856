"""What the best epoch is chosen by: the validation loss, or a score of the validation images."""

from typing import Any

import jax
import numpy as np

from cnn.data.splits import Split
from cnn.detection import average_precision as precision
from cnn.runs.streaming import evaluation_windows, is_streamed
from cnn.training.border import detect
from cnn.training.confusion import balanced_accuracy, confusion_matrix, macro_f1
from cnn.training.state import TrainState


def scores(monitor: str, state: TrainState, val: Split) -> dict[str, float]:
    """Returns the scores of an epoch's row besides loss and accuracy; {} if the monitor needs none."""
    return SCORES[state.spec.task.name](monitor, state, val)


def class_scores(monitor: str, state: TrainState, val: Split) -> dict[str, float]:
    """Returns the scores that count all classes alike, if the monitor needs them."""
    if monitor in ("val_loss", "val_accuracy"):
        return {}
    counts = np.sum([jax.device_get(confusion_matrix(state, part)) for part in _parts(val)], axis=0)
    return {"val_balanced_accuracy": balanced_accuracy(counts), "val_macro_f1": macro_f1(counts)}


def map_scores(monitor: str, state: TrainState, val: Split) -> dict[str, float]:
    """Returns the mean average precision of a detector, which costs little beside an epoch; 0 without any object."""
    summary = precision.summary(mean_average_precision(state, val))
    return {f"val_{name}": summary[name] or 0.0 for name in ("map", "map_50")}


def mean_average_precision(state: TrainState, split: Split) -> precision.AveragePrecision:
    """Returns the average precision of a detector on all scenes of a split, wherever they lie."""
    classes: Any = state.spec.model
    return precision.average_precision(
        precision.merge(
            *(
                precision.match(
                    jax.device_get(detect(state, part.images)), np.asarray(part.labels), classes.config.classes
                )
                for part in _parts(split)
            )
        )
    )


def _parts(split: Split) -> Any:
    windows = evaluation_windows(split) if is_streamed(split) else [(split, 0)]
    return (Split(part.images[start:], part.labels[start:]) for part, start in windows)


SCORES = {"classification": class_scores, "detection": map_scores}
"""By task, the function of monitor, state and validation split."""


def monitored(monitor: str, row: dict[str, Any]) -> float:
    """Returns what the early stopper compares, which is lower for a better epoch."""
    return row[monitor] if monitor == "val_loss" else -row[monitor]
