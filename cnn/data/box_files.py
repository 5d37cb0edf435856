"""Own images with boxes: decoded and resized, the boxes with them, cached and split."""

import functools
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from cnn.data.box_formats import Boxed
from cnn.data.coco_files import coco_boxes
from cnn.data.decoding import Decoded, decode_all
from cnn.data.image_files import Resize
from cnn.data.layouts import Layout, Source, data_files, files_of_no_split, holds_images, list_folder, split_of
from cnn.data.own_images import draw_codes, equal_lines, write_splits
from cnn.data.source_cache import Options, OwnImages, load_source
from cnn.data.stratify import TRAIN, group_equal
from cnn.data.yolo_files import NAMES_FILES, yolo_boxes
from cnn.errors import DataError

BOX_LAYOUTS = (
    "a folder with annotations/instances_train.json and train/ as COCO has it, with a COCO file beside images/, with "
    "_annotations.coco.json in train/, or with images/ and labels/ of YOLO's text files"
)
"""The layouts in words."""

FORMATS: dict[str, Callable[[Layout], Boxed]] = {"COCO": coco_boxes, "YOLO": yolo_boxes}

ROBOFLOW = "_annotations.coco.json"
"""The name of the COCO file that Roboflow writes into the folder of a split, beside the images."""

UNLISTED = "folders of which no image is listed"

LEAST_AREA = 0.25
"""The least part of a box that must remain where an image is cut."""


def find_box_layout(path: str | os.PathLike) -> str | None:
    """Returns "COCO" or "YOLO", the layout of own images with boxes that a path has; None if it has none of them.

    It is asked before ``find_layout``, which takes any folders for those of classes.

    Raises:
      DataError: a folder cannot be listed, or has the boxes of some splits, but not of the training images.
    """
    layout = _find(path)
    return layout.kind if layout else None


def _find(path: str | os.PathLike) -> Layout | None:
    root = Path(os.path.abspath(os.path.expanduser(path)))
    if not os.path.isdir(root):
        return None
    folders, files, _ = list_folder(root)
    if parts := _coco_parts(root, folders):
        return Layout("COCO", root, parts)
    if parts := _yolo_parts(root, folders, files):
        return Layout("YOLO", root, parts)
    if parts := _json_beside_images(root, folders, files):
        return Layout("COCO", root, parts)
    return None


Parts = tuple[tuple[str | None, Path], ...]


def _coco_parts(root: Path, folders: Sequence[str]) -> Parts:
    """COCO's files in annotations/, or Roboflow's beside the images."""
    if "annotations" in folders:
        names = [name for name in list_folder(root / "annotations")[1] if name.startswith("instances")]
        if parts := data_files(root / "annotations", names, ".json"):
            return parts
    if os.path.lexists(root / ROBOFLOW):
        return ((None, root / ROBOFLOW),)
    named = [name for name in folders if split_of(name)]
    return _with_train(root, [name for name in named if os.path.lexists(root / name / ROBOFLOW)], ROBOFLOW)


def _yolo_parts(root: Path, folders: Sequence[str], files: Sequence[str]) -> Parts:
    """Folders of images that have folders of text files beside them."""
    if {"images", "labels"} <= set(folders):
        inner = list_folder(root / "images")[0]
        places = ["labels", *(f"labels/{name}" for name in list_folder(root / "labels")[0])]
        texts = (name for place in places for name in list_folder(root / place)[1] if name.endswith(".txt"))
        if not set(NAMES_FILES) & set(files) and not any(texts):
            # Two classes may have these names.
            return ()
        return _with_train(root / "images", inner) or ((None, root / "images"),)
    named = [name for name in folders if split_of(name)]
    both = [name for name in named if {"images", "labels"} <= set(list_folder(root / name)[0])]
    return _with_train(root, both, "images")


def _with_train(folder: Path, names: Sequence[str], inner: str = "") -> Parts:
    """What is in the folders whose names have a split; () if there are none."""
    given = [(split, folder / name / inner) for name in names if (split := split_of(name))]
    if given and "train" not in dict(given):
        raise DataError(f"{folder}: boxes of {' and '.join(dict(given))} images, but there is no folder named train")
    return tuple(given)


