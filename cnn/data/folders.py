"""Images in class folders, and those that a CSV file lists: paths, labels and splits; no file is opened here."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from cnn.data.image_files import FORMATS
from cnn.data.layouts import (
    FILE_COLUMNS,
    LABEL_COLUMNS,
    Item,
    Layout,
    Source,
    column,
    is_image,
    list_folder,
    open_csv,
)
from cnn.errors import DataError
from cnn.text import listed, printable, shown

NOT_IMAGES = f"not {FORMATS}"
HIDDEN = "hidden"
UNCLASSED = "outside of the class folders"


def class_folders(layout: Layout) -> Source:
    """Returns the images in class folders, at any depth, symbolic links followed; the folder's name is the label.

    Raises:
      DataError: there are no class folders, one of them has no image, or a symbolic link leads back.
    """
    files: list[str] = []
    # Labels and splits by class folder, with the number of files up to its end: nothing more is kept by file.
    classes: list[tuple[str | None, str, int]] = []
    left_out = defaultdict(list)
    parts = {path.name for _, path in layout.parts if path != layout.root}
    for split, part in layout.parts:
        folders, strays, hidden = list_folder(part)
        if not folders:
            raise DataError(f"{part} has no class folders; put the images of each class into a folder with its name")
        left_out[HIDDEN] += hidden
        for name in strays:
            left_out[UNCLASSED if is_image(name) else NOT_IMAGES].append(name)
        for label in folders:
            start = len(files)
            files += walk_images(layout.root, str(part.relative_to(layout.root) / label), left_out)
            if len(files) == start:
                raise DataError(f"{part / label} has no {FORMATS} file; put images of its class into it, or remove it")
            classes.append((split, label, len(files)))
    if len(names := {label for _, label, _ in classes}) < 2:
        raise DataError(
            f"there is only one class, {listed(map(shown, names))}, in {layout.root}; put a folder for each class into "
            "it, or name the folder that holds them"
        )
    if parts:
        folders, strays, hidden = list_folder(layout.root)
        left_out[HIDDEN] += hidden
        left_out[UNCLASSED] += [name for name in folders + strays if name not in parts]

    def items() -> Iterator[Item]:
        start = 0
        for split, label, end in classes:
            for name in files[start:end]:
                path = os.path.join(layout.root, name)
                yield Item(path, path, label, split)
            start = end

    return Source(files, items, len(files), dict(left_out))


def walk_images(root: Path, folder: str, left_out: dict[str, list[str]]) -> Iterator[str]:
    """Yields the names of a folder's images at any depth, relative to the root, in order; notes what is left out.

    Raises:
      DataError: a folder cannot be listed, or a symbolic link leads back.
    """
    # Each folder with those that it lies in, by which a symbolic link that leads back to one of them is found.
    waiting = [(folder, frozenset[tuple[int, int]]())]
    while waiting:
        folder, above = waiting.pop()
        path = root / folder
        folders, files, hidden = list_folder(path)
        status = os.stat(path)
        identity = status.st_dev, status.st_ino
        if identity in above:
            raise DataError(f"{path} is a symbolic link that leads back to a folder around it; remove the link")
        left_out[HIDDEN] += hidden
        for name in files:
            if is_image(name):
                yield f"{folder}/{name}"
            else:
                left_out[NOT_IMAGES].append(name)
        waiting += [(f"{folder}/{name}", above | {identity}) for name in reversed(folders)]


def listed_files(layout: Layout) -> Source:
    """Returns the images that CSV files list, each with its label; paths are relative to the CSV file's folder.

    Labels are integers if all of them are.

    Raises:
      DataError: a row has no file, no label or another number of columns.
    """
    rows: list[tuple[str, str, str | None]] = []
    same: dict[str, str] = {}
    for split, path in layout.parts:
        with open_csv(path) as reader:
            header = next(reader, [])
            file, label = (header.index(column(header, names) or "") for names in (FILE_COLUMNS, LABEL_COLUMNS))
            for row in reader:
                if not row:
                    continue
                where = f"{path}, line {reader.line_num}"
                if len(row) != len(header):
                    raise DataError(
                        f"{where}: {len(row)} columns, but the first line has {len(header)}; write a comma inside of a "
                        'name in quotes: "a, b.png"'
                    )
                if not row[file].strip() or not row[label].strip():
                    raise DataError(f"{where}: the {'label' if row[file].strip() else 'file'} is missing")
                # One string a class, not one a row.
                rows.append((row[file], same.setdefault(row[label], row[label]), split))
    numbers = all(re.fullmatch("-?[0-9]{1,18}", label.strip()) for label in same)
    if numbers and (negative := [label for label in same if int(label) < 0]):
        raise DataError(f"{layout.parts[0][1]}: the label {negative[0]} is out of range; labels are at least 0")

    def items() -> Iterator[Item]:
        for name, label, split in rows:
            path = os.path.join(layout.root, name)
            yield Item(path, path, int(label) if numbers else label, split)

    tables = [printable(path.relative_to(layout.root)) for _, path in layout.parts]
    return Source([*tables, *(name for name, *_ in rows)], items, len(rows))
