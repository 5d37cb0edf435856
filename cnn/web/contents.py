"""The files of a network's page, by name: the network, what the page says of it, and pictures. Nothing is written."""

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from cnn.config import DataConfig, ExperimentConfig
from cnn.data.cache import is_there
from cnn.data.image_files import reading
from cnn.data.splits import Split, Splits, load_data
from cnn.errors import UserError
from cnn.exchange.exporting import PRETRAINED, load_pretrained, result_numbers
from cnn.exchange.tensor_file import read_tensors
from cnn.look.neighbours import evenly_spaced
from cnn.report.page import WEBP_SIDE, read_template, tiled, webp
from cnn.resolution import korean_names, model_class_names
from cnn.runs.checkpoint import load_best
from cnn.runs.result import load_images
from cnn.text import printable
from cnn.training.state import TrainState
from cnn.training.summary import layer_table
from cnn.trust.novelty import BEST, SCORES
from cnn.trust.reference import Reference, find_reference, layers, missing_images, unlike_warning
from cnn.web import runtime
from cnn.web.graph import web_graph

NETWORK, FACTS, CARD = "network.onnx", "network.json", "README.md"
NEAREST, NEAREST_SHEET, EXAMPLES_SHEET = "nearest.bin", "nearest.webp", "examples.webp"

EXAMPLES, EXAMPLE_BYTES = 100, 1_000_000
"""Maximum number of test images, and maximum size of the sheet with them."""

EXAMPLE_COLUMNS = 10
"""Maximum number of test images in a row of their sheet."""

THUMBNAIL = 28
"""Maximum side of a training image in the sheet with the nearest ones."""


class Network(NamedTuple):
    """A network that a page shows."""

    state: TrainState
    config: ExperimentConfig
    run: str
    """Name of the run's directory, printable."""
    result: dict[str, Any] | None
    splits: Splits | None
    """None if its images are not on this machine."""
    reference: Reference | None
    """None if it has none."""


def read_network(run_dir: Path | None, say: Callable[[str], Any] = lambda line: None) -> Network:
    """Returns the best network of a run, or with None the one that ships; nothing is fetched.

    Args:
      run_dir: directory of the run, or None.
      say: called with a line if the run's ``novelty.npz`` is made first, or with a warning if there is none.

    Raises:
      UserError: there is no such run.
      DamagedError: its best checkpoint is damaged.
    """
    if run_dir is None:
        state, config = load_pretrained()
        splits = _there(config.data, lambda: load_data(config.data))
        name, result = config.name, json.loads(read_tensors(PRETRAINED)[0].get("result", "null"))
    else:
        state, config = load_best(run_dir)
        splits = _there(config.data, lambda: load_images(run_dir))
        name, result = printable(os.path.basename(os.path.realpath(run_dir))), result_numbers(run_dir)
    reference = find_reference(run_dir, state, config.data, say) if splits else None
    if splits is None:
        other = f"those of {config.data.source or config.data.name} are damaged, or have changed; restore them"
        say(unlike_warning(other if is_there(config.data) else missing_images(config.data)))
    return Network(state, config, name, result, splits, reference)


def _there(config: DataConfig, load: Callable[[], Splits]) -> Splits | None:
    """The images of a network; None if they are not on this machine, or are others than it was trained on."""
    if is_there(config):
        with suppress(UserError):
            return load()
    return None


def contents(network: Network, runtime_files: dict[str, bytes], card: str | None = None) -> dict[str, bytes]:
    """Returns the content of every file of a network's page, by its path in the folder.

    Args:
      network: from ``read_network``.
      runtime_files: from ``find_runtime``.
      card: the network's model card; None to leave it out.

    Raises:
      UserError: the package onnx is missing, or a layer is not supported.
    """
    state, config, splits = network.state, network.config, network.splits
    graph = web_graph(state, config)
    files = {path.name: path.read_bytes() for path in resources.files("cnn.web").joinpath("pages").iterdir()}
    files["page.css"] = read_template("page.css").encode()
    files |= {f"ort/{name}": content for name, content in runtime_files.items()}
    files["ort/README.txt"] = runtime.README.encode()
    files[NETWORK] = graph.model.SerializeToString()
    if card is not None:
        files[CARD] = card.encode()
    novelty = examples = None
    if splits and network.reference:
        novelty, pictures = _novelty(state, network.reference, splits.train)
        files |= pictures
    if splits and (sheet := _examples(splits.test)):
        examples, files[EXAMPLES_SHEET] = sheet
    names, korean, how = model_class_names(config), korean_names(config.data), reading(config.data)
    height, width, channels = config.data.image_shape
    facts = {
        "name": config.name,
        "run": network.run,
        "classes": names,
        "korean": [*korean, *[""] * (len(names) - len(korean))] if korean else None,
        "image": {
            "height": height,
            "width": width,
            "channels": channels,
            "invert": "auto" if how["invert"] is None else how["invert"],
            "resize": how.get("resize", "pad"),
        },
        "parameters": sum(row.parameters for row in layer_table(state)),
        "result": network.result,
        "layers": graph.layers,
        "grad_cam": graph.grad_cam,
        "novelty": novelty,
        "examples": examples,
        "files": sorted([*files, FACTS]),
        "runtime": {"name": runtime.NAME, "version": runtime.VERSION, "license": runtime.LICENSE},
    }
    # A line for each, as those of the nearest images are long.
    lines = (f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in facts.items())
    files[FACTS] = ("{\n" + ",\n".join(lines) + "\n}\n").encode()
    return files


def _novelty(state: TrainState, reference: Reference, train: Split) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What a page needs to say that an image is unlike the training images, and to show the nearest of them."""
    count, features = reference.pooled_MxF.shape
    images = train.images[reference.indices_M]
    step = -(-max(images.shape[1:3]) // THUMBNAIL)
    thumbnails, columns = images[:, ::step, ::step], math.isqrt(count - 1) + 1
    facts = {
        "layer": layers(state)["pooled"],
        "threshold": float(reference.thresholds[list(SCORES).index(BEST)]),
        "images": count,
        "features": features,
        "labels": reference.labels_M.tolist(),
        "indices": reference.indices_M.tolist(),
        "columns": columns,
        "height": thumbnails.shape[1],
        "width": thumbnails.shape[2],
        "file": NEAREST,
        "sheet": NEAREST_SHEET,
    }
    sheet = webp(tiled(thumbnails, columns), quality=40)
    return facts, {NEAREST: reference.pooled_MxF.astype("<f2").tobytes(), NEAREST_SHEET: sheet}


def _examples(test: Split) -> tuple[dict[str, Any], bytes] | None:
    """Some test images, evenly spaced, pixel for pixel, and the sheet with them; None if one alone is too large."""
    _, height, width, channels = test.images.shape
    columns = min(EXAMPLE_COLUMNS, WEBP_SIDE // width)
    # Lossless, a photograph takes about half of its bytes.
    most = min(EXAMPLES, columns * (WEBP_SIDE // height), 4 * EXAMPLE_BYTES // (height * width * channels))
    while most and len(test.labels):
        kept = evenly_spaced(len(test.labels), most)
        sheet = webp(tiled(test.images[kept], columns), lossless=True)
        if len(sheet) <= EXAMPLE_BYTES:
            labels = test.labels[kept].tolist()
            facts = {"count": len(kept), "columns": columns, "height": height, "width": width, "labels": labels}
            return {**facts, "indices": kept.tolist(), "sheet": EXAMPLES_SHEET}, sheet
        most = int(len(kept) * min(0.9, EXAMPLE_BYTES / len(sheet)))
    return None
