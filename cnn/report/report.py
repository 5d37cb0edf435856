"""A run directory -> one self-contained HTML page: results, learning curves, errors, calibration, layer explorer.

This module has the content of a classifier's page, ``scene_page`` that of a detector's, ``run_parts`` what both have,
``page`` the HTML, and ``explorer`` images and layers.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.splits import Splits
from cnn.look.batches import probabilities
from cnn.look.scores import MANY, calibrated
from cnn.report.classes import class_table, confusion_note, confusion_table, most_mistaken
from cnn.report.curves import curves
from cnn.report.explanations import explanations_section
from cnn.report.explorer import explorer_data
from cnn.report.page import escaped, fill_template, percent, render_page
from cnn.report.robustness import robustness_section
from cnn.report.run_parts import class_cards, figures_section, shared_fields
from cnn.report.scene_page import scene_page
from cnn.report.svg import reliability_svg
from cnn.report.unknown import mark_unlike, unknown_section
from cnn.resolution import korean_names, model_class_names
from cnn.runs import outputs, rundir
from cnn.runs.result import Result, load_images, load_result

RETRY_HINT = "fix that, and run the same command again"
"""How to fix a page that cannot be written."""


class EvaluatedRun(NamedTuple):
    """A finished run, and the predictions of its best network for its test images."""

    run_dir: Path
    description: dict[str, Any]
    """The content of config.json."""
    config: ExperimentConfig
    result: Result
    splits: Splits
    probabilities: np.ndarray
    """Of the test images, [N, K]."""

    @property
    def correct(self) -> np.ndarray:
        """Whether each test image is classified correctly, bool [N]."""
        return self.probabilities.argmax(1) == self.splits.test.labels


def write_report(run_dir: Path, output: Path | None = None, splits: Splits | None = None) -> Path:
    """Writes the page of a run, and returns its path.

    Args:
      run_dir: directory of a finished run.
      output: path of the file; None for report.html in the run's directory.
      splits: its images; None loads those of the configuration.

    Raises:
      UserError: the directory holds no finished run, or its images are missing, or the page cannot be written.
      DamagedError: the checkpoint is damaged.
    """
    page = PAGES[rundir.read_description(run_dir)["config"].model.task]
    output = outputs.check_file(output or run_dir / rundir.REPORT, "page", [run_dir])
    rundir.write_text(output, page(run_dir, splits), RETRY_HINT)
    return output


def evaluate_test(run_dir: Path, splits: Splits | None = None) -> EvaluatedRun:
    """Returns a run with the predictions of its best network for its test images.

    Raises:
      UserError: the directory holds no finished run, or its images are missing.
      DamagedError: the checkpoint is damaged.
    """
    config, result = load_result(run_dir)
    splits = load_images(run_dir) if splits is None else splits
    predicted = probabilities(result.state, splits.test.images)
    return EvaluatedRun(run_dir, rundir.read_description(run_dir), config, result, splits, predicted)


def class_page(run_dir: Path, splits: Splits | None) -> str:
    """Returns the page of a classifier's run, with its images, or None for those of its configuration."""
    return run_page(evaluate_test(run_dir, splits))


def run_page(run: EvaluatedRun) -> str:
    """Returns the page of one classifier's run."""
    config, result, test = run.config, run.result, run.splits.test
    names = model_class_names(config)
    korean = korean_names(config.data)
    val = probabilities(result.state, run.splits.val.images)
    values, bins = calibrated(val, run.splits.val.labels, run.probabilities, test.labels, names)
    shown = most_mistaken(values["confusion_matrix"])
    confusion = np.asarray(values["confusion_matrix"])[np.ix_(shown, shown)].tolist()
    explorer = explorer_data(result.state, test, run.probabilities)
    mark_unlike(run.run_dir, result.state, run.splits, explorer.data["images"])
    data = {
        "classes": names,
        "korean": [*korean, *[""] * (len(names) - len(korean))] if korean else None,
        "confusion": confusion,
        "shown": shown,
        "curves": {"all": curves(result.history, result.summary["best_epoch"])},
        "explorer": explorer.data,
    }
    confused = values["most_confused"][:3]
    body = fill_template(
        "run.html",
        **shared_fields(run.run_dir, run.description, config, result, run.splits, figures_section(run.run_dir)),
        cards=class_cards(result.summary, values),
        confusion=confusion_table(confusion, [names[label] for label in shown]),
        confusion_note=confusion_note(len(names)),
        order=" The classes with the lowest F1 come first." if len(names) > MANY else "",
        wide=' class="wide"' if len(names) > MANY else "",
        most_confused="Most frequent: "
        + escaped("; ".join(f"{name} predicted as {other} ({wrong:,})" for name, other, wrong in confused))
        if confused
        else "No image is misclassified.",
        reliability=reliability_svg(bins),
        robustness=robustness_section(run.run_dir),
        calibration=f"Expected calibration error {values['ece']:.4f}, and {values['ece_scaled']:.4f} with the "
        f"temperature {values['temperature']:.2f}, fitted on the validation images.",
        unknown=unknown_section(run.run_dir, result.state),
        classes=class_table(values["classes"], korean),
        class_options="".join(f'<option value="{label}">{escaped(name)}</option>' for label, name in enumerate(names)),
        images_note=explorer.images_note,
        layers_note=explorer.layers_note,
        explanations=explanations_section(result.state, config, run.splits.train, test, run.probabilities),
    )
    return render_page(
        f"{config.name}: {percent(values['accuracy'], 1)} test accuracy",
        body,
        data,
        "charts.js",
        "explorer.js",
        "confusion.js",
    )


PAGES = {"classification": class_page, "detection": scene_page}
"""By task."""
