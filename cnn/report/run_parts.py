"""The parts of a run's page that do not depend on its task: numbers, tables of configuration and epochs, figures."""

import io
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn.config import ExperimentConfig
from cnn.data.splits import Splits
from cnn.errors import RunDirError
from cnn.report.page import UPLOT, escaped, percent, picture_url, table
from cnn.resolution import dataset_name, korean_names, resolve_as
from cnn.runs import rundir
from cnn.runs.result import Result
from cnn.serialization import config_fields
from cnn.text import printable, read_regular

FIGURE_BYTES = 700_000
"""Maximum size of all figures in a page."""

FILE_BYTES = 2**25
"""Maximum size of a figure's file that is read."""

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

TASK_CAPTIONS: dict[str, dict[str, str]] = {
    "classification": {},
    "detection": {
        "learning_curves": "Loss, accuracy and mean average precision by epoch",
        "sample": "Scenes with the objects in them",
        "scenes": "Test scenes with their true boxes, and the predicted ones",
        "objectness": "Objectness: where the network is sure that an object is centred",
        r"feature_maps_(\w+)": r"Feature maps of \1 for a test scene",
    },
}
"""By task, captions in place of those and further ones, which are shown first."""


CHOSEN_BY = {
    "val_loss": "lowest validation loss",
    "val_accuracy": "highest validation accuracy",
    "val_balanced_accuracy": "highest balanced accuracy of the validation images",
    "val_macro_f1": "highest macro F1 of the validation images",
    "val_map": "highest mean average precision on the validation images",
}
"""How the best epoch was chosen, by what the run monitored."""


