"""A run -> its model card: what the network is, what it was trained on, how good it is and what it is bad at.

The form is that of https://huggingface.co/docs/hub/model-cards: Markdown with a head in YAML, README.md beside the
weights.
"""

import json
from typing import Any

from cnn.config import ExperimentConfig
from cnn.datasets import DATASETS
from cnn.exchange import int8
from cnn.resolution import dataset_name, model_class_names
from cnn.serialization import config_fields
from cnn.text import printable

HUB = {"fashion_mnist": "zalando-datasets/fashion_mnist", "mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}
"""Names of published data sets on the Hugging Face Hub."""

UNKNOWN_LICENSE = "unknown"
"""One of the Hub's; whose weights they are, and what they may be used for, only their owner can say."""

WORST = 5
"""Number of classes, and of confusions, that a card names."""

PATHS = ("data.labels", "distill.teacher", "transfer.source")
"""Options that are paths on one's own machine: a card says that they are given, and publishes no path."""

LOAD = {
    "safetensors": """import cnn

state, config = cnn.load_safetensors({file})
image = cnn.read_image("image.png", {reading})
probabilities = cnn.predict(state, image[None])[0]
print(dict(zip(cnn.class_names(config.data), probabilities.tolist())))""",
    "onnx": """import numpy as np
import onnxruntime

images = np.zeros((1, {shape}), np.uint8)
(probabilities,) = onnxruntime.InferenceSession({file}).run(["probabilities"], {{"images": images}})""",
}
"""By format, how a file is loaded."""


def model_card(
    config: ExperimentConfig,
    parameters: int,
    train_images: int,
    files: dict[str, str],
    evaluation: dict[str, Any] | None,
    robustness: dict[str, Any] | None = None,
    quantized: dict[str, Any] | None = None,
    license: str = UNKNOWN_LICENSE,
    command: str = "",
) -> str:
    """Returns a model card.

    Args:
      config: of the network.
      parameters: number of its parameters.
      train_images: number of images that it was trained on.
      files: names of the exported files, by format.
      evaluation: as in evaluation.json; None if it was not measured.
      robustness: as in robustness.json; None if it was not measured.
      quantized: what ``cnn.exchange.int8.compare`` returned; None if it was not.
      license: of the weights, by its name on the Hugging Face Hub.
      command: that made the network.
    """
    names = list(map(printable, model_class_names(config)))
    sections = [
        f"# {config.name}",
        f"A network of {parameters:,} parameters in JAX and Flax, of the family `{config.model.family}`. It classifies "
        f"images of {' x '.join(map(str, config.data.image_shape))} (height, width, channels) as one of "
        f"{len(names)} classes: {', '.join(names)}.",
        "No license is given: set `license` above before you publish it." if license == UNKNOWN_LICENSE else "",
        "## Use",
        *(_load(config, format, name) for format, name in files.items()),
        "Pixels are from 0 to 255; the network divides them by 255 itself."
        + (" Things are light on a dark ground, as in the data." if config.data.name != "images" else ""),
        "## Training",
        _data(config, train_images),
        f"Made by `{command}`." if command else "",
        f"Options, where they are not the default: {', '.join(_options(config)) or 'none'}.",
        "## Result",
        _result(evaluation),
        _int8(quantized),
        "## What it is bad at",
        _weak_classes(evaluation),
        _weak_images(robustness),
        "Whatever an image shows, also what is none of these classes, the network names one of them, at times with a "
        "probability near 1.",
    ]
    head = "\n".join(_yaml(front_matter(config, evaluation, license)))
    return f"---\n{head}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def front_matter(config: ExperimentConfig, evaluation: dict[str, Any] | None, license: str) -> dict[str, Any]:
    """Returns the head of a card: https://github.com/huggingface/hub-docs/blob/main/modelcard.md."""
    name = dataset_name(config.data)
    head = {
        "license": license,
        "library_name": "fashion-cnn",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "jax", "flax"],
        **({"datasets": [HUB[name]]} if name in HUB else {}),
        "metrics": ["accuracy"],
    }
    if evaluation is None:
        return head
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": HUB.get(name, name), "name": name, "split": "test"},
        "metrics": [{"type": "accuracy", "value": round(float(evaluation["accuracy"]), 6)}],
    }
    return {**head, "model-index": [{"name": config.name, "results": [result]}]}


