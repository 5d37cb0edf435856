"""Writers of own images in every layout, and what tests do with them."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from cnn.data.own_images import load_own_images
from cnn.data.splits import Splits, data_digest
from cnn.errors import DataError
from tests.data.image_bytes import png

Parts = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Images uint8 [N,H,W] or [N,H,W,3], and labels from 0, by split; "" for no split."""


def class_folders(root: Path, parts: Parts, folders: Mapping[str, str] = {}) -> Path:
    for split, (images, labels) in parts.items():
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / folders.get(split, split) / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index}.png").write_bytes(png(image))
    return root


def validation_folders(root: Path, parts: Parts) -> Path:
    return class_folders(root, parts, {"val": "validation"})


def _tables(root: Path, parts: Parts, rows: Callable) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, part in parts.items():
        with open(root / f"digits_{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows(split, *part))
    return root if "" not in parts else root / "digits_.csv"


def csv_files(root: Path, parts: Parts) -> Path:
    def rows(split, images, labels):
        (root / "images").mkdir(exist_ok=True)
        yield ["file", "label"]
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = f"images/{split}, {index}.png"
            (root / name).write_bytes(png(image))
            yield [name, label]

    return _tables(root, parts, rows)


def csv_pixels(root: Path, parts: Parts) -> Path:
    def rows(split, images, labels):
        yield ["label", *(f"pixel{index + 1}" for index in range(images[0].size))]
        for image, label in zip(images, labels, strict=True):
            yield [label, *image.ravel()]

    return _tables(root, parts, rows)


def keras_npz(root: Path, parts: Parts) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, (images, labels) in parts.items():
        arrays |= {f"x_{split or 'train'}": images, f"y_{split or 'train'}": labels}
    np.savez(root / "digits.npz", **arrays)
    return root / "digits.npz"


def medmnist_npz(root: Path, parts: Parts) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, (images, labels) in parts.items():
        arrays |= {f"{split or 'train'}_images": images[..., None], f"{split or 'train'}_labels": labels[:, None]}
    np.savez_compressed(root / "digits.npz", **arrays)
    return root / "digits.npz"


def parquet_table(images: np.ndarray, labels: list, names: list[str] | None = None) -> pyarrow.Table:
    rows = [{"bytes": png(image), "path": f"{index}.png"} for index, image in enumerate(images)]
    image = pyarrow.array(rows, pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}))
    table = pyarrow.table({"image": image, "label": labels})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return table


def parquet_numbers(root: Path, parts: Parts, names: list[str] | None = None) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in parts.items():
        for shard in range(2):
            file = root / f"{split and {'val': 'validation'}.get(split, split)}-{shard:05}-of-00002.parquet"
            table = parquet_table(images[shard::2], labels[shard::2].tolist(), names)
            parquet.write_table(table, file, row_group_size=50)
    return root


def parquet_named(root: Path, parts: Parts) -> Path:
    return parquet_numbers(root / "data", parts, [f"digit {label}" for label in range(10)]).parent


def parquet_strings(root: Path, parts: Parts) -> Path:
    return parquet_numbers(root, {split: (images, labels.astype(str)) for split, (images, labels) in parts.items()})


WRITERS = [
    *(class_folders, validation_folders, csv_files, csv_pixels, keras_npz, medmnist_npz),
    *(parquet_numbers, parquet_named, parquet_strings),
]


def load(path, *args, **options):
    """The images, and the lines about them."""
    lines = []
    return load_own_images(path, *args, warn=lines.append, **options), lines


def refused(path, **options) -> str:
    with pytest.raises(DataError) as error:
        load(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def digest(own) -> str:
    return data_digest(Splits(*own[:3]))


def cut(digits, *bounds):
    parts = zip((0, *bounds), (*bounds, None), strict=True)
    return [tuple(array[start:end] for array in digits) for start, end in parts]
