"""Class folders: what is read, left out, and refused."""

import shutil

import numpy as np
import pytest

import cnn
from cnn.data.own_images import load_own_images
from tests.data.image_bytes import png
from tests.data.own_layouts import class_folders, cut, digest, load, refused

pytestmark = pytest.mark.usefixtures("offline")


def test_what_is_left_out_is_counted_and_named(folder):
    own, _ = load(folder)
    for name in ("notes.txt", "3/Thumbs.db", "3/.DS_Store", "stray.png", ".ipynb_checkpoints/3.png", "3/broken.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no image")
    (folder / "3" / "gone.png").symlink_to("nowhere")
    left, lines = load(folder)
    assert digest(left) == digest(own)
    assert lines[:3] == [
        "left out, hidden: 2 (.ipynb_checkpoints, .DS_Store)",
        "left out, not PNG, JPEG, WebP, BMP, GIF or TIFF: 2 (notes.txt, Thumbs.db)",
        "left out, outside of the class folders: 1 (stray.png)",
    ]
    assert lines[3].startswith("left out 2 of 102 images, which cannot be read: ") and "broken.png" in lines[3]
    assert len(lines) == 4


def test_images_in_nested_and_linked_folders_belong_to_their_class(tmp_path, folder):
    own, _ = load(folder)
    (folder / "3" / "more" / "of it").mkdir(parents=True)
    for path in list((folder / "3").glob("*0.png")):
        path.rename(folder / "3" / "more" / "of it" / path.name)
    (folder / "4").rename(tmp_path / "elsewhere")
    (folder / "4").symlink_to(tmp_path / "elsewhere")
    assert digest(load(folder)[0]) == digest(own)


BAD_FOLDERS = {
    "one class": (lambda root: [shutil.rmtree(root / str(label)) for label in range(1, 10)], "only one class, '0'"),
    "folder around": (
        lambda root: (root.rename(root.parent / "in"), root.mkdir(), (root.parent / "in").rename(root / "in")),
        "put a folder for each class into it, or name the folder that holds them",
    ),
    "empty class": (lambda root: (root / "10").mkdir(), "10 has no PNG, JPEG"),
    "no images in class": (lambda root: [path.unlink() for path in (root / "3").iterdir()], "3 has no PNG, JPEG"),
    "few": (
        lambda root: [path.unlink() for path in sorted((root / "3").iterdir())[2:]],
        "'3' has 2, but each class must",
    ),
    "copies": (
        lambda root: [path.write_bytes(png(np.zeros((8, 8), np.uint8))) for path in (root / "3").iterdir()],
        "'3' has 1, but each class must have at least 3; add images",
    ),
    "case": (
        lambda root: [(root / str(label)).rename(root / name) for label, name in enumerate(("Cat", "cat"))],
        "two classes are named 'Cat' and 'cat'",
    ),
    "space": (
        lambda root: [(root / str(label)).rename(root / name) for label, name in enumerate(("cat", "cat "))],
        "two classes are named 'cat' and 'cat '",
    ),
    "symlink loop": (lambda root: (root / "3" / "up").symlink_to(root), "leads back"),
    "unreadable": (lambda root: [path.write_bytes(b"") for path in root.glob("*/*.png")], "none of 100 images"),
    "flat": (
        lambda root: (
            [path.rename(root / path.name) for path in root.glob("*/*.png")]
            + [shutil.rmtree(root / str(label)) for label in range(10)]
        ),
        "has no class folders",
    ),
}


def test_what_is_left_out_is_named_before_an_error_that_may_follow_from_it(folder):
    for path in sorted((folder / "3").iterdir())[2:]:
        path.rename(path.with_suffix(".heic"))
    lines = []
    with pytest.raises(cnn.DataError, match="'3' has 2, but each class must"):
        load_own_images(folder, warn=lines.append)
    assert len(lines) == 1 and lines[0].startswith("left out, not PNG, JPEG, WebP, BMP, GIF or TIFF: 8 (")


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folders_are_refused_in_one_line(folder, name):
    change, message = BAD_FOLDERS[name]
    change(folder)
    assert message in refused(folder)


def test_a_class_that_only_the_test_images_have_is_refused(tmp_path, digits):
    train, test = cut(digits, 70)
    root = class_folders(tmp_path / "folders", {"train": train, "test": test})
    (root / "test" / "9").rename(root / "test" / "ten")
    assert "'ten' has 0, but each class must" in refused(root)


def test_a_class_that_the_test_images_lack_is_reported(tmp_path, digits):
    train, test = cut(digits, 70)
    root = class_folders(tmp_path / "folders", {"train": train, "test": test})
    shutil.rmtree(root / "test" / "9")
    assert load(root)[1] == ["the test images lack 1 classes: 9"]