def _yaml(value: Any) -> list[str]:
    """The lines of a dictionary or list in YAML, of which texts and numbers are written as in JSON."""
    lines = []
    for key, inner in value.items() if isinstance(value, dict) else ((None, item) for item in value):
        prefix = "-" if key is None else f"{key}:"
        if not isinstance(inner, dict | list):
            # Quoted, as no, 1.0 and null are not texts in YAML.
            lines.append(f"{prefix} {json.dumps(inner, ensure_ascii=False)}")
        elif key is None:
            first, *rest = _yaml(inner)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        else:
            lines += [prefix, *(f"  {line}" for line in _yaml(inner))]
    return lines


def _load(config: ExperimentConfig, format: str, file: str) -> str:
    shape = tuple(config.data.image_shape)
    how = f', invert=False, resize="{config.data.resize}"' if config.data.name == "images" else ""
    name = json.dumps(printable(file), ensure_ascii=False)
    code = LOAD[format].format(file=name, shape=", ".join(map(str, shape)), reading=f"{shape}{how}")
    return f"```python\n{code}\n```"


def _data(config: ExperimentConfig, train_images: int) -> str:
    name = dataset_name(config.data)
    link = f"[{name}](https://huggingface.co/datasets/{HUB[name]})" if name in HUB else name
    validation = "the best epoch was chosen on validation images"
    if config.data.name in DATASETS:
        # Own images may have a validation split of their own.
        fraction = f"{config.data.val_fraction:g}"
        validation = f"after a fraction of {fraction} was held out, on which the best epoch was chosen"
    return f"Data: {link}; trained on {train_images:,} images, {validation}."


def _options(config: ExperimentConfig) -> list[str]:
    """The options that are not the family's default, without what its data decides, and what is drawn."""
    default = config_fields(ExperimentConfig(model=type(config.model)()))
    hidden = ("data.class", "data.image_size", "data.channels", "data.source", "model.classes")
    return [
        f"`{_option(name, value)}`"
        for name, value in config_fields(config).items()
        if value != default[name] and not name.startswith((*hidden, "log.", "mesh."))
    ]


def _option(name: str, value: Any) -> str:
    """An option as on a command line."""
    if isinstance(value, bool):
        group, _, last = name.rpartition(".")
        return f"--{name}" if value else f"--{group}.no_{last}"
    if name in PATHS:
        value = "PATH" if isinstance(value, str) else ("PATH",) * len(value)
    return f"--{name} {printable(' '.join(map(str, value)) if isinstance(value, tuple) else str(value))}"


def _result(evaluation: dict[str, Any] | None) -> str:
    if evaluation is None:
        return "Not measured when this card was written."
    low, high = evaluation["accuracy_interval"]
    count = sum(scores["images"] for scores in evaluation["classes"].values())
    return (
        f"Test accuracy **{evaluation['accuracy']:.4f}**, 95 % interval {low:.4f} to {high:.4f}, on {count:,} images "
        f"that had no part in training. Negative log-likelihood {evaluation['nll']:.4f} nats, expected calibration "
        f"error {evaluation['ece']:.4f}."
    )


def _int8(quantized: dict[str, Any] | None) -> str:
    """The table of ``int8.format_comparison``; "" if it was not measured."""
    if quantized is None:
        return ""
    table = int8.format_comparison(quantized)
    return f"In 8 bits (`python -m cnn export RUN_DIR --format onnx --int8`):\n\n```text\n{table}\n```"


def _weak_classes(evaluation: dict[str, Any] | None) -> str:
    if evaluation is None:
        return ""
    lines = ["Classes with the lowest recall, and what they are predicted as:", ""]
    classes = sorted(evaluation["classes"].items(), key=lambda item: item[1]["recall"])
    lines += [f"- {printable(name)}: recall {scores['recall']:.4f}" for name, scores in classes[:WORST]]
    for name, other, wrong in evaluation["most_confused"][:WORST]:
        count = evaluation["classes"][name]["images"]
        lines.append(f"- {wrong:,} of {count:,} {printable(name)} predicted as {printable(other)}")
    return "\n".join(lines)


def _weak_images(robustness: dict[str, Any] | None) -> str:
    """A table of accuracy by severity, the worst corruptions first; "" if it was not measured."""
    if robustness is None:
        return ""
    rows = {name: [entry["accuracy"] for entry in entries] for name, entries in robustness["corruptions"].items()}
    severities = range(max(map(len, rows.values())))
    lines = [
        f"| changed images, by severity | {' | '.join(str(severity + 1) for severity in severities)} |",
        f"|---|{'---|' * len(severities)}",
    ]
    for name, values in sorted(rows.items(), key=lambda row: row[1][-1]):
        # Some have one severity.
        cells = [f"{value:.4f}" for value in values] + [""] * (len(severities) - len(values))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "Test accuracy on changed images:\n\n" + "\n".join(lines)
