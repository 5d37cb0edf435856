"""Images in one file or a few: pixels in CSV and npz, encoded images in parquet. They are read as a stream."""

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cnn.data.image_files import MAX_PIXELS
from cnn.data.layouts import LABEL_COLUMNS, Item, Layout, Source, column, read_header
from cnn.errors import DataError
from cnn.text import listed, printable, reason

NPZ_NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
"""The arrays of images and labels of a split, as Keras and as MedMNIST name them."""

ROWS = 64
"""Number of rows that are read at a time: of a parquet file, up to 32 MiB each."""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what a reader raises about a file into a DataError of one line."""
    try:
        yield
    except DataError:
        raise
    # pyarrow, zipfile, zlib and NumPy's header parser raise almost any type on damaged bytes.
    except Exception as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None


def _check_label(label: int | None, classes: int, where: str) -> int:
    """Returns an integer label if it is one of a class; by default, of any number of classes."""
    if label is None:
        raise DataError(f"{where}: the label is missing")
    if label < 0 or classes and label >= classes:
        allowed = f"from 0 to {classes - 1}" if classes else "at least 0"
        raise DataError(f"{where}: the label is {label}, but must be {allowed}")
    return label


def csv_pixels(layout: Layout) -> Source:
    """Returns the images of CSV files with a label and the pixels of a square grey image in each row."""
    # Checked before any row is read.
    headers = {path: read_header(path) for _, path in layout.parts}
    for path, header in headers.items():
        if len(set(header)) < len(header):
            raise DataError(f"{path}: two columns have one name; rename one")
        side = int((len(header) - 1) ** 0.5)
        if side * side != len(header) - 1:
            raise DataError(
                f"{path}: {len(header) - 1} pixels in a row are not a square image; save other shapes as npz"
            )

    def items() -> Iterator[Item]:
        import pyarrow
        from pyarrow import csv

        for split, path in layout.parts:
            header = headers[path]
            label, side, row = column(header, LABEL_COLUMNS), int((len(header) - 1) ** 0.5), 1
            types = {name: pyarrow.int64() if name == label else pyarrow.uint8() for name in header}
            convert = csv.ConvertOptions(column_types=types, null_values=[""])
            try:
                for batch in csv.open_csv(path, csv.ReadOptions(use_threads=False), convert_options=convert):
                    if empty := [name for name in header if batch.column(name).null_count]:
                        missing = row + 1 + batch.column(empty[0]).is_null().index(True).as_py()
                        raise DataError(f"{path}, row {missing}: the {empty[0]} is missing")
                    labels = batch.column(label).to_pylist()
                    pixels = np.stack([batch.column(name).to_numpy() for name in header if name != label], axis=1)
                    for index, image in zip(labels, pixels.reshape(-1, side, side), strict=True):
                        row += 1
                        where = f"{path}, row {row}"
                        yield Item(where, image, _check_label(index, 0, where), split)
            except (pyarrow.ArrowException, OSError) as error:
                raise DataError(
                    f"{path}: {reason(error)}; labels are integers, and pixels integers from 0 to 255"
                ) from None

    return Source([str(path.relative_to(layout.root)) for _, path in layout.parts], items, None)


def npz_arrays(layout: Layout) -> Source:
    """Returns the images of an npz file in which arrays of images and labels have Keras' or MedMNIST's names."""
    (_, path), *_ = layout.parts
    with _readable(path), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        splits = {split: pair for split, pairs in NPZ_NAMES.items() for pair in pairs if set(pair) & set(names)}
        if "train" not in splits or any(name not in names for pair in splits.values() for name in pair):
            raise DataError(
                f"{path}: the arrays are {listed(names)}, but must be x_train, y_train, x_test, y_test or "
                "train_images, train_labels, and val_ and test_ likewise"
            )
        shapes = {split: _check_arrays(path, archive, *pair) for split, pair in splits.items()}

    def items() -> Iterator[Item]:
        with _readable(path), zipfile.ZipFile(path) as archive:
            for split, (images, labels) in splits.items():
                given = None if len(splits) == 1 else split
                with archive.open(f"{labels}.npy") as member:
                    values = np.lib.format.read_array(member, allow_pickle=False).reshape(-1)
                with archive.open(f"{images}.npy") as member:
                    _array_header(member)
                    count, *shape = shapes[split]
                    for index in range(count):
                        where = f"{path}, {images}[{index}]"
                        image = np.frombuffer(member.read(int(np.prod(shape))), np.uint8).reshape(shape)
                        image = image[..., 0] if shape[2:] == [1] else image
                        yield Item(where, image, _check_label(int(values[index]), 0, f"{where}, {labels}"), given)
                    if member.read(1):  # At the end, its checksum is compared.
                        raise DataError(f"{path}: {images} is longer than its header says")

    return Source([path.name], items, sum(shape[0] for shape in shapes.values()))


def _array_header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads an array's shape, whether it is in Fortran order, and its dtype."""
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return readers[version](member)


