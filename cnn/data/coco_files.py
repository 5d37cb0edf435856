"""Boxes in COCO's JSON files: T.-Y. Lin et al., arXiv:1405.0312, and cocodataset.org/#format-data."""

import functools
import os
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cnn.data.box_formats import Boxed, check_class_names, make_boxed, read_text
from cnn.data.image_files import MAX_PIXELS
from cnn.data.layouts import Layout
from cnn.errors import DataError
from cnn.text import listed, parse_json, shown

MAX_BYTES = 2**30
"""Maximum size of a file; the largest published one has 450 MB."""

MARGIN = 1.0
"""How far a box may reach over the edge, in pixels, which rounding explains; it is clipped."""

GROUPS = "categories that only group others"
CROWDS = "annotations of crowds (iscrowd)"
EMPTY = "annotations of area 0"

Records = dict[int, dict[str, Any]]
"""The objects of a list by their id."""


class _File(NamedTuple):
    split: str | None
    path: Path
    images: Records
    annotations: Records
    categories: Records


def coco_boxes(layout: Layout) -> Boxed:
    """Returns the images that COCO's files list, and their boxes.

    Classes are the categories by ascending id. Left out are the annotations of crowds, those that give their area as 0,
    and a category without annotations that only groups others, as Roboflow writes one.

    Raises:
      DataError: a file is not COCO's, an image does not exist, or a box cannot be used; the message has its id.
    """
    files = [_read_file(split, path) for split, path in layout.parts]
    left_out: dict[str, list[str]] = {GROUPS: [], CROWDS: [], EMPTY: []}
    names, label_of = _classes(files, left_out[GROUPS])
    images: list[tuple[str, str | None]] = []
    sizes: list[tuple[int, int]] = []
    rows: list[list[tuple[float, ...]]] = []
    for file in files:
        places = _image_folders(layout.root, file.path)
        index_of = {key: len(images) + position for position, key in enumerate(file.images)}
        for key, record in file.images.items():
            images.append((_find_image(layout.root, file.path, places, key, record), file.split))
            sizes.append(_image_size(file.path, key, record))
            rows.append([])
        for key, annotation in file.annotations.items():
            where = f"{file.path}: annotation {key}"
            index = index_of[_reference(where, annotation, "image_id", file.images)]
            if annotation.get("iscrowd"):
                left_out[CROWDS].append(f"annotation {key}")
            elif _is_empty(annotation):
                left_out[EMPTY].append(f"annotation {key}")
            else:
                corners = _corners(where, annotation.get("bbox"), *sizes[index])
                rows[index].append((*corners, label_of[annotation["category_id"]]))
    paths = [os.path.relpath(file.path, layout.root) for file in files]
    return make_boxed(layout, names, paths, images, rows, sizes, left_out)


def _read_file(split: str | None, path: Path) -> _File:
    content = read_text(path, MAX_BYTES, functools.partial(parse_json, object_hook=_without_outline))
    return _File(split, path, *(_records(path, content, kind) for kind in ("images", "annotations", "categories")))


def _without_outline(value: dict[str, Any]) -> dict[str, Any]:
    """An object of a file without the outline of its pixels, which is most of the file and its memory."""
    value.pop("segmentation", None)
    return value


def _records(path: Path, content: Any, kind: str) -> Records:
    """The objects of a list in a file."""
    values = content.get(kind) if isinstance(content, dict) else None
    if not isinstance(values, list):
        raise DataError(f"{path} has no list of {kind}; COCO's files have lists of images, annotations and categories")
    records = {}
    for index, value in enumerate(values):
        key = value.get("id") if isinstance(value, dict) else value
        if not isinstance(value, dict) or not _is_id(key):
            raise DataError(f"{path}: {kind}[{index}] is {shown(key)}, but must be an object with an integer id")
        if key in records:
            raise DataError(f"{path}: two {kind} have the id {key}; give each its own")
        records[key] = value
    return records


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_id(value)


