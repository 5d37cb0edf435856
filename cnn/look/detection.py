"""A detector's run -> the numbers of its evaluation, tables and figures: average precision, and what is confused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from cnn.data.splits import Split, Splits
from cnn.detection import average_precision as precision
from cnn.detection.boxes import Detections
from cnn.detection.mistakes import Confusion, best_score, confusion
from cnn.intervals import accuracy_interval
from cnn.look.evaluation import NAME, WORST
from cnn.look.scene_figures import found
from cnn.look.scores import MANY, most_confused
from cnn.runs.streaming import evaluate_split
from cnn.text import columns, shortened
from cnn.training.state import TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("precision_recall.png", "average_precision.png", "detection_confusion.png", "mistakes.png")
"""Names of the figures."""

MOST = 5
"""Printed pairs of confused classes, and classes that are missed or seen for nothing."""

AREAS = {"small": "up to 32 x 32 pixels", "medium": "up to 96 x 96 pixels", "large": "above 96 x 96 pixels"}
"""Sizes of objects, by area range."""


class Evaluated(NamedTuple):
    """A detector's detections in the test images, compared with their boxes."""

    test: Split
    detections: Detections
    average: precision.AveragePrecision
    mistakes: Confusion
    values: dict[str, Any]
    """The numbers, as in evaluation.json."""


def evaluate_detector(state: TrainState, splits: Splits, names: Sequence[str]) -> Evaluated:
    """Returns the evaluation of a detector on its test images, with the best threshold of the validation images."""
    detections = found(state, splits.test.images)
    matches = precision.match(detections, splits.test.labels, len(names))
    val = precision.match(found(state, splits.val.images), splits.val.labels, len(names))
    threshold, average = best_score(val), precision.average_precision(matches)
    mistakes = confusion(detections, splits.test.labels, len(names), threshold)
    right = int(jax.device_get(evaluate_split(state, splits.test)).correct)
    values = evaluation(average, mistakes.counts, right, len(detections.scores), threshold, names)
    return Evaluated(splits.test, detections, average, mistakes, {"step": int(state.step), **values})


def evaluation(
    average: precision.AveragePrecision, counts: np.ndarray, right: int, images: int, threshold: float, names: Any
) -> dict[str, Any]:
    """Returns the numbers of an evaluation, by name.

    Args:
      average: average precision on the test images.
      counts: of confusions, integers [K + 1, K + 1], the last ones those of the background.
      right: number of images without any mistake.
      images: number of images.
      threshold: least score of the boxes that the confusions count.
      names: of the classes, [K].
    """
    classes = precision.class_summary(average, names)
    missed, unfounded, objects = counts[:-1, -1], counts[-1, :-1], counts[:-1].sum(1)
    by_missed, by_unfounded = (np.argsort(-values, kind="stable")[:MOST] for values in (missed, unfounded))
    return {
        "accuracy": right / images,
        "accuracy_interval": list(accuracy_interval(right, images)),
        "images": images,
        **precision.summary(average),
        "objects": dict(zip(precision.AREAS, average.objects.sum(0).tolist(), strict=True)),
        "threshold": threshold,
        "classes": {name: {**classes[name], "objects": int(objects[label])} for label, name in enumerate(names)},
        "most_confused": [[names[a], names[b], count] for a, b, count in most_confused(counts[:-1, :-1], MOST)],
        "most_missed": [[names[k], int(missed[k]), int(objects[k])] for k in by_missed if missed[k]],
        "most_unfounded": [[names[k], int(unfounded[k])] for k in by_unfounded if unfounded[k]],
        "confusion_matrix": counts.tolist(),
    }