def class_cards(summary: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Returns the most important numbers of a classifier's run, HTML."""
    low, high = values["accuracy_interval"]
    texts = {
        "Test accuracy": (percent(values["accuracy"]), f"95 % interval {percent(low)} to {percent(high)}"),
        "Test loss": (f"{summary['test_loss']:.4f}", "nats per image"),
        **run_cards(summary),
    }
    if "tta_test_accuracy" in summary:
        texts["Test accuracy, TTA"] = (percent(summary["tta_test_accuracy"]), "mean over each image and its variants")
    return cards(texts)


def run_cards(summary: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Returns the numbers of any run, as ``cards`` takes them."""
    return {
        "Validation loss": (f"{summary['val_loss']:.4f}", f"accuracy {percent(summary['val_accuracy'])}"),
        "Best epoch": (summary["best_epoch"], f"of {summary['stopped_epoch']} trained"),
        "Parameters": (f"{summary['params']:,}", "trainable values"),
        "Seconds": (
            f"{sum(summary['seconds'].values()):,.0f}",
            f"{summary['seconds'].get('train', 0):,.0f} in training",
        ),
    }


def cards(texts: Mapping[str, tuple[Any, str]]) -> str:
    """Returns named numbers, each with a note, HTML."""
    lines = (f"<div><dt>{name}</dt><dd>{text}<small>{note}</small></dd></div>" for name, (text, note) in texts.items())
    return f'<dl class="cards">{"".join(lines)}</dl>'


def figures_section(run_dir: Path, task: str = "classification", without: Collection[str] = ()) -> str:
    """Returns the section with the run's figures, scaled down; empty without figures.

    Args:
      run_dir: directory of the run.
      task: of its network.
      without: names of files that are left out.

    Raises:
      RunDirError: a figure is damaged, or not a regular file.
    """
    files = [file for file in rundir.own_directory(run_dir, rundir.FIGURES).glob("*.png") if file.name not in without]
    files = [file for *_, file in sorted((*_figure_caption(file.stem, task), file) for file in files)]
    if not files:
        return ""
    for width in (1500, 1000, 600):
        encoded = []
        for file in files:
            picture = _read_figure(file, run_dir)
            picture.thumbnail((width, 4 * width))
            content = io.BytesIO()
            picture.save(content, "WEBP", quality=80)
            encoded.append((file.stem, picture.size, content.getvalue()))
        if sum(len(content) for *_, content in encoded) <= FIGURE_BYTES:
            break
    elements = [figure(content, size, _figure_caption(name, task)[1]) for name, size, content in encoded]
    return (
        '<section id="figures" aria-labelledby="figures-title"><h2 id="figures-title">Figures</h2>'
        f'<div class="figures">{"".join(elements)}</div></section>'
    )


def _read_figure(file: Path, run_dir: Path) -> Any:
    """The picture in a file of a run's figures, in colour; opening a pipe would wait for a writer."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read_regular(file, FILE_BYTES)), formats=["PNG"]) as image:
            return image.convert("RGB")
    # Pillow raises exceptions of many types.
    except Exception as error:
        hint = f"python -m cnn look {run_dir} draws it again, or remove it"
        raise RunDirError(f"{file} is not a readable picture; {hint}") from error


def _figure_caption(name: str, task: str) -> tuple[int, str]:
    """The position of a figure among the others, and its caption."""
    captions = TASK_CAPTIONS[task] | _FIGURES | TASK_CAPTIONS[task]
    for position, (pattern, caption) in enumerate(captions.items()):
        if match := re.fullmatch(pattern, name):
            return position, match.expand(caption)
    return len(captions), name.replace("_", " ").capitalize()


def figure(content: bytes, size: tuple[int, int], caption: str) -> str:
    """Returns a picture, a WebP file of some width and height, with its caption, HTML."""
    text = escaped(caption)
    return (
        f'<figure><img src="{picture_url(content)}" width="{size[0]}" height="{size[1]}" alt="{text}" loading="lazy">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def config_table(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Returns the fields of a configuration and their defaults, where they differ, HTML."""

    def row(name: str, value: Any) -> Sequence[str]:
        if value == defaults[name]:
            return f"<code>{escaped(name)}</code>", escaped(value), ""
        changed = f'<span class="changed">{escaped(value)}</span>'
        return f"<code>{escaped(name)}</code>", changed, escaped(defaults[name])

    return table(("field", "value", "default, if different"), (row(*item) for item in fields.items()), words=True)


def machine_tables(description: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    """Returns the machine, versions, timings and data of a run, HTML."""
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


def epoch_table(history: Sequence[Mapping[str, Any]], best_epoch: int) -> str:
    """Returns the rows of metrics.jsonl, HTML."""
    scores = [key for key in ("val_map", "val_map_50") if all(key in row for row in history)]
    keys = ("train_loss", "val_loss", "train_accuracy", "val_accuracy", *scores)
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


def shared_fields(
    run_dir: Path,
    description: Mapping[str, Any],
    config: ExperimentConfig,
    result: Result,
    splits: Splits,
    figures: str,
) -> dict[str, object]:
    """Returns what a run's page has whatever its task, by the name of its place in the template.

    Args:
      run_dir: directory of the run.
      description: as ``rundir.read_description`` returns it.
      config: its experiment.
      result: its result.
      splits: its images.
      figures: as of ``figures_section``.
    """
    fields, best_epoch = config_fields(config), result.summary["best_epoch"]
    defaults = config_fields(resolve_as(ExperimentConfig(model=type(config.model)()), config))
    changed = sum(value != defaults[name] for name, value in fields.items())
    return {
        "name": escaped(config.name),
        "run_dir": escaped(printable(run_dir.resolve().name)),
        "dataset": escaped(dataset_name(config.data)),
        **{f"{name}_images": f"{len(split.labels):,}" for name, split in splits._asdict().items()},
        "figures_link": ' <a href="#figures">Figures</a>' if figures else "",
        "changed": f"{changed} of {len(fields)} fields differ from the defaults" if changed else "all defaults",
        "config": config_table(fields, defaults),
        "machine": machine_tables(description, result.summary["seconds"]),
        "best_epoch": best_epoch,
        "chosen_by": CHOSEN_BY[config.train.monitor],
        "epochs": epoch_table(result.history, best_epoch),
        "figures": figures,
        "uplot": UPLOT,
        "credit": " Images of Fashion-MNIST, © 2017 Zalando SE, MIT license." if korean_names(config.data) else "",
    }
