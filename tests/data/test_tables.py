"""CSV, npz and parquet files: what is read, and what is refused."""

import csv
import io
import zipfile

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from tests.data.own_layouts import (
    csv_files,
    csv_pixels,
    digest,
    keras_npz,
    load,
    parquet_numbers,
    parquet_table,
    refused,
)

pytestmark = pytest.mark.usefixtures("offline")


def _rewrite(path, change):
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(change(rows) or rows)
    return path


@pytest.mark.parametrize(("encoding", "end"), [("utf-8-sig", "\r\n"), ("utf-8", "\n"), ("utf-8-sig", "\r")])
@pytest.mark.parametrize("writer", [csv_files, csv_pixels])
def test_csv_files_of_any_system_are_read(tmp_path, digits, writer, encoding, end):
    path = writer(tmp_path / "csv", {"": digits})
    own, _ = load(path)
    path.write_bytes(path.read_text().replace("\n", end).encode(encoding))
    assert digest(load(path)[0]) == digest(own)


def _cell(row, column, value):
    def change(rows):
        rows[row][column] = value

    return change


BAD_CSV = {
    "quoted": (csv_files, lambda rows: rows[5].__setitem__(slice(0, 1), ["a", "b.png"]), "line 6: 3 columns, but the"),
    "no label": (csv_files, _cell(5, 1, " "), "line 6: the label is missing"),
    "no file": (csv_files, _cell(5, 0, ""), "line 6: the file is missing"),
    "negative": (csv_files, _cell(5, 1, "-1"), "the label -1 is out of range"),
    "columns": (csv_files, _cell(0, 1, "kind"), "'kind', but must be file and label, or label and pixel1"),
    "text": (csv_pixels, _cell(5, 0, "cat"), "invalid value 'cat'; labels are integers, and pixels integers from 0"),
    "pixel text": (csv_pixels, _cell(5, 7, "x"), "invalid value 'x'; labels are integers"),
    "256": (csv_pixels, _cell(5, 7, "256"), "invalid value '256'"),
    "fraction": (csv_pixels, _cell(5, 7, "0.5"), "invalid value '0.5'"),
    "no pixel": (csv_pixels, _cell(5, 7, ""), "row 6: the pixel7 is missing"),
    "no number": (csv_pixels, _cell(5, 0, ""), "row 6: the label is missing"),
    "below 0": (csv_pixels, _cell(5, 0, "-1"), "row 6: the label is -1, but must be at least 0"),
    "short": (csv_pixels, lambda rows: [*rows[:5], rows[5][1:], *rows[6:]], "Expected 65 columns, got 64"),
    "twice": (csv_pixels, _cell(0, 7, "pixel1"), "two columns have one name"),
    "square": (csv_pixels, lambda rows: [row[:-1] for row in rows], "63 pixels in a row are not a square image"),
    "empty": (csv_pixels, lambda rows: rows[:1], "there are no images"),
    "nothing": (csv_pixels, lambda rows: [[]], "the columns are"),
}


@pytest.mark.parametrize("name", BAD_CSV)
def test_bad_csv_files_are_refused_in_one_line(tmp_path, digits, name):
    writer, change, message = BAD_CSV[name]
    assert message in refused(_rewrite(writer(tmp_path / "csv", {"": digits}), change))


def test_csv_of_another_encoding_or_content_is_refused_in_one_line(tmp_path, digits):
    path = csv_files(tmp_path / "csv", {"": digits})
    for content, message in {
        path.read_text().replace(",", ";").encode(): "the columns are 'file;label'",
        "file,label\ncafé.png,a\n".encode("latin-1"): "is not UTF-8",
        b'file,label\n"a.png"x,1\n': "cannot be read as CSV",
        b"file,label\na\0.png,1\nb.png,2": "none of 2 images can be read",
        b"": "the columns are",
    }.items():
        path.write_bytes(content)
        assert message in refused(path)


