"""Image files -> the boxes of what a detector finds in them, in their own pixels; as lines, JSON and pictures."""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn.data.box_files import fit_geometry
from cnn.data.image_files import fit_image, one_line_errors, open_image, read_bytes, reading
from cnn.detection.boxes import Detections
from cnn.errors import DataError
from cnn.exchange.coco import coco_results
from cnn.figures import scene_plots
from cnn.look.run_figures import write_figures
from cnn.resolution import model_class_names
from cnn.rules import PROBABILITY, require
from cnn.runs import outputs, rundir
from cnn.runs.checkpoint import load_best
from cnn.text import printable, read_json, shortened
from cnn.training.border import detect
from cnn.training.state import TrainState

BATCH, DECODERS = 32, 2
"""Numbers of files that are read and looked at, and that are decoded, at a time."""

PICTURE_SIDE = 1024
"""Maximum side of an image in a picture, in pixels."""

PICTURES, TITLE = "boxes_*.png", 40
"""Pattern of the names of the pictures, and columns of the name of a file above one."""


class _File(NamedTuple):
    """An image file as it was read."""

    pixels: np.ndarray
    """As the network takes it, uint8 [H, W, C]."""
    notes: list[str]
    size: tuple[int, int]
    """Height and width of the file."""
    picture: np.ndarray | None
    """The file in colour, made smaller if it is large, uint8 [H, W, 3]."""


def detect_files(
    run_dir: Path,
    files: Sequence[Path],
    invert: bool | None = None,
    as_json: bool = False,
    say: Callable[[str], Any] = lambda line: None,
    output: Path | None = None,
    threshold: float | None = None,
) -> Iterator[tuple[str, bool]]:
    """Yields lines for each file, in order, and whether it was read: the boxes in it, in its own pixels.

    Args:
      run_dir: directory of the run of a detector.
      files: paths of image files; "-" for standard input.
      invert: whether dark and light are swapped; None does not.
      as_json: whether the lines are those of a JSON array in COCO's result format, each object with ``category`` and
        ``file`` besides. ``image_id`` is the file's name without its ending, as an integer if it is one, or the
        file's number, from 1, if two files would have the same. ``category_id`` counts the classes from 1. Errors are
        said.
      say: called with lines on what is shown.
      output: directory for pictures of the files with their boxes.
      threshold: least score of a box; None takes that of the run's evaluation.json, else 0.3.

    Raises:
      UserError: the run, the directory or the threshold cannot be used.
      DamagedError: the best checkpoint is damaged.
    """
    if output is not None:
        outputs.check_directory(output, "figure", [run_dir], [PICTURES])
    state, config = load_best(run_dir)
    names, why = model_class_names(config), "as --threshold says"
    if threshold is None:
        threshold, why = _best_threshold(run_dir, state)
    require(PROBABILITY.holds(threshold), "threshold", threshold, PROBABILITY.allowed)
    say(
        f"boxes with a score of at least {threshold:.3g}, {why}"
        + ("" if as_json else ": class, score, and x, y, width, height in pixels of the file")
    )
    how = reading(config.data, bool(invert))
    pairs = _detected(state, files, {"resize": "pad", **how}, PICTURE_SIDE if output else 0)
    ids = _image_ids(files)
    if as_json and len(set(ids)) < len(ids):
        say("files have the same name, so image_id is the number of the file, from 1")
        ids = range(1, len(ids) + 1)
    results = _results(pairs, ids, names, threshold, say, output)
    if as_json:
        yield from _array(results, say)
        return
    for path, result, rows in results:
        yield (f"error: {result}", False) if isinstance(result, DataError) else (_lines(path, result, rows), True)


def _image_ids(files: Sequence[Path]) -> Sequence[int | str]:
    """The names without their endings, as integers if they are some."""
    stems = (printable(path.stem) for path in files)
    return [int(stem) if stem.isascii() and stem.isdecimal() else stem for stem in stems]


def _best_threshold(run_dir: Path, state: TrainState) -> tuple[float, str]:
    """The threshold of the run's evaluation, if that is of this network, and where it is from."""
    try:
        values = read_json(run_dir / outputs.EVALUATION)
        # A file of another run may be of the same step.
        if values["step"] == int(state.step) and rundir.read_identity(run_dir).is_named_by(values):
            return float(values["threshold"]), f"the best one by {outputs.EVALUATION}"
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return scene_plots.LOWEST, f"as there is no {outputs.EVALUATION} of this network (python -m cnn evaluate writes it)"


