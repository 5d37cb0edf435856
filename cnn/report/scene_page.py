"""A detector's run -> one self-contained HTML page: average precision, learning curves, mistakes, figures."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn.data.splits import Splits
from cnn.figures import plots
from cnn.look.detection import AREAS, FIGURES, drawings, evaluate_detector
from cnn.report.curves import charts, curves
from cnn.report.page import escaped, fill_template, percent, render_page, table
from cnn.report.run_parts import cards, figure, figures_section, run_cards, shared_fields
from cnn.resolution import model_class_names
from cnn.runs import rundir
from cnn.runs.result import load_images, load_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE_WIDTH = 1200
"""Maximum width of a figure, in pixels."""

CAPTIONS = {
    "precision_recall": "Precision by recall, of each class and their mean",
    "average_precision": "Average precision by class and by size of the object",
    "detection_confusion": "True and detected classes; the background is one more",
    "mistakes": "Objects that are missed, and boxes where no object is",
}
"""Of the figures of the evaluation, by name."""


def scene_page(run_dir: Path, splits: Splits | None) -> str:
    """Returns the page of a detector's run.

    Args:
      run_dir: directory of a finished run.
      splits: its images; None loads those of the configuration.

    Raises:
      UserError: the directory holds no finished run, or its images are missing.
      DamagedError: the checkpoint is damaged.
    """
    config, result = load_result(run_dir)
    splits, names = load_images(run_dir) if splits is None else splits, model_class_names(config)
    evaluated = evaluate_detector(result.state, splits, names)
    values = evaluated.values
    pictures = {name: _picture(draw, CAPTIONS[name]) for name, draw in drawings(evaluated, names).items()}
    mistakes, figures = pictures.pop("mistakes"), figures_section(run_dir, "detection", FIGURES)
    body = fill_template(
        "detection.html",
        **shared_fields(run_dir, rundir.read_description(run_dir), config, result, splits, figures),
        objects=f"{values['objects']['all']:,}",
        cards=_cards(result.summary, values),
        charts=charts(result.history),
        **AREAS,
        classes=_class_table(values["classes"]),
        plots="".join(pictures.values()),
        threshold=f"{values['threshold']:.2f}",
        lists=_lists(values),
        mistakes=mistakes,
    )
    data = {"curves": {"all": curves(result.history, result.summary["best_epoch"])}}
    return render_page(f"{config.name}: {percent(values['map'] or 0, 1)} mAP", body, data, "charts.js")


def _picture(draw: Callable[[], "Figure"], caption: str) -> str:
    """A figure with its caption, HTML."""
    from PIL import Image

    picture, content = Image.open(io.BytesIO(plots.png(draw()))).convert("RGB"), io.BytesIO()
    picture.thumbnail((PICTURE_WIDTH, 4 * PICTURE_WIDTH))
    picture.save(content, "WEBP", quality=80)
    return figure(content.getvalue(), picture.size, caption)


def _cards(summary: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    low, high = values["accuracy_interval"]
    return cards(
        {
            "Test mAP": (_percent(values["map"]), "mean average precision at IoU 0.5 to 0.95"),
            "Test mAP 0.5": (_percent(values["map_50"]), f"at IoU 0.75 {_percent(values['map_75'])}"),
            "Test accuracy": (
                percent(values["accuracy"]),
                f"images without mistake; 95 % interval {percent(low)} to {percent(high)}",
            ),
            **run_cards(summary),
        }
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _class_table(classes: Mapping[str, Mapping[str, Any]]) -> str:
    heads = {"ap": "AP", "ap_50": "AP 0.5", "ap_75": "AP 0.75", **{f"ap_{area}": area for area in AREAS}}
    rows = (
        (
            escaped(name),
            *("–" if values[key] is None else f"{values[key]:.3f}" for key in heads),
            f"{values['objects']:,}",
        )
        for name, values in classes.items()
    )
    return f'<div class="scroll">{table(("class", *heads.values(), "objects"), rows)}</div>'


def _lists(values: Mapping[str, Any]) -> str:
    """What is most confused, missed, and seen for nothing, as tables."""
    tables: dict[str, Sequence[tuple[str, str]]] = {
        "Most confused": [(f"{name} as {other}", f"{count:,}") for name, other, count in values["most_confused"]],
        "Most missed": [(name, f"{missed:,} of {total:,}") for name, missed, total in values["most_missed"]],
        "Seen where no object is": [(name, f"{count:,}") for name, count in values["most_unfounded"]],
    }
    return "".join(
        table((), ((escaped(name), count) for name, count in rows or [("none", "")]), title)
        for title, rows in tables.items()
    )