def _check_arrays(path: Path, archive: zipfile.ZipFile, images: str, labels: str) -> tuple[int, ...]:
    """Returns the shape of an array of images; it and its labels are checked by their headers."""
    with archive.open(f"{images}.npy") as member:
        shape, fortran, dtype = _array_header(member)
    if dtype != np.uint8 or fortran or shape[3:] not in ((), (1,), (3,)) or len(shape) not in (3, 4) or 0 in shape:
        order = " in Fortran order" if fortran else ""
        raise DataError(
            f"{path}: {images} is {dtype} {list(shape)}{order}, but must be uint8 [N, height, width] with 1, 3 or no "
            "channels, from 0 to 255, in C order"
        )
    if shape[1] * shape[2] > MAX_PIXELS:
        raise DataError(f"{path}: {images} has images of {shape[1]} x {shape[2]}; at most {MAX_PIXELS:,} pixels")
    with archive.open(f"{labels}.npy") as member:
        actual, _, dtype = _array_header(member)
    if not np.issubdtype(dtype, np.integer) or actual not in ((shape[0],), (shape[0], 1)):
        raise DataError(
            f"{path}: {labels} is {dtype} {list(actual)}, but must be integers [{shape[0]}], 1 for each image"
        )
    return shape


def parquet_rows(layout: Layout) -> Source:
    """Returns the encoded images in parquet files as Hugging Face writes them.

    A column is a struct of bytes and path, another the integer or string label; names of integer labels are in the
    file's metadata.
    """
    from pyarrow import parquet

    columns, total, class_names = None, 0, ()
    for _, path in layout.parts:
        with _readable(path), parquet.ParquetFile(path) as file:
            found = _columns(path, file.schema_arrow)
            if columns and found != columns:
                raise DataError(f"{path}: the columns differ from those of {layout.parts[0][1].name}")
            columns, total, class_names = found, total + file.metadata.num_rows, found[2]
    if not columns:
        raise DataError(f"{layout.root} has no parquet file")
    image, label, _ = columns

    def items() -> Iterator[Item]:
        for split, path in layout.parts:
            with _readable(path), parquet.ParquetFile(path) as file:
                row = 0
                for batch in file.iter_batches(ROWS, columns=[f"{image}.bytes", label], use_threads=False):
                    images, labels = (batch.column(name).to_pylist() for name in (image, label))
                    for content, value in zip(images, labels, strict=True):
                        row += 1
                        where = f"{path}, row {row}"
                        if not isinstance(value, str) or not value.strip():
                            number = None if isinstance(value, str) else value
                            value = _check_label(number, len(class_names), where)
                        yield Item(where, (content or {}).get("bytes") or b"", value, split)

    return Source([os.path.relpath(path, layout.root) for _, path in layout.parts], items, total, {}, class_names)


def _columns(path: Path, schema: Any) -> tuple[str, str, tuple[str, ...]]:
    """The names of the columns of images and labels, and the names of integer labels."""
    from pyarrow import types

    structs = [field for field in schema if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0]
    images = [
        field.name
        for field in structs
        if types.is_binary(field.type.field("bytes").type) or types.is_large_binary(field.type.field("bytes").type)
    ]
    features = _features(schema)
    labels = [
        name for name, feature in features.items() if feature.get("_type") == "ClassLabel" and name in schema.names
    ]
    label = column(schema.names, LABEL_COLUMNS) or (labels[0] if len(labels) == 1 else None)
    if label and images:
        kind = schema.field(label).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if types.is_integer(kind):
            names = features.get(label, {}).get("names") or ()
            return images[0], label, tuple(map(str, names)) if isinstance(names, list) else ()
        if types.is_string(kind) or types.is_large_string(kind):
            return images[0], label, ()
    fields = listed(f"{field.name} ({printable(str(field.type), 30)})" for field in schema)
    raise DataError(
        f"{path}: the columns are {fields}, but must be an image (struct of bytes and path) and a label (integer or "
        "string)"
    )


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """Hugging Face's description of the columns; {} where there is none."""
    try:
        described = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in described.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
