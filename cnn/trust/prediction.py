"""Image files -> classes, by the best network of a run. Any file is accepted; one that is not an image is reported."""

import json
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cnn.data.image_files import DecodedImage, decode_image, reading
from cnn.errors import DataError
from cnn.resolution import model_class_names
from cnn.rules import YES_NO, checked, optional
from cnn.runs.checkpoint import load_best
from cnn.text import printable
from cnn.training.border import predict

BATCH = 128
"""Number of files that are read and classified at a time."""

DECODERS = 2
"""Number of files that are decoded at a time: a large one needs half a gigabyte of memory."""


@checked(invert=optional(YES_NO))
def predict_files(
    run_dir: Path, files: Sequence[Path], invert: bool | None = None, as_json: bool = False
) -> Iterator[tuple[str, bool]]:
    """Yields a line per file, in order, and whether it was read: the three most likely classes, or the error.

    Args:
      run_dir: directory of a run.
      files: paths of image files; "-" for standard input.
      invert: as in ``read_image``.
      as_json: whether a line is a JSON object: ``file``, ``inverted``, ``first_of_several`` (frames or pages)
        and ``classes``, or ``file`` and ``error``.

    Raises:
      UserError: the run cannot be used.
      DamagedError: its best checkpoint is damaged.
    """
    state, config = load_best(run_dir)
    names = model_class_names(config)
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
            rows = np.asarray(predict(state, np.stack(images)))
            for path, result, row_K in zip(files[start:], results, rows, strict=False):
                yield _line(path, result, row_K, names, as_json), not isinstance(result, DataError)


def _read_or_error(path: Path, **how: Any) -> DecodedImage | DataError:
    try:
        return decode_image(path, **how)
    except DataError as error:
        return error


def _line(path: Path, result: DecodedImage | DataError, row_K: np.ndarray, names: Sequence[str], as_json: bool) -> str:
    """The line of a file: its most likely classes, or its error."""
    if isinstance(result, DataError):
        return json.dumps({"file": printable(path), "error": str(result)}) if as_json else f"error: {result}"
    top = [(names[label], float(row_K[label])) for label in np.argsort(-row_K)[:3]]
    if as_json:
        classes = [{"name": name, "probability": probability} for name, probability in top]
        flags = {"inverted": result.inverted, "first_of_several": result.first_of_several}
        return json.dumps({"file": printable(path), **flags, "classes": classes})
    notes = ["inverted"] * result.inverted + ["first of several frames or pages"] * result.first_of_several
    note = f" ({', '.join(notes)})" if notes else ""
    return f"{printable(path)}{note}: {', '.join(f'{name} {probability:.3f}' for name, probability in top)}"
