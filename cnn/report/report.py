"""A run directory -> one self-contained HTML page: results, learning curves, errors, calibration, layer explorer.

This module has the content of the page, ``page`` its HTML, and ``explorer`` its images and layers.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.splits import Splits
from cnn.errors import RunDirError
from cnn.look.batches import probabilities
from cnn.look.scores import MANY, calibrated
from cnn.report.classes import class_table, confusion_note, confusion_table, most_mistaken
from cnn.report.explanations import explanations_section
from cnn.report.explorer import explorer_data
from cnn.report.page import UPLOT, escaped, fill_template, percent, picture_url, render_page, table
from cnn.report.robustness import robustness_section
from cnn.report.svg import reliability_svg
from cnn.report.unknown import mark_unlike, unknown_section
from cnn.resolution import dataset_name, korean_names, model_class_names, resolve_as
from cnn.runs import outputs, rundir
from cnn.runs.result import Result, load_images, load_result
from cnn.serialization import config_fields
from cnn.text import printable

FIGURE_BYTES = 700_000
"""Maximum size of all figures in a page."""

_FIGURES = {
    "learning_curves": "Loss and accuracy by epoch, on the training and the validation images",
    "dynamics": "The map of training images: mean and spread of their label's probability over the epochs",
    "sample": "Twenty training images with their classes",
    "model": "The layers of the network with their shapes and parameters",
    "weights_histogram": "Histogram of the weights of the first layer, untrained and trained",
    r"kernels_(\w+)_(trained|untrained)": r"Kernels of \1, \2",
    r"kernels_(\w+)_by_epoch": r"Kernels of \1 that training changed most, by epoch",
    "first_image": "The first training image",
    r"feature_maps_(\w+)": r"Feature maps of \1 for the first training image",
    "probabilities": "Six test images with their class probabilities",
    "confusion_matrix": "Confusion matrix",
    "reliability": "Reliability diagram: accuracy by confidence",
    "top_losses": "The test images with the highest loss",
    "embedding": "t-SNE of the outputs of the last hidden layer for test images",
    "robustness": "Accuracy and calibration error on corrupted images by severity, and accuracy on attacked images",
    "corruptions": "A test image under each corruption, at severities 1, 3 and 5",
}
"""Captions of the figures by a pattern of their file names, in the order in which they are shown; others follow."""

RETRY_HINT = "fix that, and run the same command again"
"""How to fix a page that cannot be written."""


CHOSEN_BY = {
    "val_loss": "lowest validation loss",
    "val_accuracy": "highest validation accuracy",
    "val_balanced_accuracy": "highest balanced accuracy of the validation images",
    "val_macro_f1": "highest macro F1 of the validation images",
}
"""How the best epoch was chosen, by what the run monitored."""


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
    rundir.read_description(run_dir)
    output = outputs.check_file(output or run_dir / rundir.REPORT, "page", [run_dir])
    rundir.write_text(output, run_page(evaluate_test(run_dir, splits)), RETRY_HINT)
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


def run_page(run: EvaluatedRun) -> str:
    """Returns the page of one run."""
    config, result, test = run.config, run.result, run.splits.test
    figures, names = _figures(run.run_dir), model_class_names(config)
    korean = korean_names(config.data)
    val = probabilities(result.state, run.splits.val.images)
    values, bins = calibrated(val, run.splits.val.labels, run.probabilities, test.labels, names)
    shown = most_mistaken(values["confusion_matrix"])
    confusion = np.asarray(values["confusion_matrix"])[np.ix_(shown, shown)].tolist()
    explorer = explorer_data(result.state, test, run.probabilities)
    mark_unlike(run.run_dir, result.state, test.images, explorer.data["images"])
    fields = config_fields(config)
    defaults = config_fields(resolve_as(ExperimentConfig(model=type(config.model)()), config))
    changed = sum(value != defaults[name] for name, value in fields.items())
    epochs = [row["epoch"] for row in result.history]
    curves = {
        measure: [
            {"label": title, "values": [row[f"{split}_{measure}"] for row in result.history]}
            for split, title in (("train", "training"), ("val", "validation"))
        ]
        for measure in ("loss", "accuracy")
    }
    data = {
        "classes": names,
        "korean": [*korean, *[""] * (len(names) - len(korean))] if korean else None,
        "confusion": confusion,
        "shown": shown,
        "curves": {"all": {"epochs": epochs, "best": result.summary["best_epoch"], **curves}},
        "explorer": explorer.data,
    }
    confused = values["most_confused"][:3]
    body = fill_template(
        "run.html",
        name=escaped(config.name),
        run_dir=escaped(printable(run.run_dir.resolve().name)),
        dataset=escaped(dataset_name(config.data)),
        train_images=f"{len(run.splits.train.labels):,}",
        val_images=f"{len(run.splits.val.labels):,}",
        test_images=f"{len(test.labels):,}",
        figures_link=' <a href="#figures">Figures</a>' if figures else "",
        cards=_cards(result, values),
        changed=f"{changed} of {len(fields)} fields differ from the defaults" if changed else "all defaults",
        config=_config_table(fields, defaults),
        machine=_machine_tables(run.description, result.summary["seconds"]),
        best_epoch=result.summary["best_epoch"],
        chosen_by=CHOSEN_BY[config.train.monitor],
        epochs=_epoch_table(result.history, result.summary["best_epoch"]),
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
        figures=figures,
        uplot=UPLOT,
        credit=" Images of Fashion-MNIST, © 2017 Zalando SE, MIT license." if korean else "",
    )
    return render_page(
        f"{config.name}: {percent(values['accuracy'], 1)} test accuracy",
        body,
        data,
        "charts.js",
        "explorer.js",
        "confusion.js",
    )


def _figures(run_dir: Path) -> str:
    """The section with the run's figures, scaled down; empty without figures."""
    from PIL import Image

    files = rundir.own_directory(run_dir, rundir.FIGURES).glob("*.png")
    files = [file for *_, file in sorted((*_figure_caption(file.stem), file) for file in files)]
    if not files:
        return ""
    for width in (1500, 1000, 600):
        encoded = []
        for file in files:
            try:
                with Image.open(file) as image:
                    picture = image.convert("RGB")
            except (OSError, Image.DecompressionBombError) as error:
                raise RunDirError(
                    f"{file} is not a readable picture; python -m cnn look {run_dir} draws it again"
                ) from error
            picture.thumbnail((width, 4 * width))
            content = io.BytesIO()
            picture.save(content, "WEBP", quality=80)
            encoded.append((file.stem, picture.size, content.getvalue()))
        if sum(len(content) for *_, content in encoded) <= FIGURE_BYTES:
            break
    elements = []
    for name, (width, height), content in encoded:
        text = escaped(_figure_caption(name)[1])
        elements.append(
            f'<figure><img src="{picture_url(content)}" width="{width}" height="{height}" alt="{text}" loading="lazy">'
            f"<figcaption>{text}</figcaption></figure>"
        )
    return (
        '<section id="figures" aria-labelledby="figures-title"><h2 id="figures-title">Figures</h2>'
        f'<div class="figures">{"".join(elements)}</div></section>'
    )