def _detected(
    state: TrainState, files: Sequence[Path], how: dict[str, Any], side: int
) -> Iterator[tuple[Path, _File | DataError, Detections]]:
    """Each file as read or its error, and what is found in it, in its own pixels, with a first axis of length 1."""
    blank = np.zeros(how["shape"], np.uint8)
    with ThreadPoolExecutor(DECODERS) as threads, warnings.catch_warnings():
        # Pillow warns where an error is raised; set here, as threads share the warning filters.
        warnings.simplefilter("ignore")
        for start in range(0, len(files), BATCH):
            read = list(threads.map(partial(_read, how=how, side=side), files[start : start + BATCH]))
            images = [blank if isinstance(result, DataError) else result.pixels for result in read]
            # Padded to a constant batch size, so that it is compiled once.
            images += [blank] * (min(BATCH, len(files)) - len(images))
            detections = jax.device_get(detect(state, np.stack(images)))
            for row, (path, result) in enumerate(zip(files[start:], read, strict=False)):
                found = Detections(*(field[row : row + 1] for field in detections))
                if not isinstance(result, DataError):
                    found = _in_file(found, result.size, how)
                yield path, result, found


def _read(path: Path, how: dict[str, Any], side: int) -> _File | DataError:
    try:
        with one_line_errors(path):
            image, first_of_several = open_image(read_bytes(path))
            pixels, inverted = fit_image(image, **how)
            notes = ["inverted"] * inverted + ["first of several frames or pages"] * first_of_several
            size, picture = image.size[::-1], None
            if side:
                image = image.convert("RGB")
                image.thumbnail((side, side))
                picture = np.asarray(image)
            return _File(pixels, notes, size, picture)
    except DataError as error:
        return error


def _in_file(found: Detections, size: tuple[int, int], how: dict[str, Any]) -> Detections:
    """Detections in the pixels of a file; those in the margin that it was given, outside of it, have score 0."""
    scale, offset = fit_geometry(size, how["shape"][:2], how["resize"])
    corners = (np.asarray(found.boxes, np.float64).reshape(1, -1, 2, 2) - offset) / scale
    corners = np.clip(corners, 0, size[::-1])
    has_area = (corners[:, :, 1] > corners[:, :, 0]).all(-1)
    fields: Any = corners.reshape(1, -1, 4), np.where(has_area, found.scores, 0), found.classes
    return Detections(*fields)


def _results(
    pairs: Iterator[tuple[Path, _File | DataError, Detections]],
    ids: Sequence[int | str],
    names: Sequence[str],
    threshold: float,
    say: Callable[[str], Any],
    output: Path | None,
) -> Iterator[tuple[Path, _File | DataError, list[dict[str, Any]]]]:
    """Each file as read or its error, and its boxes in COCO's format; draws its picture into a directory."""
    drawn: set[str] = set()
    for index, (path, result, found) in enumerate(pairs):
        if isinstance(result, DataError):
            yield path, result, []
            continue
        rows = coco_results(found, [ids[index]], range(1, len(names) + 1), threshold)
        file = printable(path)
        yield path, result, [{**row, "category": names[row["category_id"] - 1], "file": file} for row in rows]
        if output is not None and result.picture is not None:
            name = _new_name("stdin" if os.fspath(path) == "-" else path.stem[:50], drawn)
            title = shortened(printable(path.name), TITLE)
            scale = result.picture.shape[1] / result.size[1]
            shown = found._replace(boxes=found.boxes * scale)
            draw = partial(scene_plots.scenes, result.picture[None], None, shown, names, title, threshold)
            say(f"wrote {printable(write_figures(output, {name: draw})[0])}")


def _new_name(stem: str, drawn: set[str]) -> str:
    """A name for the picture of a file, different from all before, which is added to them."""
    name, number = f"boxes_{stem}", 1
    while name in drawn:
        number += 1
        name = f"boxes_{stem}-{number}"
    drawn.add(name)
    return name


def _lines(path: Path, file: _File, rows: Sequence[dict[str, Any]]) -> str:
    note = f" ({', '.join(file.notes)})" if file.notes else ""
    head = f"{printable(path)}{note}: {len(rows) or 'no'} object{'' if len(rows) == 1 else 's'}"
    boxes = (
        f"  {row['category']} {row['score']:.3f}  {' '.join(f'{value:.1f}' for value in row['bbox'])}" for row in rows
    )
    return "\n".join([head, *boxes])


def _array(
    results: Iterator[tuple[Path, _File | DataError, list[dict[str, Any]]]], say: Callable[[str], Any]
) -> Iterator[tuple[str, bool]]:
    """The lines of a JSON array; an object is held back until it is known whether another one follows."""
    held = "["
    for _, result, rows in results:
        if isinstance(result, DataError):
            say(f"error: {result}")
        ready = []
        for row in rows:
            ready.append(held)
            held = f"{json.dumps(row)},"
        yield "\n".join(ready), not isinstance(result, DataError)
    yield f"{held.removesuffix(',')}\n]", True
