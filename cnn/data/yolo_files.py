"""Boxes in text files as YOLO's: a line an object, with class, centre and size as fractions of the image."""

import os
from pathlib import Path
from typing import Any

from cnn.data.box_formats import Boxed, check_class_names, make_boxed, read_text
from cnn.data.folders import HIDDEN, NOT_IMAGES, walk_images
from cnn.data.image_files import FORMATS
from cnn.data.layouts import Layout, holds_images, is_image, list_folder, split_of
from cnn.errors import DataError
from cnn.text import reason, shown

NAMES_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt")
"""The files that give the names of the classes; the first that exists is read."""

MAX_BYTES = 2**22
"""Maximum size of a file of boxes."""

MAX_NAMES_BYTES = 2**18
"""Maximum size of a file of names: PyYAML reads some 100 KB in a second."""

MAX_LISTS = 100
"""Maximum number of lists and dicts in a YAML file."""

OTHERS = "folders whose names have no split"
UNPAIRED = "folders that lack images/ or labels/"
STRAYS = "images outside of the folders of the splits"
ORPHANS = "text files without an image"

MARGIN = 1e-3
"""How far a coordinate may be below 0 or above 1, which rounding explains; a box is clipped to its image."""


def yolo_boxes(layout: Layout) -> Boxed:
    """Returns the images in folders, and the boxes in the text files beside them; without one, an image has no objects.

    Raises:
      DataError: there are no names or images, no image of a folder has a text file, or a line of one cannot be used.
    """
    names_file, names = _read_names(layout.root)
    files, images, rows = [names_file], [], []
    left_out: dict[str, list[str]] = {**_others(layout), ORPHANS: [], HIDDEN: [], NOT_IMAGES: []}
    for split, folder in layout.parts:
        found = list(walk_images(layout.root, os.path.relpath(folder, layout.root), left_out))
        labels = [_labels_of(name) for name in found]
        have = [os.path.lexists(layout.root / label) for label in labels]
        if not found:
            raise DataError(f"{folder} has no {FORMATS} file; put images into it, or remove it")
        if not any(have):
            raise DataError(
                f"{folder}: none of {len(found):,} images has a text file of boxes; {labels[0]} would be the first, or "
                "remove the folder"
            )
        for name, label, is_there in zip(found, labels, have, strict=True):
            images.append((name, split))
            rows.append(_read_lines(layout.root / label, len(names)) if is_there else [])
        files += [label for label, is_there in zip(labels, have, strict=True) if is_there]
    left_out[ORPHANS] = _orphans(layout, set(files))
    return make_boxed(layout, names, files, images, rows, [None] * len(images), left_out)


def _others(layout: Layout) -> dict[str, list[str]]:
    """Folders of images, and images, beside the folders of the splits, relative to the root, by why they are not read.

    The folders are in images/, or have images/ in them.
    """
    folders = [folder for _, folder in layout.parts]
    if layout.parts[0][0] is None:
        return {}
    above, inner = (layout.root, "images") if folders[0].name == "images" else (folders[0].parent, "")
    names, files, _ = list_folder(above)
    found: dict[str, list[str]] = {OTHERS: [], UNPAIRED: []}
    for name in names:
        folder, has_images = above / name / inner, holds_images(above / name)
        if folder in folders:
            continue
        if split_of(name) and (has_images or folder.is_dir() or (above / name / "labels").is_dir()):
            found[UNPAIRED].append(name)
        elif folder.is_dir() or has_images:
            found[OTHERS].append(os.path.relpath(folder if folder.is_dir() else above / name, layout.root))
    return {**found, STRAYS: [os.path.relpath(above / name, layout.root) for name in files if is_image(name)]}


def _orphans(layout: Layout, read: set[str]) -> list[str]:
    """The text files in labels/ that are of no image, relative to the root."""
    found = set()
    for images in {part if part.name == "images" else part.parent for _, part in layout.parts}:
        for folder, _, names in os.walk(images.with_name("labels")):
            texts = [name for name in names if name.endswith(".txt") and name[0] != "." and name not in NAMES_FILES]
            found |= {os.path.relpath(os.path.join(folder, name), layout.root) for name in texts}
    return sorted(found - read)


def _labels_of(name: str) -> str:
    """The text file of an image: in labels/ as the image is in images/, the last of these names in its path."""
    before, _, after = f"/{name}".rpartition("/images/")
    return f"{before}/labels/{os.path.splitext(after)[0]}.txt".removeprefix("/")


def _read_lines(path: Path, classes: int) -> list[tuple[float, ...]]:
    """The corners and the class of each object in a text file of boxes."""
    rows = []
    for number, line in enumerate(read_text(path, MAX_BYTES).splitlines(), start=1):
        if not (fields := line.split()):
            continue
        where = f"{path}, line {number}"
        try:
            label, *values = map(float, fields)
        except ValueError:
            raise DataError(f"{where} is {shown(line)}, but must have numbers: class, x, y, width, height") from None
        if label not in range(classes):
            raise DataError(f"{where}: the class is {shown(fields[0])}, but must be from 0 to {classes - 1}")
        # A polygon is an object of a segmentation; its box is the one around it.
        polygon = len(values) >= 6 and len(values) % 2 == 0
        if not (polygon or len(values) == 4) or not all(-MARGIN <= one <= 1 + MARGIN for one in values):
            raise DataError(
                f"{where} is {shown(line)}, but must have the class, and x and y of the centre, width and height as "
                "fractions of the image, from 0 to 1"
            )
        if polygon:
            corners = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
        else:
            x, y, width, height = values
            corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        x_min, y_min, x_max, y_max = (min(max(corner, 0.0), 1.0) for corner in corners)
        if not (x_min < x_max and y_min < y_max):
            raise DataError(f"{where} is {shown(line)}, but width and height must be above 0, inside of the image")
        rows.append((x_min, y_min, x_max, y_max, label))
    return rows


def _read_names(root: Path) -> tuple[str, tuple[str, ...]]:
    """The file with the names of the classes, and the names."""
    file = next((name for name in NAMES_FILES if os.path.lexists(root / name)), None)
    if not file:
        raise DataError(
            f"{root} has no names of classes; give data.yaml with names:, or classes.txt with a name a line"
        )
    path = root / file
    if file.endswith(".txt"):
        # A line that is skipped would give all names after it another class.
        return file, check_class_names(path, read_text(path, MAX_NAMES_BYTES).rstrip().splitlines())
    names = read_text(path, MAX_NAMES_BYTES, _parse_names)
    return file, check_class_names(path, names)


def _parse_names(text: str) -> list[Any]:
    """The names in a YAML file: a list, or a dict by number."""
    import yaml

    # PyYAML's time is quadratic in the depth.
    if text.count("[") + text.count("{") > MAX_LISTS:
        raise ValueError(f"more than {MAX_LISTS} lists and dicts in brackets")
    try:
        # All scalars are strings, so that a class may be named no, 1 or null; and nothing else is ever constructed.
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"not YAML{line}: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not YAML: {reason(error)}") from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and set(names) == {str(label) for label in range(len(names))}:
        names = [names[str(label)] for label in range(len(names))]
    if not isinstance(names, list):
        raise ValueError("names: must be a list of names, or a dict of names by number from 0 on")
    for label, name in enumerate(names):
        # Not with its value: of aliases in aliases, a few lines are a text of any length.
        if not isinstance(name, str):
            raise ValueError(f"names: that of class {label} is a {type(name).__name__}, but must be a text")
    return names
