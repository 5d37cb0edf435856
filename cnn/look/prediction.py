"""Image files -> classes, by the best network of a run. A file may be anything; what is no image is a DataError."""

import json
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from cnn.config import model_class_names
from cnn.data.image_files import Read, _read
from cnn.errors import DataError, printable
from cnn.runs.checkpoint import load_best
from cnn.training.steps import predict

BATCH = 128
"""Files that are read and classified at a time."""

DECODERS = 2
"""Files that are decoded at a time: a large one takes half a gigabyte meanwhile."""


def predict_files(
    run_dir: Path, files: Sequence[Path], invert: bool | None = None, as_json: bool = False
) -> Iterator[tuple[str, bool]]:
    """Gives for each file, in order, a line, and whether it was read: the three likeliest classes, or what is wrong.

    Args:
      run_dir: directory of a run.
      files: names of image files; "-" for standard input.
      invert: as of ``read_image``.
      as_json: whether a line is a JSON object: ``file``, ``inverted`` and ``classes``, or ``file`` and ``error``.

    Raises:
      UserError: the run cannot be used.
      DamagedError: its best checkpoint is damaged.
    """
    state, config = load_best(run_dir)
    names = model_class_names(config)
    blank = Read(np.zeros(config.data.image_shape, np.uint8), False)
    read = partial(_read_or_error, shape=config.data.image_shape, invert=invert)
    with ThreadPoolExecutor(DECODERS) as threads, warnings.catch_warnings():
        # As of read_image; here, as threads share what is ignored.
        warnings.simplefilter("ignore")
        for start in range(0, len(files), BATCH):
            found = list(threads.map(read, files[start : start + BATCH]))
            images = [(blank if isinstance(image, DataError) else image).pixels for image in found]
            # Always as many, so that it is compiled once.
            images += [blank.pixels] * (min(BATCH, len(files)) - len(images))
            rows = np.asarray(predict(state, np.stack(images)))
            for path, image, row in zip(files[start:], found, rows, strict=False):
                yield _line(path, image, row, names, as_json), not isinstance(image, DataError)


def _read_or_error(path: Path, shape: Sequence[int], invert: bool | None) -> Read | DataError:
    try:
        return _read(path, shape, invert)
    except DataError as error:
        return error


def _line(path: Path, image: Read | DataError, row: np.ndarray, names: Sequence[str], as_json: bool) -> str:
    """What is said of a file."""
    if isinstance(image, DataError):
        return json.dumps({"file": printable(path), "error": str(image)}) if as_json else f"error: {image}"
    likeliest = [(names[label], float(row[label])) for label in np.argsort(-row)[:3]]
    if as_json:
        classes = [{"name": name, "probability": probability} for name, probability in likeliest]
        return json.dumps({"file": printable(path), "inverted": image.inverted, "classes": classes})
    inverted = " (inverted)" if image.inverted else ""
    return f"{printable(path)}{inverted}: {', '.join(f'{name} {share:.3f}' for name, share in likeliest)}"