def _reference(where: str, annotation: dict[str, Any], field: str, records: Records) -> int:
    """The id of the image or the category that an annotation is of."""
    key = annotation.get(field)
    if not _is_id(key) or key not in records:
        raise DataError(f"{where} has the {field} {shown(key)}, but must have one that the file lists")
    return key


def _classes(files: list[_File], groups: list[str]) -> tuple[tuple[str, ...], dict[int, int]]:
    """The names of the classes, and the class of each category; notes the names of categories that are none."""
    categories = {key: one.get("name") for key, one in files[0].categories.items()}
    used = set()
    for file in files:
        if {key: one.get("name") for key, one in file.categories.items()} != categories:
            raise DataError(
                f"{file.path}: the categories differ from those of {files[0].path.name}; give both the same"
            )
        for key, annotation in file.annotations.items():
            used.add(_reference(f"{file.path}: annotation {key}", annotation, "category_id", file.categories))
    records = files[0].categories
    above = {one["supercategory"] for one in records.values() if isinstance(one.get("supercategory"), str)}
    ids = []
    for key in sorted(records):
        name, is_top = categories[key], records[key].get("supercategory") in (None, "", "none")
        if key not in used and is_top and isinstance(name, str) and name in above:
            groups.append(name)
        else:
            ids.append(key)
    names = check_class_names(files[0].path, [categories[key] for key in ids])
    return names, {key: label for label, key in enumerate(ids)}


def _image_folders(root: Path, file: Path) -> list[Path]:
    """The folders in which a file's images may lie: one of its split, images/, or its own."""
    word = file.stem.removeprefix("instances_")
    places = (root / word, root / "images" / word, root / "images", file.parent)
    return [place for place in places if os.path.isdir(place)]


def _find_image(root: Path, path: Path, places: list[Path], key: int, record: dict[str, Any]) -> str:
    """The name of an image's file relative to the root."""
    name = record.get("file_name")
    if not isinstance(name, str) or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise DataError(
            f"{path}: image {key} has the file_name {shown(name)}, but must name a file in the folder of images, "
            "without .."
        )
    for place in places:
        if os.path.isfile(place / name):
            return os.path.relpath(place / name, root)
    searched = listed(os.path.relpath(place, root) for place in places)
    raise DataError(f"{path}: image {key} has no file {shown(name)} in {searched}; add it, or remove the image")


def _image_size(path: Path, key: int, record: dict[str, Any]) -> tuple[int, int]:
    """Height and width of an image in pixels."""
    size: list[Any] = [record.get("height"), record.get("width")]
    if not all(_is_number(side) and 1 <= side <= MAX_PIXELS and side == int(side) for side in size):
        raise DataError(
            f"{path}: image {key} has the height and width {shown(size)}, but must have its file's, in pixels"
        )
    height, width = map(int, size)
    return height, width


def _is_empty(annotation: dict[str, Any]) -> bool:
    """Whether an annotation says itself that it is of nothing, as two of COCO's training images do."""
    box, area = annotation.get("bbox"), annotation.get("area")
    return _is_number(area) and area == 0 and isinstance(box, list) and len(box) == 4 and 0 in box[2:]


def _corners(where: str, box: Any, height: int, width: int) -> tuple[float, ...]:
    """The corners of a box as fractions of the image's width and height."""
    if isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)):
        x_min, y_min, box_width, box_height = map(float, box)
        x_max, y_max = x_min + box_width, y_min + box_height
        inside = min(x_min, y_min) >= -MARGIN and x_max <= width + MARGIN and y_max <= height + MARGIN
        corners = x_min / width, y_min / height, x_max / width, y_max / height
        x_min, y_min, x_max, y_max = corners = tuple(min(max(corner, 0.0), 1.0) for corner in corners)
        if inside and x_min < x_max and y_min < y_max:
            return corners
    raise DataError(
        f"{where} has the bbox {shown(box)}, but must have [x, y, width, height] of positive size inside of its image "
        f"of {width} x {height} pixels"
    )