def _figure_caption(name: str) -> tuple[int, str]:
    """The position of a figure among the others, and its caption."""
    for position, (pattern, caption) in enumerate(_FIGURES.items()):
        if match := re.fullmatch(pattern, name):
            return position, match.expand(caption)
    return len(_FIGURES), name.replace("_", " ").capitalize()


def _cards(result: Result, values: dict[str, Any]) -> str:
    summary = result.summary
    low, high = values["accuracy_interval"]
    cards = {
        "Test accuracy": (percent(values["accuracy"]), f"95 % interval {percent(low)} to {percent(high)}"),
        "Test loss": (f"{summary['test_loss']:.4f}", "nats per image"),
        "Validation loss": (f"{summary['val_loss']:.4f}", f"accuracy {percent(summary['val_accuracy'])}"),
        "Best epoch": (summary["best_epoch"], f"of {summary['stopped_epoch']} trained"),
        "Parameters": (f"{summary['params']:,}", "trainable values"),
        "Seconds": (
            f"{sum(summary['seconds'].values()):,.0f}",
            f"{summary['seconds'].get('train', 0):,.0f} in training",
        ),
    }
    if "tta_test_accuracy" in summary:
        cards["Test accuracy, TTA"] = (percent(summary["tta_test_accuracy"]), "mean over each image and its variants")
    lines = (f"<div><dt>{name}</dt><dd>{text}<small>{note}</small></dd></div>" for name, (text, note) in cards.items())
    return f'<dl class="cards">{"".join(lines)}</dl>'


def _config_table(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    def row(name: str, value: Any) -> Sequence[str]:
        if value == defaults[name]:
            return f"<code>{escaped(name)}</code>", escaped(value), ""
        changed = f'<span class="changed">{escaped(value)}</span>'
        return f"<code>{escaped(name)}</code>", changed, escaped(defaults[name])

    return table(("field", "value", "default, if different"), (row(*item) for item in fields.items()), words=True)


def _machine_tables(description: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    tables = {
        "Machine": description["devices"],
        "Versions": description["versions"],
        "Seconds": {phase: f"{value:.1f}" for phase, value in seconds.items()},
        "Data": {"SHA-256": description["data_sha256"]},
    }
    return "".join(
        table((), ((escaped(name), escaped(value)) for name, value in values.items()), caption, words=True)
        for caption, values in tables.items()
    )


def _epoch_table(history: Sequence[Mapping[str, Any]], best_epoch: int) -> str:
    keys = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    heads = ("epoch", *(key.replace("_", " ") for key in keys), "learning rate", "seconds")
    rows = (
        (
            f"{row['epoch']}{' (best)' if row['epoch'] == best_epoch else ''}",
            *(f"{row[key]:.4f}" for key in keys),
            f"{row['learning_rate']:.2g}",
            f"{row['seconds']:.1f}",
        )
        for row in history
    )
    return f'<div class="scroll">{table(heads, rows)}</div>'