def format_evaluation(values: dict[str, Any]) -> str:
    """Returns an evaluation as tables."""
    objects, (low, high) = values["objects"], values["accuracy_interval"]
    means = {
        "mAP": ("map", "mean average precision over classes and IoU 0.5 to 0.95"),
        "  at IoU 0.5": ("map_50", ""),
        "  at IoU 0.75": ("map_75", ""),
        **{f"  {area}": (f"map_{area}", f"{size}; {objects[area]:,} objects") for area, size in AREAS.items()},
    }
    lines = [f"{title:14}  {_number(values[name]):>6}   {note}" for title, (name, note) in means.items()]
    note = f"images without any mistake; 95 % interval {low:.4f} to {high:.4f}"
    lines += [f"{'accuracy':14}  {values['accuracy']:.4f}   {note}", ""]
    shown = list(values["classes"].items())
    if len(shown) > MANY:
        known = [item for item in shown if item[1]["ap"] is not None]
        shown = sorted(known, key=lambda item: item[1]["ap"])[:WORST]
    names = [shortened(name, NAME) for name, _ in shown]
    width = max(14, *(columns(name) + 2 for name in names), 0)
    lines.append(f"{'class':{width}}{'AP':>10}{'AP 0.5':>10}{'AP 0.75':>10}{'objects':>10}")
    for name, (_, scores) in zip(names, shown, strict=True):
        cells = "".join(f"{_number(scores[score]):>10}" for score in ("ap", "ap_50", "ap_75"))
        lines.append(f"{name}{' ' * (width - columns(name))}{cells}{scores['objects']:>10,}")
    if others := len(values["classes"]) - len(shown):
        lines.append(f"and {others:,} other classes, whose AP is not lower or unknown, in evaluation.json")
    lines += ["", f"boxes with a score of at least {values['threshold']:.2f}, the best F1 on the validation images"]
    tables = {
        "most confused": [
            (count, f"{_short(name)} detected as {_short(other)}") for name, other, count in values["most_confused"]
        ],
        "most missed": [(missed, f"of {total:,}, {_short(name)}") for name, missed, total in values["most_missed"]],
        "seen where no object is": [(count, _short(name)) for name, count in values["most_unfounded"]],
    }
    for title, rows in tables.items():
        lines += [title, *(f"  {count:>5,}  {text}" for count, text in rows or [(0, "")])]
    return "\n".join(map(str.rstrip, lines))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(name: str) -> str:
    return shortened(name, NAME)


def drawings(evaluated: Evaluated, names: Sequence[str]) -> dict[str, Callable[[], "Figure"]]:
    """Returns, by file name, what draws the figures of an evaluation."""
    from cnn.figures import detection_plots, scene_plots

    average, (test, detections, _, mistakes, values) = evaluated.average, evaluated
    where = f"{values['images']:,} test images with {values['objects']['all']:,} objects"
    areas = ["all", *(f"{area}: {size}" for area, size in AREAS.items())]
    return {
        "precision_recall": lambda: detection_plots.precision_recall(
            average.precision[0], precision.RECALLS, names, average.ap[0, :, 0], f"At an IoU of 0.5, on {where}"
        ),
        "average_precision": lambda: detection_plots.average_precision_by_class(
            average.ap, names, areas, f"Average precision on {where}"
        ),
        "detection_confusion": lambda: detection_plots.detection_confusion(mistakes.counts, names),
        "mistakes": lambda: scene_plots.mistakes(
            test.images,
            np.asarray(test.labels),
            detections,
            mistakes.missed,
            mistakes.background,
            names,
            f"Mistakes in test images, of boxes with a score of at least {values['threshold']:.2f}",
        ),
    }


def evaluate_run(run_dir: Path) -> tuple[dict[str, Any], dict[str, Callable[[], "Figure"]]]:
    """Returns the evaluation of a run's best detector on its test images, and by file name what draws its figures.

    Raises:
      UserError: the directory holds no run, or the run's images are missing or have changed.
      DamagedError: the checkpoint is damaged.
    """
    from cnn.resolution import model_class_names
    from cnn.runs import rundir
    from cnn.runs.checkpoint import load_best
    from cnn.runs.identity import RUN
    from cnn.runs.result import load_images

    state, config = load_best(run_dir)
    names = model_class_names(config)
    evaluated = evaluate_detector(state, load_images(run_dir), names)
    # By which predict knows that the threshold is of this run.
    values = {RUN: rundir.read_identity(run_dir).digest, **evaluated.values}
    return values, drawings(evaluated, names)
