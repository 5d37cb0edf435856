"""What the best epoch is chosen by: the validation loss, or a score of the validation images."""

from collections.abc import Iterator
from typing import Any, cast

import jax
import numpy as np

from cnn.data.splits import Split
from cnn.detection import average_precision as precision
from cnn.runs.streaming import evaluation_windows, is_streamed
from cnn.training.border import detect
from cnn.training.confusion import balanced_accuracy, confusion_matrix, macro_f1
from cnn.training.state import TrainState

IMAGES = 2_048
"""Images whose outputs are in memory at a time."""


def scores(split: str, state: TrainState, images: Split, monitor: str = "") -> dict[str, float]:
    """Returns the scores of a split besides loss and accuracy, named after it; of a classifier, the monitor's."""
    return {f"{split}_{name}": score for name, score in SCORES[state.spec.task.name](state, images, monitor).items()}


def class_scores(state: TrainState, images: Split, monitor: str) -> dict[str, float]:
    """Returns the scores that count all classes alike, if the monitor needs them."""
    if monitor in ("", "val_loss", "val_accuracy"):
        return {}
    counts = np.sum([jax.device_get(confusion_matrix(state, part)) for part in _parts(images)], axis=0)
    return {"balanced_accuracy": balanced_accuracy(counts), "macro_f1": macro_f1(counts)}


def map_scores(state: TrainState, images: Split, monitor: str) -> dict[str, float]:
    """Returns the mean average precision of a detector, which costs little beside an epoch; 0 without any object."""
    summary = precision.summary(average_precision(state, images))
    return {name: summary[name] or 0.0 for name in ("map", "map_50")}


def average_precision(state: TrainState, images: Split) -> precision.AveragePrecision:
    """Returns the average precision of a detector on all scenes of a split, wherever they lie."""
    classes = cast(Any, state.spec.model).config.classes
    matches = [
        precision.match(jax.device_get(detect(state, part.images[at])), np.asarray(part.labels[at]), classes)
        for part in _parts(images)
        for at in (slice(start, start + IMAGES) for start in range(0, len(part.labels), IMAGES))
    ]
    return precision.average_precision(precision.merge(*matches))


def _parts(split: Split) -> Iterator[Split]:
    windows = evaluation_windows(split) if is_streamed(split) else [(split, 0)]
    return (Split(part.images[start:], part.labels[start:]) for part, start in windows)


SCORES = {"classification": class_scores, "detection": map_scores}
"""By task, the function of state, split and monitor."""


def monitored(monitor: str, row: dict[str, Any]) -> float:
    """Returns what the early stopper compares, which is lower for a better epoch."""
    return row[monitor] if monitor == "val_loss" else -row[monitor]
