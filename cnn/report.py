"""Run directories -> one HTML page that needs nothing else: results, curves, where a network is wrong, a look inside.

The page's HTML, CSS and JavaScript are files in ``page/``; here is what fills them.
"""

import base64
import dataclasses
import hashlib
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np

from cnn import rundir
from cnn.config import ExperimentConfig
from cnn.data import KOREAN_CLASS_NAMES, Split, Splits, load_data, model_class_names
from cnn.errors import ConfigError, RunDirError
from cnn.evaluation import (
    RESAMPLES,
    Reliability,
    accuracy_interval,
    difference_interval,
    evaluation,
    fit_temperature,
    reliability,
    scale_temperature,
)
from cnn.features import feature_maps, grad_cam
from cnn.prediction import printable
from cnn.state import TrainState
from cnn.steps import predict
from cnn.train import Result, load_result

IMAGES = 300
"""At most so many test images are in a page."""

LAYERS = 8
"""At most so many layers are, each with as many as ``MAPS`` maps, which are told apart in ``LEVELS`` steps."""
MAPS, LEVELS = 64, 16

MAP_BYTES, FIGURE_BYTES = 2_300_000, 700_000
"""Most bytes of all maps, and of all figures: with what stands round them, and a third more as text, below 5 MB."""

_UPLOT = "1.6.32"

_FIGURES = {
    "learning_curves": "Loss and accuracy by epoch, of the training and the validation images",
    "sample": "Twenty training images with their classes",
    "model": "The layers of the network with their shapes and parameters",
    "weights_histogram": "How the weights of the first layer are distributed, untrained and trained",
    "first_image": "The first training image, large",
    "probabilities": "Six test images, each with the probabilities of its classes",
    "confusion_matrix": "Which classes are taken for which",
    "reliability": "How often the network is right when it is so sure",
}


class Evaluated(NamedTuple):
    """A finished run, and what its best network makes of its images."""

    run_dir: Path
    description: dict[str, Any]
    """What config.json holds."""
    config: ExperimentConfig
    result: Result
    splits: Splits
    probabilities: np.ndarray
    """Of the test images, [N, K]."""

    @property
    def right(self) -> np.ndarray:
        """Whether each test image is classified rightly, bool [N]."""
        return self.probabilities.argmax(1) == self.splits.test.labels


def write_report(run_dir: Path, output: Path | None = None) -> Path:
    """Writes the page of a run, and returns its path.

    Args:
      run_dir: directory of a finished run.
      output: the file; None for report.html in the run's directory.

    Raises:
      UserError: the directory holds no finished run, or its images are not there, or the page cannot be written.
      DamagedError: the checkpoint is damaged.
    """
    output = _writable(output or run_dir / "report.html")
    rundir.write_text(output, run_page(_evaluated(run_dir)))
    return output


def write_comparison(run_dirs: Sequence[Path], output: Path = Path("comparison.html")) -> Path:
    """Writes a page that compares runs with the first of them, and returns its path.

    Raises:
      UserError: a directory holds no finished run, or they are of different data, or the page cannot be written.
      DamagedError: a checkpoint is damaged.
    """
    output = _writable(output)
    digests = [rundir.read_description(run_dir)["data_sha256"] for run_dir in run_dirs]
    for run_dir, digest in zip(run_dirs, digests, strict=True):
        if digest != digests[0]:
            raise RunDirError(
                f"{run_dir} is of other data than {run_dirs[0]} (SHA-256 {digest[:8]}, not {digests[0][:8]}); "
                "only runs on the same images can be compared"
            )
    rundir.write_text(output, comparison_page([_evaluated(run_dir) for run_dir in run_dirs]))
    return output


def _writable(output: Path) -> Path:
    """The path, if a file can be there: found out before anything is computed."""
    if output.is_dir() or not output.parent.is_dir():
        what = "is a directory" if output.is_dir() else f"would lie in {output.parent}, which is no directory"
        raise ConfigError(f"--output is {str(output)!r}, which {what}; name a file, such as report.html")
    return output


