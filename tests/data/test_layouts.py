"""Which layout a path has, found by names alone: no file in these tests is an image."""

import pytest

from cnn.data.layouts import find_layout
from cnn.errors import DataError

FILES = "file,label\n"
PIXELS = "label,pixel1,pixel2\n"

LAYOUTS = {
    "class folders": (["cat/a.png", "dog/b.jpg"], ".", "class folders", {None: "."}),
    "one class folder": (["cat/a.png"], ".", "class folders", {None: "."}),
    "empty class folders": (["cat/", "dog/"], ".", "class folders", {None: "."}),
    "flat": (["a.png"], ".", "class folders", {None: "."}),
    "splits": (["train/cat/a.png", "test/cat/b.png"], ".", "class folders", {"train": "train", "test": "test"}),
    "all splits": (
        ["train/cat/a.png", "validation/cat/a.png", "test/cat/b.png", "notes/c.txt"],
        ".",
        "class folders",
        {"train": "train", "val": "validation", "test": "test"},
    ),
    "val": (["Train/cat/a.png", "Val/cat/a.png"], ".", "class folders", {"train": "Train", "val": "Val"}),
    "train alone": (["train/cat/a.png"], ".", "class folders", {"train": "train"}),
    "a class of trains": (["train/a.png", "test/b.png"], ".", "class folders", {None: "."}),
    "trains and cars": (["train/red/a.png", "car/red/b.png"], ".", "class folders", {None: "."}),
    "CSV of files": (["labels.csv=" + FILES, "images/a.png"], "labels.csv", "CSV of files", {None: "labels.csv"}),
    "CSV in a folder": (["labels.csv=" + FILES, "images/a.png"], ".", "CSV of files", {None: "labels.csv"}),
    "CSV beside class folders": (["notes.csv=a,b", "cat/a.png", "dog/a.png"], ".", "class folders", {None: "."}),
    "test.csv beside class folders": (["test.csv=a,b", "cat/a.png", "dog/a.png"], ".", "class folders", {None: "."}),
    "CSV of pixels": (["digits.CSV=" + PIXELS], "digits.CSV", "CSV of pixels", {None: "digits.CSV"}),
    "Kaggle": (
        ["fashion-mnist_train.csv=" + PIXELS, "fashion-mnist_test.csv=" + PIXELS, "sample_submission.csv=id,label"],
        ".",
        "CSV of pixels",
        {"train": "fashion-mnist_train.csv", "test": "fashion-mnist_test.csv"},
    ),
    "header in other words": (["x.csv=\ufeffClass, File_Name\n"], "x.csv", "CSV of files", {None: "x.csv"}),
    "header of rows": (["x.csv=label,1x1,1x2\n"], "x.csv", "CSV of pixels", {None: "x.csv"}),
    "npz": (["pathmnist.npz"], "pathmnist.npz", "npz", {None: "pathmnist.npz"}),
    "parquet": (["a.parquet"], "a.parquet", "parquet", {None: "a.parquet"}),
    "shards": (
        ["train-0-of-2.parquet", "validation-0-of-1.parquet", "test-0-of-1.parquet"],
        ".",
        "parquet",
        {"train": "train-0-of-2.parquet", "val": "validation-0-of-1.parquet", "test": "test-0-of-1.parquet"},
    ),
    "shards of no split": (["0000.parquet"], ".", "parquet", {None: "0000.parquet"}),
    "repository": (["data/train-0.parquet", "README.md"], ".", "parquet", {"train": "data/train-0.parquet"}),
}


def write(root, files):
    for file in files:
        name, _, content = file.partition("=")
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(content, encoding="utf-8")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_is_found_by_names(tmp_path, name):
    files, path, kind, parts = LAYOUTS[name]
    write(tmp_path, files)
    layout = find_layout(tmp_path / path)
    assert layout and layout.kind == kind and layout.root == tmp_path
    assert {split: str(part.relative_to(tmp_path)) for split, part in layout.parts} == parts


@pytest.mark.parametrize(
    "files",
    [
        ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"],
        ["FashionMNIST/raw/train-images-idx3-ubyte"],
        ["cifar-10-binary.tar.gz"],
        ["notes.txt"],
        [".hidden/a.png"],
        [],
    ],
)
def test_published_files_and_others_have_no_layout(tmp_path, files):
    write(tmp_path, files)
    assert find_layout(tmp_path) is None
    assert find_layout(tmp_path / "nowhere") is None
    assert all(find_layout(path) is None for path in tmp_path.iterdir() if path.is_file())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/cat/a.png", "val/cat/a.png", "validation/cat/a.png"], "val and validation are both val images"),
        (["test-0.parquet", "0.parquet"], "test-0.parquet, but no file named train"),
        (["train.csv=" + FILES, "test.csv=" + PIXELS], "test.csv, train.csv have different columns"),
        (["train.csv=a,b"], r"train.csv: the columns are 'a', 'b', but must be file and label, or label and pixel1"),
    ],
)
def test_two_meanings_are_refused_in_one_line(tmp_path, files, message):
    write(tmp_path, files)
    with pytest.raises(DataError, match=message):
        find_layout(tmp_path)
