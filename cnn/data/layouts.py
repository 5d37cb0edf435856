"""The layouts of own images: which one a path has, found by listing, with nothing decoded."""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from cnn.data.image_files import ALL_SUFFIXES
from cnn.errors import DataError
from cnn.text import listed, printable, reason

LAYOUTS = (
    "a folder of class folders, a folder with train/, val/ and test/ of class folders, a CSV file of file and label or "
    "of label and pixels, an npz file, or a parquet file or folder"
)
"""The layouts in words."""

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "validation", "valid", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split by the name of a folder, or by a word in the name of a file."""

FILE_COLUMNS = ("file", "file_name", "filename", "filepath", "path", "image")
LABEL_COLUMNS = ("label", "labels", "class")
PIXEL_COLUMN = re.compile(r"(pixel|px|p)?_?\d+|\d+x\d+")

Kind = Literal["class folders", "CSV of files", "CSV of pixels", "npz", "parquet", "COCO", "YOLO"]


class Layout(NamedTuple):
    """A path whose layout is known."""

    kind: Kind
    root: Path
    """The folder to which the names of its files are relative."""
    parts: tuple[tuple[str | None, Path], ...]
    """Folders or files, each with its split; None where no split is given."""


class Item(NamedTuple):
    """An image before it is decoded."""

    name: str
    """What a message calls it."""
    image: str | bytes | np.ndarray
    """The path of a file, its bytes, or uint8 [H, W] or [H, W, 3]."""
    label: str | int
    split: str | None


class Source(NamedTuple):
    """What a layout holds."""

    files: Sequence[str]
    """The files on whose content the images and labels depend, relative to the root."""
    items: Callable[[], Iterator[Item]]
    total: int | None
    """Number of items, where it is known before they are read."""
    left_out: dict[str, list[str]] = {}
    """Names of files by the reason for which they are left out."""
    class_names: tuple[str, ...] = ()
    """Names by integer label, where the source gives them."""


def find_layout(path: str | os.PathLike) -> Layout | None:
    """Returns the layout of own images that a path has; None if it is none of them, as the published files are not.

    Raises:
      DataError: a folder or a CSV file's header cannot be read, or has two meanings.
    """
    path = Path(os.path.abspath(os.path.expanduser(path)))
    if os.path.isfile(path):
        by_suffix: dict[str, Kind] = {".npz": "npz", ".parquet": "parquet"}
        suffix = path.suffix.lower()
        kind = csv_kind(path) if suffix == ".csv" else by_suffix.get(suffix)
        return Layout(kind, path.parent, ((None, path),)) if kind else None
    if not os.path.isdir(path):
        return None
    folders, files, _ = list_folder(path)
    if any("-ubyte" in name or name.endswith(".tar.gz") for name in files) or any(path.glob("*/raw/*-ubyte*")):
        return None
    if parts := _split_folders(path, folders):
        return Layout("class folders", path, parts)
    if parts := data_files(path, files, ".parquet"):
        return Layout("parquet", path, parts)
    if "data" in folders and (parts := data_files(path / "data", list_folder(path / "data")[1], ".parquet")):
        return Layout("parquet", path, parts)
    # Beside class folders, only the tables of a set of splits are more than a note.
    with_folders = len(folders) > 1 and not any("train" in name.lower() for name in files if name.endswith(".csv"))
    tables = () if with_folders else data_files(path, files, ".csv")
    if tables and (tables[0][0] or len(tables) == 1 and len(folders) < 2):
        kinds: dict[Kind, Path] = {csv_kind(file): file for _, file in tables}
        if len(kinds) > 1:
            raise DataError(f"{path}: {listed(f.name for f in kinds.values())} have different columns; name one file")
        return Layout(next(iter(kinds)), path, tables)
    has_images = any(is_image(name) for name in files)
    return Layout("class folders", path, ((None, path),)) if folders or has_images else None


def _split_folders(path: Path, folders: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """The folders of the splits; () if train, if there is one, is the name of a class."""
    by_split = defaultdict(list)
    for name in folders:
        if split := SPLIT_NAMES.get(name.lower()):
            by_split[split].append(name)
    named = sum(map(len, by_split.values()))
    if "train" not in by_split or named == 1 < len(folders) or not list_folder(path / by_split["train"][0])[0]:
        return ()
    for split, names in by_split.items():
        if len(names) > 1:
            raise DataError(f"{path}: {' and '.join(names)} are both {split} images; keep one folder")
    return tuple((split, path / names[0]) for split, names in by_split.items())


def data_files(folder: Path, files: Sequence[str], suffix: str) -> tuple[tuple[str | None, Path], ...]:
    """Returns the files with a suffix: those whose names have a split if there are any, else all.

    Raises:
      DataError: there are splits, but no training images.
    """
    parts = [(split_of(Path(name).stem), folder / name) for name in files if name.lower().endswith(suffix)]
    given = [(split, file) for split, file in parts if split]
    if given and "train" not in dict(given):
        raise DataError(f"{folder}: {listed(file.name for _, file in given)}, but no file named train")
    return tuple(given or parts)


def files_of_no_split(layout: Layout) -> list[str]:
    """Returns the names of the files that are not read, as their names have no split and those of others have."""
    folder, suffix = layout.parts[0][1].parent, layout.parts[0][1].suffix
    used = {path.name for _, path in layout.parts}
    if layout.parts[0][0] is None or layout.kind == "class folders":
        return []
    return [name for name in list_folder(folder)[1] if name.lower().endswith(suffix.lower()) and name not in used]


def split_of(stem: str) -> str | None:
    """Returns the split of which a name has a word, digits ignored; None without one, or with those of several."""
    found = {SPLIT_NAMES[word] for word in re.split("[^a-z]+", stem.lower()) if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def list_folder(path: str | os.PathLike) -> tuple[list[str], list[str], list[str]]:
    """Returns the names in a folder, each sorted: of visible folders, links to folders among them, files, and hidden.

    Raises:
      DataError: it cannot be listed.
    """
    folders, files, hidden = [], [], []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                visible = folders if _is_folder(entry) else files
                (hidden if entry.name.startswith(".") else visible).append(entry.name)
    except OSError as error:
        raise DataError(f"{printable(path)} cannot be listed: {reason(error)}") from None
    return sorted(folders), sorted(files), sorted(hidden)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A symbolic link to itself.
        return False


def is_image(name: str) -> bool:
    """Returns whether a file's name has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in ALL_SUFFIXES