def _evaluated(run_dir: Path) -> Evaluated:
    config, result = load_result(run_dir)
    splits = load_data(config.data)
    probabilities = np.asarray(predict(result.state, splits.test.images))
    return Evaluated(run_dir, rundir.read_description(run_dir), config, result, splits, probabilities)


def run_page(run: Evaluated) -> str:
    """Returns the page of one run."""
    config, result, test = run.config, run.result, run.splits.test
    names = model_class_names(config)
    korean = KOREAN_CLASS_NAMES if config.data.name == "fashion_mnist" else ()
    temperature = fit_temperature(np.asarray(predict(result.state, run.splits.val.images)), run.splits.val.labels)
    values = evaluation(run.probabilities, test.labels, names, temperature)
    scaled = scale_temperature(run.probabilities, temperature)
    bins = {
        "as trained": reliability(run.probabilities, test.labels),
        f"with temperature {temperature:.2f}": reliability(scaled, test.labels),
    }
    explorer, embedded, reduced = _explorer(result.state, test, run.probabilities)
    figures = _figures(run.run_dir)
    fields, defaults = config_fields(config), config_fields(_defaults(config))
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
        "confusion": values["confusion_matrix"],
        "curves": {"all": {"epochs": epochs, "best": result.summary["best_epoch"], **curves}},
        "explorer": explorer,
    }
    confused = values["most_confused"][:3]
    body = _fill(
        "run.html",
        name=_text(config.name),
        run_dir=_text(_directory_name(run.run_dir)),
        dataset=_text(config.data.name),
        train_images=f"{len(run.splits.train.labels):,}",
        val_images=f"{len(run.splits.val.labels):,}",
        test_images=f"{len(test.labels):,}",
        figures_link=' <a href="#figures">Figures</a>' if figures else "",
        cards=_cards(result, values),
        changed=f"{changed} of {len(fields)} fields differ from the defaults" if changed else "all defaults",
        config=_config_table(fields, defaults),
        machine=_machine_tables(run.description, result.summary["seconds"]),
        best_epoch=result.summary["best_epoch"],
        epochs=_epoch_table(result.history, result.summary["best_epoch"]),
        confusion=_confusion_table(values["confusion_matrix"], names),
        most_confused="Most often: "
        + _text("; ".join(f"{name} taken for {other} ({wrong:,})" for name, other, wrong in confused))
        if confused
        else "Nothing is confused.",
        reliability=_reliability_drawing(bins),
        calibration=f"Expected calibration error {values['ece']:.4f}, and {values['ece_scaled']:.4f} with the "
        f"temperature {temperature:.2f}, fitted on the validation images.",
        classes=_class_table(values["classes"], korean),
        class_options="".join(f'<option value="{label}">{_text(name)}</option>' for label, name in enumerate(names)),
        embedded=embedded,
        reduced=reduced,
        figures=figures,
        uplot=_UPLOT,
        credit=" Images of Fashion-MNIST, © 2017 Zalando SE, MIT license." if korean else "",
    )
    return _page(f"{config.name}: {values['accuracy']:.1%} of the test images", body, data, "charts.js", "explorer.js")


def comparison_page(runs: Sequence[Evaluated]) -> str:
    """Returns the page that compares runs with the first of them; all have the same test images."""
    labels = run_labels([run.run_dir for run in runs])
    epochs = sorted({row["epoch"] for run in runs for row in run.result.history})

    def values(run: Evaluated, key: str) -> list[float | None]:
        by_epoch = {row["epoch"]: row[key] for row in run.result.history}
        return [by_epoch.get(epoch) for epoch in epochs]

    curves = {
        split: {
            "epochs": epochs,
            "best": None,
            **{
                measure: [
                    {"label": label, "values": values(run, f"{split}_{measure}")}
                    for label, run in zip(labels, runs, strict=True)
                ]
                for measure in ("loss", "accuracy")
            },
        }
        for split in ("val", "train")
    }
    body = _fill(
        "comparison.html",
        title=f"{len(runs)} runs compared",
        first=_text(labels[0]),
        dataset=_text(runs[0].config.data.name),
        test_images=f"{len(runs[0].right):,}",
        resamples=f"{RESAMPLES:,}",
        results=_comparison_table(runs, labels),
        config=_difference_table([run.config for run in runs], labels),
        uplot=_UPLOT,
    )
    return _page(f"{', '.join(labels)} compared", body, {"curves": curves}, "charts.js")


