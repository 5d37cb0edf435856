"""Image files -> classes, by the best network of a run. Any file is accepted; one that is not an image is reported."""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.image_files import DecodedImage, decode_image, reading
from cnn.errors import DataError
from cnn.exchange.exporting import load_pretrained
from cnn.resolution import model_class_names
from cnn.rules import YES_NO, checked, optional
from cnn.runs import rundir
from cnn.runs.checkpoint import load_best
from cnn.text import printable
from cnn.training.tasks import require_task
from cnn.trust.detections import detect_files
from cnn.trust.reference import Novelty, embed, find_reference, layers, novelty

BATCH = 128
"""Number of files that are read and classified at a time."""

DECODERS = 2
"""Number of files that are decoded at a time: a large one needs half a gigabyte of memory."""


@checked(invert=optional(YES_NO))
def predict_files(
    run_dir: Path | None,
    files: Sequence[Path],
    invert: bool | None = None,
    as_json: bool = False,
    say: Callable[[str], Any] = lambda line: None,
) -> Iterator[tuple[str, bool]]:
    """Yields a line per file, in order, and whether it was read: the three most likely classes, or the error.

    A line also says whether the image is unlike the training images: farther from the nearest of them than 95 % of the
    validation images are (``cnn.trust.novelty``). Without ``novelty.npz`` and without the images, that is unknown.

    Args:
      run_dir: directory of a run; None for the network that ships.
      files: paths of image files; "-" for standard input.
      invert: as in ``read_image``.
      as_json: whether a line is a JSON object: ``file``, ``inverted``, ``first_of_several`` (frames or pages),
        ``classes``, ``unlike_training`` and ``novelty`` (null if unknown), and ``nearest``, the nearest training
        images; or ``file`` and ``error``.
      say: called with a line if the run's ``novelty.npz`` is made first, or with a warning if there is none.

    Raises:
      UserError: the run cannot be used.
      DamagedError: its best checkpoint is damaged.
    """
    state, config = load_pretrained() if run_dir is None else load_best(run_dir)
    reference = find_reference(run_dir, state, config.data, say)
    names, layer_names = model_class_names(config), layers(state)
    blank = DecodedImage(np.zeros(config.data.image_shape, np.uint8), False)
    read = partial(_read_or_error, **reading(config.data, invert))
    with ThreadPoolExecutor(DECODERS) as threads, warnings.catch_warnings():
        # As in read_image; set here, as threads share the warning filters.
        warnings.simplefilter("ignore")
        for start in range(0, len(files), BATCH):
            results = list(threads.map(read, files[start : start + BATCH]))
            images = [(blank if isinstance(result, DataError) else result).pixels for result in results]
            # Padded to a constant batch size, so that it is compiled once.
            images += [blank.pixels] * (min(BATCH, len(files)) - len(images))
            embedded = embed(state, np.stack(images), layer_names)
            probabilities = embedded.probabilities
            unlike = None if reference is None else novelty(embedded, reference)
            for row, (path, result) in enumerate(zip(files[start:], results, strict=False)):
                near = None if unlike is None else Novelty(*(values[row] for values in unlike))
                line = _line(path, result, probabilities[row], near, names, as_json)
                yield line, not isinstance(result, DataError)


def predict_run(
    run_dir: Path | None,
    files: Sequence[Path],
    invert: bool | None,
    as_json: bool,
    say: Callable[[str], Any],
    **of_detectors: Any,
) -> Iterator[tuple[str, bool]]:
    """Returns what ``predict_files`` yields, or for a run of a detector ``detect_files``.

    Args:
      run_dir: as of ``predict_files``, like the next four.
      files: paths of image files.
      invert: whether dark and light are swapped.
      as_json: whether lines are JSON.
      say: called with a line.
      of_detectors: further arguments of ``detect_files``, None if they are not given.

    Raises:
      UserError: as they do; or a classifier is given an argument of detectors.
    """
    config = rundir.read_description(run_dir)["config"] if run_dir else ExperimentConfig()
    given = [name for name, value in of_detectors.items() if value is not None]
    for name in given:
        require_task(config, "detection", f"predict --{name}")
    return PREDICTIONS[config.model.task](run_dir, files, invert, as_json, say, **{k: of_detectors[k] for k in given})


PREDICTIONS: dict[str, Callable[..., Iterator[tuple[str, bool]]]] = {
    "classification": predict_files,
    "detection": detect_files,
}
"""By task."""


def _read_or_error(path: Path, **how: Any) -> DecodedImage | DataError:
    try:
        return decode_image(path, **how)
    except DataError as error:
        return error


def _line(
    path: Path,
    result: DecodedImage | DataError,
    row_K: np.ndarray,
    near: Novelty | None,
    names: Sequence[str],
    as_json: bool,
) -> str:
    """The line of a file: its most likely classes and whether it is unlike the training images, or its error."""
    if isinstance(result, DataError):
        return json.dumps({"file": printable(path), "error": str(result)}) if as_json else f"error: {result}"
    top = [(names[label], float(row_K[label])) for label in np.argsort(-row_K)[:3]]
    if as_json:
        classes = [{"name": name, "probability": probability} for name, probability in top]
        flags = {"inverted": result.inverted, "first_of_several": result.first_of_several}
        return json.dumps({"file": printable(path), **flags, "classes": classes, **_novelty_fields(near, names)})
    notes = ["inverted"] * result.inverted + ["first of several frames or pages"] * result.first_of_several
    note = f" ({', '.join(notes)})" if notes else ""
    unlike = "; unlike the training images" if near and near.is_unlike_N else ""
    return f"{printable(path)}{note}: {', '.join(f'{name} {probability:.3f}' for name, probability in top)}{unlike}"


def _novelty_fields(near: Novelty | None, names: Sequence[str]) -> dict[str, Any]:
    """The fields of an image's novelty, a row of ``Novelty``, in JSON."""
    if near is None:
        return {"unlike_training": None, "novelty": None, "nearest": []}
    nearest = [
        {"index": int(index), "class": names[label], "distance": float(distance)}
        for index, label, distance in zip(near.indices_NxK, near.labels_NxK, near.distances_NxK, strict=True)
    ]
    return {"unlike_training": bool(near.is_unlike_N), "novelty": float(near.score_N), "nearest": nearest}