BAD_NPZ = {
    "float": ({"x_train": lambda x: x / 255}, "x_train is float64 [100, 8, 8], but must be uint8"),
    "channels": ({"x_train": lambda x: np.stack([x] * 2, axis=-1)}, "uint8 [100, 8, 8, 2], but must be"),
    "flat": ({"x_train": lambda x: x.reshape(100, 64)}, "uint8 [100, 64], but must be"),
    "objects": ({"x_train": lambda x: x.astype(object)}, "object"),
    "one-hot": ({"y_train": lambda y: np.eye(10)[y]}, "y_train is float64 [100, 10], but must be integers [100]"),
    "text": ({"y_train": lambda y: y.astype(str)}, "must be integers [100]"),
    "fewer": ({"y_train": lambda y: y[:50]}, "y_train is uint8 [50], but must be integers [100]"),
    "negative": ({"y_train": lambda y: y.astype(int) - 1}, "x_train[0], y_train: the label is -1"),
    "names": ({"y_train": lambda y: None}, "the arrays are x_train, but must be x_train, y_train"),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_bad_npz_files_are_refused_in_one_line(tmp_path, digits, name):
    changes, message = BAD_NPZ[name]
    arrays = dict(zip(("x_train", "y_train"), digits, strict=True))
    arrays |= {key: change(arrays[key]) for key, change in changes.items()}
    np.savez(tmp_path / "bad.npz", **{key: array for key, array in arrays.items() if array is not None})
    assert message in refused(tmp_path / "bad.npz")


def test_a_damaged_npz_file_is_refused_in_one_line(tmp_path, digits):
    path = keras_npz(tmp_path, {"train": digits})
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[5000] ^= 1
    short = io.BytesIO()
    with zipfile.ZipFile(short, "w") as archive, zipfile.ZipFile(path) as whole:
        archive.writestr("x_train.npy", whole.read("x_train.npy")[:-9])
        archive.writestr("y_train.npy", whole.read("y_train.npy"))
    for damaged in (content[:3000], bytes(flipped), b"", short.getvalue()):
        path.write_bytes(damaged)
        assert "cannot be read" in refused(path)


def test_bad_parquet_files_are_refused_in_one_line(tmp_path, digits):
    images, labels = digits[0], digits[1].tolist()
    good = parquet_table(images, labels, [f"digit {label}" for label in range(10)])

    def labelled(values, kind=None):
        return good.set_column(1, "label", pyarrow.array(values, kind))

    kinds = good.rename_columns(["image", "kind"]).replace_schema_metadata({})
    for table, message in [
        (kinds, "kind (int64), but must be an image (struct"),
        (good.drop_columns("image"), "the columns are label (int64), but must be an image"),
        (labelled([0.5] * 100), "label (double), but must be an image (struct"),
        (labelled([None, *labels[1:]], pyarrow.int64()), "row 1: the label is missing"),
        (labelled(["", *map(str, labels[1:])]), "row 1: the label is missing"),
        (labelled([10, *labels[1:]]), "row 1: the label is 10, but must be from 0 to 9"),
        (labelled([-1, *labels[1:]]), "row 1: the label is -1, but must be from 0 to 9"),
    ]:
        parquet.write_table(table, tmp_path / "bad.parquet")
        assert message in refused(tmp_path / "bad.parquet")
    parquet.write_table(good, tmp_path / "bad.parquet")
    content = (tmp_path / "bad.parquet").read_bytes()
    for damaged in (content[:2000], b"", b"PAR1" + bytes(100) + b"PAR1"):
        (tmp_path / "bad.parquet").write_bytes(damaged)
        assert "cannot be read" in refused(tmp_path / "bad.parquet")


def test_a_class_of_the_metadata_without_an_image_is_refused(tmp_path, digits):
    root = parquet_numbers(tmp_path / "named", {"": digits}, [*map(str, range(10)), "none"])
    assert "'none' has 0, but each class must" in refused(root)