# What is chosen


def chosen_images(probabilities: np.ndarray, labels: np.ndarray, count: int = IMAGES) -> np.ndarray:
    """Returns the indices, ascending, of the images for a page: half of them mistakes, and the first of each class.

    Of the mistakes, the worst of each pair of classes come first, then the second worst; the worst is that whose own
    class has the least probability. If there are fewer mistakes, there are more of the others.

    Args:
      probabilities: [N, K].
      labels: integers [N].
      count: how many; all if there are not so many.
    """
    predicted, classes = probabilities.argmax(1), probabilities.shape[1]
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")]
    mistakes = worst[np.argsort(_turns(labels[worst] * classes + predicted[worst]), kind="stable")][: count // 2]
    others = np.setdiff1d(np.argsort(_turns(labels), kind="stable"), mistakes, assume_unique=True)
    return np.sort(np.concatenate([mistakes, others[: count - len(mistakes)]]))


def _turns(groups: np.ndarray) -> np.ndarray:
    """How many of its own group come before each item, integers [N]."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    turns = np.empty(len(groups), int)
    turns[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return turns


def chosen_layers(names: Sequence[str], count: int = LAYERS) -> list[str]:
    """Returns at most ``count`` of the layers, in their order: whole blocks before their parts, evenly spread."""
    whole = [name for name in names if "_" not in name]
    names = list(names) if len(names) <= count or not whole else whole
    places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[place] for place in places]


def config_fields(config: ExperimentConfig) -> dict[str, Any]:
    """Returns the values of a configuration by their options' names, such as ``optim.batch_size``."""
    groups = dataclasses.asdict(config)
    del groups["name"]
    return {f"{group}.{name}": value for group, fields in groups.items() for name, value in fields.items()}


def _defaults(config: ExperimentConfig) -> ExperimentConfig:
    """The defaults of the same family of models."""
    return ExperimentConfig(model=type(config.model)())


def _directory_name(run_dir: Path) -> str:
    return printable(run_dir.resolve().name)


def run_labels(run_dirs: Sequence[Path]) -> list[str]:
    """Returns a name for each run: as many of the last parts of their paths as tell them apart."""
    paths = [run_dir.resolve() for run_dir in run_dirs]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        labels = [printable("/".join(path.parts[-parts:])) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    raise ConfigError(f"{run_dirs[0]} is named more than once; name different runs")


# Pictures


def _webp(pixels: np.ndarray, **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    # WebP knows only colours; of greys it makes no more bytes.
    Image.fromarray(pixels).convert("RGB").save(file, "WEBP", **options)
    return file.getvalue()


def _url(content: bytes, kind: str = "webp") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def quantized(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns maps [N, H, W, C] as a sheet of greys, uint8 [N H, C W] in ``LEVELS`` steps, and each image's scale.

    The scale holds 0 and is the same for all maps of an image: its lowest and highest values, float [N] each.
    """
    count, height, width, channels = maps.shape
    lowest, highest = np.minimum(maps.min((1, 2, 3)), 0), np.maximum(maps.max((1, 2, 3)), 0)
    length = np.maximum(highest - lowest, np.finfo(np.float32).tiny)
    shares = (maps - lowest[:, None, None, None]) / length[:, None, None, None]
    steps = np.round(shares * (LEVELS - 1)) * (255 / (LEVELS - 1))
    sheet = steps.astype(np.uint8).transpose(0, 1, 3, 2).reshape(count * height, channels * width)
    return sheet, lowest, highest


def _layer(name: str, maps: np.ndarray, cam: np.ndarray) -> dict[str, Any]:
    """A layer's maps and Grad-CAM as pictures in which each image has its row."""
    channels = maps.shape[-1]
    strongest = np.sort(np.argsort(-np.abs(maps).mean((0, 1, 2)), kind="stable")[:MAPS])
    sheet, lowest, highest = quantized(maps[..., strongest])
    heat = cam / np.maximum(cam.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)
    count, height, width = cam.shape
    return {
        "name": name,
        "height": height,
        "width": width,
        "channels": strongest.tolist(),
        "of": channels,
        "lowest": _rounded(lowest),
        "highest": _rounded(highest),
        "src": _webp(sheet, lossless=True, quality=30, method=1),
        "cam": _webp(np.round(heat * 255).astype(np.uint8).reshape(count * height, width), quality=75),
    }


def _rounded(array: np.ndarray, digits: int = 4) -> list[Any]:
    return np.round(array.astype(float), digits).tolist()


def _explorer(state: TrainState, test: Split, probabilities: np.ndarray) -> tuple[dict[str, Any], str, str]:
    """What the explorer needs, and what the page says of what is in it and what was left out."""
    from matplotlib import colormaps

    chosen = chosen_images(probabilities, test.labels)
    maps = {name: np.asarray(of) for name, of in feature_maps(state, test.images[chosen]).items() if of.ndim == 4}
    predicted = probabilities[chosen].argmax(1)
    shown = chosen_layers(list(maps))
    cams = {name: np.asarray(grad_cam(state, test.images[chosen], name, predicted)) for name in shown}
    # Pillow lets other threads run while it compresses.
    with ThreadPoolExecutor() as threads:
        layers = list(threads.map(lambda name: _layer(name, maps[name], cams[name]), shown))
    size = sum(len(layer["src"]) + len(layer["cam"]) for layer in layers)
    if size > MAP_BYTES:
        # As many images as there is room for; each takes about the same.
        kept = chosen_images(probabilities[chosen], test.labels[chosen], int(len(chosen) * 0.95 * MAP_BYTES / size))
        layers = [_layer(name, maps[name][kept], cams[name][kept]) for name in shown]
        chosen = chosen[kept]
    for layer in layers:
        layer.update(src=_url(layer["src"]), cam=_url(layer["cam"]))
    images, labels = test.images[chosen], test.labels[chosen]
    height, width, channels = images.shape[1:]
    columns = 20
    grid = np.zeros((-len(images) % columns, height, width, channels), np.uint8)
    # Grey ones are drawn dark on white, as in the figures.
    tiles = np.concatenate([255 - images if channels == 1 else images, grid]).reshape(-1, columns, *images.shape[1:])
    sheet = tiles.swapaxes(1, 2).reshape(-1, columns * width, channels)
    explorer = {
        "size": [height, width],
        "columns": columns,
        "src": _url(_webp(sheet.repeat(3 // channels, -1), lossless=True)),
        "images": [
            {"test": int(index), "label": int(label), "probabilities": _rounded(row)}
            for index, label, row in zip(chosen, labels, probabilities[chosen], strict=True)
        ],
        "layers": layers,
        "colours": {
            name: [[round(255 * part) for part in colour[:3]] for colour in colormaps[scale](np.linspace(0, 1, 33))]
            for name, scale in (("maps", "viridis"), ("heat", "inferno"))
        },
    }
    mistakes = int((probabilities[chosen].argmax(1) != labels).sum())
    embedded = (
        f"{len(chosen):,} of the {len(test.labels):,} test images are in this page, {mistakes:,} of them mistakes: "
        "the worst of each pair of classes, and the first images of each class."
    )
    if not layers:
        return explorer, embedded, "This network has no layers with pixels, so there are no maps to show."
    reduced = [f"To keep the page small, maps are shown in {LEVELS} steps of their scale"]
    reduced += [f"{len(layers)} of the {len(maps)} layers with pixels are in it"] if len(layers) < len(maps) else []
    most = max(layer["of"] for layer in layers)
    reduced += [f"of a layer's maps, at most {most} of them, the {MAPS} strongest are"] if most > MAPS else []
    return explorer, embedded, f"{'; '.join(reduced)}. <code>python -m cnn look</code> draws any layer exactly."


def _figures(run_dir: Path) -> str:
    """The section with the run's figures, smaller than they are; nothing if there are none."""
    from PIL import Image

    files = sorted(rundir.own_directory(run_dir, rundir.FIGURES).glob("*.png"))
    known = list(_FIGURES)
    files.sort(key=lambda file: known.index(file.stem) if file.stem in known else len(known))
    if not files:
        return ""
    for width in (1200, 800, 500):
        encoded = []
        for file in files:
            try:
                with Image.open(file) as image:
                    picture = image.convert("RGB")
            except (OSError, Image.DecompressionBombError) as error:
                raise RunDirError(
                    f"{file} is not a picture that can be read; python -m cnn look {run_dir} draws it again"
                ) from error
            picture.thumbnail((width, 4 * width))
            content = io.BytesIO()
            picture.save(content, "WEBP", quality=80)
            encoded.append((file.stem, picture.size, content.getvalue()))
        if sum(len(content) for *_, content in encoded) <= FIGURE_BYTES:
            break
    drawn = []
    for name, (width, height), content in encoded:
        said = _text(_FIGURES.get(name, name.replace("_", " ").capitalize()))
        drawn.append(
            f'<figure><img src="{_url(content)}" width="{width}" height="{height}" alt="{said}" loading="lazy">'
            f"<figcaption>{said}</figcaption></figure>"
        )
    return (
        '<section id="figures" aria-labelledby="figures-title"><h2 id="figures-title">Figures</h2>'
        f'<div class="figures">{"".join(drawn)}</div></section>'
    )


def _reliability_drawing(bins: Mapping[str, Reliability]) -> str:
    """Accuracy by confidence, a circle a bin, as SVG."""
    left, top, side = 46, 14, 290
    parts = [f'<rect class="axis" x="{left}" y="{top}" width="{side}" height="{side}"/>']
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        x, y = left + tick * side, top + side - tick * side
        parts += [
            f'<path class="axis" d="M{x:.0f} {top}v{side}M{left} {y:.0f}h{side}"/>',
            f'<text x="{x:.0f}" y="{top + side + 16}" text-anchor="middle">{tick:g}</text>',
            f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{tick:g}</text>',
        ]
    parts += [
        f'<path class="ideal" d="M{left} {top + side}L{left + side} {top}"/>',
        f'<text x="{left + side / 2}" y="{top + side + 34}" text-anchor="middle">confidence</text>',
        f'<text transform="translate(12 {top + side / 2}) rotate(-90)" text-anchor="middle">accuracy</text>',
    ]
    for number, (title, found) in enumerate(bins.items()):
        y = top + 18 + 18 * number
        parts.append(f'<circle class="bins{number}" cx="{left + 16}" cy="{y}" r="5"/>')
        parts.append(f'<text x="{left + 28}" y="{y + 4}">{_text(title)}</text>')
        for confidence, accuracy, share in zip(found.confidence, found.accuracy, found.share, strict=True):
            if share > 0:
                radius = 3 + 16 * share**0.5
                where = f'cx="{left + confidence * side:.1f}" cy="{top + side - accuracy * side:.1f}" r="{radius:.1f}"'
                said = f"{_text(title)}: {confidence:.1%} sure, {accuracy:.1%} right, {share:.1%} of the images"
                parts.append(f'<circle class="bins{number}" {where}><title>{said}</title></circle>')
    size = f'viewBox="0 0 {left + side + 20} {top + side + 44}"'
    said = "Reliability diagram: how often the network is right, by how sure it is"
    return f'<svg class="reliability" {size} role="img" aria-label="{said}">{"".join(parts)}</svg>'


# Tables


def _text(value: Any) -> str:
    """Any value as text that is nothing but text in HTML."""
    return html.escape(str(value))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", text: bool = False) -> str:
    """A table of cells that are HTML, the first of each row its head; words stand left, numbers right."""
    kind = ' class="text"' if text else ""
    heads = "".join(f'<th scope="col"{kind}>{cell}</th>' for cell in head)
    lines = (
        f'<tr><th scope="row">{first}</th>{"".join(f"<td{kind}>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    above = f"<caption>{caption}</caption>" if caption else ""
    heads = f"<thead><tr>{heads}</tr></thead>" if head else ""
    return f"<table>{above}{heads}<tbody>{''.join(lines)}</tbody></table>"


def _cards(result: Result, values: dict[str, Any]) -> str:
    summary = result.summary
    low, high = values["accuracy_interval"]
    cards = {
        "Test accuracy": (f"{values['accuracy']:.2%}", f"95 % interval {low:.2%} to {high:.2%}"),
        "Test loss": (f"{summary['test_loss']:.4f}", "nats an image"),
        "Validation loss": (f"{summary['val_loss']:.4f}", f"accuracy {summary['val_accuracy']:.2%}"),
        "Best epoch": (summary["best_epoch"], f"of {summary['stopped_epoch']} trained"),
        "Parameters": (f"{summary['params']:,}", "trained values"),
        "Seconds": (
            f"{sum(summary['seconds'].values()):,.0f}",
            f"{summary['seconds'].get('train', 0):,.0f} in training",
        ),
    }
    if "tta_test_accuracy" in summary:
        cards["Test accuracy, TTA"] = (f"{summary['tta_test_accuracy']:.2%}", "the mean of an image and its variants")
    lines = (f"<div><dt>{name}</dt><dd>{big}<small>{small}</small></dd></div>" for name, (big, small) in cards.items())
    return f'<dl class="cards">{"".join(lines)}</dl>'


def _config_table(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    def row(name: str, value: Any) -> Sequence[str]:
        if value == defaults[name]:
            return f"<code>{_text(name)}</code>", _text(value), ""
        shown = f'<span class="changed">{_text(value)}</span>'
        return f"<code>{_text(name)}</code>", shown, f"not {_text(defaults[name])}"

    return _table(("field", "value", "default, if another"), (row(*item) for item in fields.items()), text=True)


def _machine_tables(description: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    tables = {
        "Machine": description["devices"],
        "Versions": description["versions"],
        "Seconds": {phase: f"{value:.1f}" for phase, value in seconds.items()},
        "Data": {"SHA-256": description["data_sha256"]},
    }
    return "".join(
        _table((), ((_text(name), _text(value)) for name, value in values.items()), caption, text=True)
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
    return f'<div class="scroll" tabindex="-1">{_table(heads, rows)}</div>'


def _confusion_table(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col">{_text(name)}</th>' for name in names)

    def cell(label: int, other: int) -> str:
        count = confusion[label][other]
        kind = "diagonal" if label == other else "" if count else "none"
        return f'<td class="{kind}">{count}</td>'

    rows = (
        f'<tr><th scope="row">{_text(name)}</th>{"".join(cell(label, other) for other in range(len(names)))}</tr>'
        for label, name in enumerate(names)
    )
    return (
        f'<table class="confusion"><thead><tr><td>true \\ said</td>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _class_table(classes: Mapping[str, Mapping[str, float]], korean: Sequence[str]) -> str:
    also = [f' <span lang="ko">{_text(name)}</span>' for name in korean] + [""] * (len(classes) - len(korean))
    scores = ("precision", "recall", "f1")
    rows = (
        (f"{_text(name)}{other}", *(f"{values[score]:.4f}" for score in scores), f"{values['images']:,}")
        for (name, values), other in zip(classes.items(), also, strict=True)
    )
    return _table(("class", *scores, "images"), rows)


def _comparison_table(runs: Sequence[Evaluated], labels: Sequence[str]) -> str:
    intervals = [difference_interval(run.right, runs[0].right) for run in runs]
    reach = 100 * max(0.001, *(abs(end) for interval in intervals[1:] for end in interval))
    lines = []
    for place, (run, label, interval) in enumerate(zip(runs, labels, intervals, strict=True)):
        right, count = int(run.right.sum()), len(run.right)
        low, high = accuracy_interval(right, count)
        difference = 100 * float(run.right.mean() - runs[0].right.mean())
        verdict, kind = "the first", ""
        cells = "", ""
        if place:
            ends = 100 * interval[0], 100 * interval[1]
            verdict, kind = difference_verdict(*interval)
            cells = f"{difference:+.2f} ({ends[0]:+.2f} to {ends[1]:+.2f})", _interval_drawing(difference, ends, reach)
        loss = run.result.summary["test_loss"]
        more = f" ({loss - runs[0].result.summary['test_loss']:+.4f})" if place else ""
        lines.append(
            f'<tr class="{kind}"><th scope="row">{_text(label)}</th><td class="text">{_text(run.config.name)}</td>'
            f"<td>{right / count:.2%} ({low:.2%} to {high:.2%})</td><td>{loss:.4f}{more}</td>"
            f'<td>{cells[0]}</td><td>{cells[1]}</td><td class="verdict text">{verdict}</td>'
            f"<td>{run.result.summary['params']:,}</td><td>{sum(run.result.summary['seconds'].values()):,.0f}</td></tr>"
        )
    heads = (
        '<th scope="col">run</th><th scope="col" class="text">experiment</th>'
        '<th scope="col">test accuracy (95 %)</th><th scope="col">test loss</th>'
        '<th scope="col">difference, points (95 %)</th><td></td><th scope="col" class="text">more than noise?</th>'
        '<th scope="col">parameters</th><th scope="col">seconds</th>'
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def difference_verdict(low: float, high: float) -> tuple[str, str]:
    """Returns in words what an interval of a difference says, and in one: better, worse, or nothing."""
    if low > 0:
        return "yes, it is better", "better"
    return ("yes, it is worse", "worse") if high < 0 else ("no, it may be chance", "")


def _interval_drawing(difference: float, ends: tuple[float, float], reach: float) -> str:
    """An interval about zero, as SVG on a scale from -reach to reach."""
    low, high = ends
    low_x, x, high_x = (100 + 92 * value / reach for value in (low, difference, high))
    said = f"{difference:+.2f} points, {low:+.2f} to {high:+.2f}"
    return (
        f'<svg class="difference" viewBox="0 0 200 22" role="img" aria-label="{said}"><title>{said}</title>'
        f'<path class="zero" d="M100 0V22"/><path class="interval" d="M{low_x:.1f} 11H{high_x:.1f}"/>'
        f'<circle cx="{x:.1f}" cy="11" r="5"/></svg>'
    )


def _difference_table(configs: Sequence[ExperimentConfig], labels: Sequence[str]) -> str:
    fields = [config_fields(config) for config in configs]
    values = {name: [of.get(name, "—") for of in fields] for of in fields for name in of}
    rows = [
        (f"<code>{_text(name)}</code>", *map(_text, of_runs))
        for name, of_runs in values.items()
        if any(value != of_runs[0] for value in of_runs)
    ]
    if not rows:
        return "<p>Nothing: the runs have the same configuration.</p>"
    return _table(("field", *map(_text, labels)), rows, text=True)


# The page


def _asset(name: str) -> str:
    return resources.files("cnn").joinpath("page", *name.split("/")).read_text(encoding="utf-8")


def _fill(template: str, /, **values: Any) -> str:
    return Template(_asset(template)).substitute(values)


def _page(title: str, body: str, data: dict[str, Any], *scripts: str) -> str:
    """The whole page: only these styles and scripts are run in it, by their digests, and nothing is loaded."""
    library = f"/*\n{_asset('uplot/LICENSE')}*/\n{_asset('uplot/uPlot.iife.min.js')}"
    codes = [library, *map(_asset, scripts)]
    style = _asset("uplot/uPlot.min.css") + _asset("page.css")

    def digests(parts: Sequence[str]) -> str:
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts
        )

    policy = (
        f"default-src 'none'; script-src {digests(codes)}; style-src {digests([style])}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    # JSON in a script element ends where a tag would begin, so none may.
    plain = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
    return _fill(
        "page.html",
        policy=policy,
        title=_text(title),
        style=style,
        body=body,
        data=plain,
        scripts="\n".join(f"<script>{code}</script>" for code in codes),
    )