def holds_images(folder: str | os.PathLike) -> bool:
    """Returns whether images lie directly in a folder; False for one that cannot be listed."""
    with suppress(DataError):
        return any(map(is_image, list_folder(folder)[1]))
    return False


def csv_kind(path: Path) -> Literal["CSV of files", "CSV of pixels"]:
    """Returns which of its two layouts a CSV file has.

    Raises:
      DataError: its header is of neither.
    """
    header = read_header(path)
    file, label = column(header, FILE_COLUMNS), column(header, LABEL_COLUMNS)
    if label and file:
        return "CSV of files"
    others = [name for name in header if name != label]
    if label and others and all(PIXEL_COLUMN.fullmatch(name.strip().lower()) for name in others):
        return "CSV of pixels"
    raise DataError(
        f"{path}: the columns are {listed(map(repr, header[:10]))}, but must be file and label, or label and pixel1, "
        "pixel2, ...; name them in the first line"
    )


def column(header: Sequence[str], names: Sequence[str]) -> str | None:
    """Returns the first column with one of several names, as the header writes it; None without one."""
    return next((found for name in names for found in header if found.strip().lower() == name), None)


def read_header(path: Path) -> list[str]:
    """Returns the column names of a CSV file."""
    with open_csv(path) as rows:
        return next(rows, [])


@contextmanager
def open_csv(path: Path) -> Iterator[Any]:
    """Gives a csv.reader of a file in UTF-8, with or without a byte order mark, and in any system's line ends.

    Raises:
      DataError: the file cannot be read, or is not CSV in UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield csv.reader(file, strict=True)
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8; save it as CSV in UTF-8") from None
    except (csv.Error, OSError) as error:
        raise DataError(f"{path} cannot be read as CSV: {reason(error)}") from None