def _json_beside_images(root: Path, folders: Sequence[str], files: Sequence[str]) -> Parts:
    """COCO files beside images/."""
    if "images" in folders and "annotations.json" in files:
        return ((None, root / "annotations.json"),)
    # Other folders would be of other classes, and a table lists the images itself.
    if folders != ["images"] or any(name.lower().endswith(".csv") for name in files):
        return ()
    parts = data_files(root, files, ".json")
    return parts if len(parts) == 1 or parts and parts[0][0] else ()


def load_boxes(
    source: str | os.PathLike,
    image_size: tuple[int, ...] = (),
    channels: int = 0,
    resize: Resize = "crop",
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    split_seed: int = 42,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> OwnImages:
    """Returns the images in a folder with the boxes of a COCO file or of YOLO's text files, split.

    The labels of a split are float32 [N, M, 5]: x_min, y_min, x_max, y_max in pixels of the resized image, and the
    class, or -1 in a row of padding; M is the number of objects of the image with most, and at least 1. Images are in
    the order of their content; splits that the files do not give are drawn as by ``draw_splits``, all images in one
    class. Arrays are cached as by ``load_own_images``.

    Args:
      source: a path with one of the ``BOX_LAYOUTS``.
      image_size: height and width; () keeps the size, which all images must share.
      channels: 1 (grey), 3 (colour), or 0: grey if all images are.
      resize: how images of another shape are made to fit, as of ``fit_image``; "crop" clips boxes, and leaves out those
        of which less than ``LEAST_AREA`` remains.
      val_fraction: fraction of the training images held out for validation, unless validation images are given.
      test_fraction: fraction of all images held out for the test, unless test images are given.
      split_seed: seed of the splits that are drawn.
      warn: called with each line on what is left out, occurs twice, or is missing from a split.

    Raises:
      DataError: the path has no layout, images or boxes cannot be used, or the cache cannot be written.
    """
    options = Options(tuple(image_size), channels, resize, val_fraction, test_fraction, split_seed)
    if not (layout := _find(source)):
        raise DataError(f"{source} holds no images with boxes; give {BOX_LAYOUTS}")
    boxed = FORMATS[layout.kind](layout)
    if layout.kind == "COCO":
        left_out = {**boxed.source.left_out, "of no split": _other_files(layout), UNLISTED: _unlisted(layout, boxed)}
        boxed = boxed._replace(source=boxed.source._replace(left_out=left_out))
    return load_source(layout, boxed.source, options, functools.partial(_fill, boxed), warn)


def _other_files(layout: Layout) -> list[str]:
    """COCO files of objects that are not read, as their names have no split and those of others have."""
    # In annotations/, files by other names are of captions or keypoints.
    start = "" if layout.parts[0][1].parent == layout.root else "instances"
    return [name for name in files_of_no_split(layout) if name.startswith(start)]


def _unlisted(layout: Layout, boxed: Boxed) -> list[str]:
    """Folders with images in the root or in images/, relative to the root, of which no COCO file lists an image."""
    used = {str(folder) for name in boxed.source.files for folder in PurePath(name).parents}
    tops = [name for name in ("", "images") if os.path.isdir(layout.root / name)]
    names = [os.path.join(top, name) for top in tops for name in list_folder(layout.root / top)[0]]
    return [name for name in names if name not in used and holds_images(layout.root / name)]


def _fill(boxed: Boxed, work: Path, layout: Layout, source: Source, options: Options) -> dict[str, Any]:
    """Writes the arrays of all splits into a directory and returns their metadata."""
    decoded = decode_all(work / "decoded", source, options.image_size, options.channels, options.resize)
    labels, left_out = _place_all(boxed, decoded, options.resize)
    same = np.zeros(len(labels), np.int32)
    codes = draw_codes(layout, decoded, same, options, functools.partial(_check_count, layout.root))
    group_of = group_equal(decoded.digests)
    notes = [*decoded.notes, *equal_lines(boxed.names, group_of, same, codes)]
    if left_out:
        notes.append(f"left out {left_out:,} boxes, of which less than {LEAST_AREA:.0%} remains in the resized image")
    if (labels[codes == TRAIN, :, 4] < 0).all():
        raise DataError(f"{layout.root}: no training image has a box")
    # In the order of their content: the same whatever the layout and the names.
    order = np.argsort(group_of, kind="stable")
    notes += write_splits(work, layout, decoded, boxed.names, labels, order, codes)
    return {"class_names": boxed.names, "notes": notes}


def _check_count(root: Path, group_of: np.ndarray, _: np.ndarray, least: int) -> None:
    if (count := len(np.unique(group_of))) < least:
        raise DataError(f"{root}: {count} different training images, but at least {least} are needed; add images")


def _place_all(boxed: Boxed, decoded: Decoded, resize: Resize) -> tuple[np.ndarray, int]:
    """The boxes of all decoded images, float32 [N, M, 5], and the number of those that are left out."""
    placed, left_out = [], 0
    for index, size in zip(map(int, decoded.labels), decoded.sizes.tolist(), strict=True):
        given, boxes = boxed.sizes[index], boxed.boxes[index]
        if given and list(given) != size:
            name = next(itertools.islice(boxed.source.items(), index, None)).name
            raise DataError(
                f"{name} has {size[1]} x {size[0]} pixels, but {given[1]} x {given[0]} (width x height) by its "
                "annotations; save it upright in that size, or correct them"
            )
        placed.append(place_boxes(boxes * [size[1], size[0], size[1], size[0], 1], size, decoded.shape[:2], resize))
        left_out += len(boxes) - len(placed[-1])
    labels = np.zeros((len(placed), max(map(len, placed)), 5), np.float32)
    labels[..., 4] = -1
    for rows, boxes in zip(labels, placed, strict=True):
        rows[: len(boxes)] = boxes
    return labels, left_out


def fit_geometry(size: Sequence[int], fitted: Sequence[int], resize: Resize) -> tuple[np.ndarray, np.ndarray]:
    """Returns scale and offset (x, y), by which ``fit_image`` moves a point of an image: point * scale + offset.

    Args:
      size: height and width of the image, in pixels.
      fitted: height and width after it, in pixels.
      resize: how it is made to fit.
    """
    before, after = (np.array(pair[::-1], np.float64) for pair in (size, fitted))
    scale = after / before
    if resize == "crop":
        scale = np.full(2, scale.max())
    elif resize == "pad":
        # Whole pixels at a whole offset, rounded as Pillow's pad does it.
        (height, width), (new_height, new_width) = size, fitted
        inner = np.array([round(width / height * new_height), new_height])
        if width / height > new_width / new_height:
            inner = np.array([new_width, round(height / width * new_width)])
        return inner / before, np.array([round(margin / 2) for margin in after - inner], np.float64)
    return scale, (after - before * scale) / 2


def place_boxes(boxes: np.ndarray, size: Sequence[int], fitted: Sequence[int], resize: Resize) -> np.ndarray:
    """Returns the boxes of a resized image, clipped to it; those of which too little remains are left out.

    Args:
      boxes: float [n, 5], x_min, y_min, x_max, y_max in pixels before, and anything.
      size: as of ``fit_geometry``.
      fitted: as of ``fit_geometry``.
      resize: as of ``fit_geometry``.

    Returns:
      float32 [k, 5], in pixels after.
    """
    scale, offset = fit_geometry(size, fitted, resize)
    moved = boxes[:, :4].reshape(-1, 2, 2) * scale + offset
    clipped = np.clip(moved, 0, fitted[::-1])
    remains = np.prod(clipped[:, 1] - clipped[:, 0], axis=1)
    stays = remains >= LEAST_AREA * np.prod(moved[:, 1] - moved[:, 0], axis=1)
    placed = np.concatenate([clipped.reshape(-1, 4), boxes[:, 4:]], axis=1).astype(np.float32)
    # A box may be narrower than the step of float32.
    return placed[stays & (placed[:, 0] < placed[:, 2]) & (placed[:, 1] < placed[:, 3])]
