"""Own images with boxes: the same arrays from every layout and size, and one line for all that cannot be used."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn.data import box_files
from cnn.data.box_files import find_box_layout, place_boxes
from cnn.data.image_files import fit_image
from cnn.data.splits import Splits, data_digest
from cnn.errors import DataError
from tests.data.box_layouts import load, objects, scenes, write_coco, write_yolo
from tests.data.image_bytes import encoded, png
from tests.data.own_layouts import class_folders

pytestmark = pytest.mark.usefixtures("offline")

NAMES = ("T-shirt/top", "앵클 부츠", "fire hydrant: #2")


def beside_images(root):
    """annotations.json beside images/, with images in a folder of it."""
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    for image in content["images"]:
        image["file_name"] = "train/" + image["file_name"]
    (root / "result.json").write_text(json.dumps(content))
    (root / "images").mkdir()
    shutil.move(root / "train", root / "images")
    shutil.rmtree(root / "annotations")


def by_split_beside_images(root):
    """train.json, val.json and test.json beside images/."""
    (root / "images").mkdir()
    for file in (root / "annotations").iterdir():
        part = file.stem.removeprefix("instances_")
        file.rename(root / f"{part}.json")
        (root / part).rename(root / "images" / part)
    (root / "annotations").rmdir()


def cvat(root):
    """One file in annotations/, and images/."""
    (root / "annotations" / "instances_train.json").rename(root / "annotations" / "instances_default.json")
    (root / "train").rename(root / "images")


def roboflow_coco(root):
    for file in (root / "annotations").iterdir():
        part = file.stem.removeprefix("instances_")
        file.rename(root / part / "_annotations.coco.json")
    (root / "annotations").rmdir()
    if (root / "val").exists():
        (root / "val").rename(root / "valid")


def roboflow_yolo(root):
    for file in sorted(root.glob("*/*")):
        part = {"val": "valid"}.get(file.name, file.name)
        (root / part).mkdir(exist_ok=True)
        file.rename(root / part / file.parent.name)
    (root / "images").rmdir()
    (root / "labels").rmdir()


def years(root):
    """As COCO and Ultralytics name them, in images/."""
    (root / "images").mkdir()
    for file in (root / "annotations").iterdir():
        file.rename(file.with_stem(file.stem + "2017"))
        part = file.stem.removeprefix("instances_")
        (root / part).rename(root / "images" / f"{part}2017")


def flat(root):
    for file in list(root.glob("*/train/*")):
        file.rename(file.parents[1] / file.name)
    for folder in ("images", "labels"):
        (root / folder / "train").rmdir()
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_bytes("\r\n".join(["\ufeff" + NAMES[0], *NAMES[1:], ""]).encode())


LAYOUTS = {
    "COCO": (write_coco, lambda root: None, "COCO"),
    "COCO, years": (write_coco, years, "COCO"),
    "COCO, Roboflow": (write_coco, roboflow_coco, "COCO"),
    "COCO, CVAT": (write_coco, cvat, "COCO"),
    "COCO beside images": (write_coco, beside_images, "COCO"),
    "COCO by split beside images": (write_coco, by_split_beside_images, "COCO"),
    "YOLO": (write_yolo, lambda root: None, "YOLO"),
    "YOLO, Roboflow": (write_yolo, roboflow_yolo, "YOLO"),
    "YOLO, flat": (write_yolo, flat, "YOLO"),
}
ONE_PART = ("COCO, CVAT", "COCO beside images", "YOLO, flat")


def same(split, written):
    """Whether a split has the written images, each with its boxes."""
    expected = {image.tobytes(): objects(rows) for image, rows in zip(*written, strict=True)}
    assert len(split.images) == len(expected)
    for image, rows in zip(*split, strict=True):
        np.testing.assert_allclose(objects(rows), expected[image.tobytes()], atol=1e-3)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_scenes_come_back_from_every_layout(tmp_path, name, channels):
    write, change, kind = LAYOUTS[name]
    parts = {"train": scenes(7, 1, channels=channels)}
    if name not in ONE_PART:
        parts |= {"val": scenes(3, 2, channels=channels), "test": scenes(4, 3, channels=channels)}
    for part, split in parts.items():
        write(split, NAMES, tmp_path / "own", part)
    change(tmp_path / "own")
    assert find_box_layout(tmp_path / "own") == kind
    own, lines = load(tmp_path / "own")
    assert own.class_names == NAMES
    most = max(int((split.labels[..., 4] >= 0).sum(axis=1).max()) for split in parts.values())
    for split in own[:3]:
        assert split.images.dtype == np.uint8 and split.images.shape[1:] == (20, 30, channels)
        assert split.labels.dtype == np.float32 and split.labels.shape == (len(split.images), most, 5)
    if name in ONE_PART:
        assert [len(split.images) for split in own[:3]] == [5, 1, 1]
        own = own._replace(train=type(own.train)(*(np.concatenate(pair) for pair in zip(*own[:3], strict=True))))
    else:
        assert lines == []
    for part, split in parts.items():
        same(getattr(own, part), split)


@pytest.fixture
def coco(tmp_path):
    """A folder of COCO's, and a function that changes its file."""
    root = write_coco(scenes(10), NAMES, tmp_path / "coco")
    file = root / "annotations" / "instances_train.json"

    def change(edit):
        content = json.loads(file.read_text())
        edit(content)
        file.write_text(json.dumps(content))
        return root

    return change


@pytest.fixture
def yolo(tmp_path):
    return write_yolo(scenes(10), NAMES, tmp_path / "yolo")


def digest(path, *args, **options):
    return data_digest(Splits(*load(path, *args, **options)[0][:3]))


# Splits and cache


def test_splits_are_drawn_by_content_whatever_the_names_of_files(tmp_path, yolo):
    shutil.copytree(yolo, tmp_path / "other")
    for file in list((tmp_path / "other").glob("*/train/3.*")):
        file.rename(file.with_stem("zebra"))
    assert digest(yolo) == digest(tmp_path / "other")
    assert digest(yolo) != digest(yolo, split_seed=7)
    own, _ = load(yolo, val_fraction=0.5, test_fraction=0.4)
    assert [len(split.images) for split in own[:3]] == [3, 3, 4]


def test_the_split_is_the_same_at_every_size(yolo):
    small, large = (load(yolo, size)[0] for size in ((20, 30), (40, 60)))
    for one, other in zip(small[:3], large[:3], strict=True):
        # Images are in the order of their content, which differs.
        boxes = sorted(objects(rows) for rows in one.labels)
        doubled = sorted(objects(rows * [0.5, 0.5, 0.5, 0.5, 1]) for rows in other.labels)
        assert boxes == doubled


def test_copies_share_a_split(yolo):
    for index in range(10):
        for folder, suffix in (("images", "png"), ("labels", "txt")):
            file = yolo / folder / "train" / f"{index}.{suffix}"
            if file.exists():
                shutil.copy(file, file.with_stem(f"copy of {index}"))
    own, lines = load(yolo)
    assert "20 images are copies of one another, 10 different ones; copies share a split" in lines
    seen = [{image.tobytes() for image in split.images} for split in own[:3]]
    assert [len(split.images) for split in own[:3]] == [2 * len(one) for one in seen] == [12, 4, 4]


def test_a_second_run_reads_the_cache_and_a_changed_box_is_noticed(yolo, monkeypatch):
    first = digest(yolo)
    with monkeypatch.context() as patch:
        patch.setattr(box_files, "decode_all", None)
        assert digest(yolo) == first
    (yolo / "labels" / "train" / "0.txt").write_text("2 0.5 0.5 0.25 0.25\n")
    assert digest(yolo) != first


# Sizes


KNOWN = {
    # An image of 40 x 20 (width x height) to one of 10 x 10: the box at 10, 5, 30, 15, and one at the left edge.
    "crop": ([0, 2.5, 10, 7.5], None),
    "pad": ([2.5, 3.75, 7.5, 6.25], [0, 2.5, 2, 7.5]),
    "stretch": ([2.5, 2.5, 7.5, 7.5], [0, 0, 2, 10]),
}


@pytest.mark.parametrize("resize", KNOWN)
def test_boxes_are_resized_with_their_image(resize):
    boxes = np.array([[10, 5, 30, 15, 1], [0, 0, 8, 20, 2]], float)
    middle, left = KNOWN[resize]
    if resize == "pad":
        # 5 rows of 10 have margins of 2.5 rows, of which Pillow rounds the upper one to 2.
        middle[1::2], left[1::2] = [3.25, 5.75], [2, 7]
    actual = place_boxes(boxes, (20, 40), (10, 10), resize)
    assert actual.dtype == np.float32
    assert actual.tolist() == [[*middle, 1], *([[*left, 2]] if left else [])]


def test_a_cropped_box_stays_if_a_quarter_of_it_remains():
    # Of an image of 40 x 20, the columns from 10 to 30 remain.
    boxes = np.array([[6, 0, 11.5, 20, 0], [7, 0, 11, 20, 1], [6.9, 0, 11, 20, 2], [0, 0, 40, 20, 3]], float)
    assert place_boxes(boxes, (20, 40), (20, 20), "crop").tolist() == [
        [0, 0, 1.5, 20, 0],
        [0, 0, 1, 20, 1],
        [0, 0, 20, 20, 3],
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_box_is_where_the_resized_image_has_its_object(data):
    side = st.integers(24, 90)
    height, width, new_height, new_width = (data.draw(side) for _ in range(4))
    resize = data.draw(st.sampled_from(["crop", "pad", "stretch"]))
    left, top = data.draw(st.integers(0, width - 12)), data.draw(st.integers(0, height - 12))
    right, bottom = data.draw(st.integers(left + 12, width)), data.draw(st.integers(top + 12, height))
    pixels = np.zeros((height, width), np.uint8)
    pixels[top:bottom, left:right] = 255
    fitted, _ = fit_image(Image.fromarray(pixels), (new_height, new_width, 1), False, resize)
    bright = fitted[..., 0] > 127
    # A margin has the colour of most of the border, which the object's may be.
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assume(resize != "pad" or np.median(border) == 0)
    for box in place_boxes(np.array([[left, top, right, bottom, 0]], float), (height, width), fitted.shape[:2], resize):
        for axis, (low, high) in enumerate(((box[0], box[2]), (box[1], box[3]))):
            lit = np.flatnonzero(bright.any(axis=axis))
            # Half a pixel, and what the filter, which is no box, adds.
            assert abs(lit[0] - low) <= 0.75 and abs(lit[-1] + 1 - high) <= 0.75


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_images_of_several_sizes_are_brought_to_one(tmp_path, resize):
    for part, seed in (("train", 0), ("val", 1), ("test", 2)):
        write_yolo(scenes(4, seed, (20 + 4 * seed, 30)), NAMES, tmp_path, part)
    with pytest.raises(DataError, match="give all one size with --data.image_size HEIGHT WIDTH"):
        load(tmp_path)
    own, _ = load(tmp_path, (32, 32), 3, resize)
    assert all(split.images.shape == (4, 32, 32, 3) for split in own[:3])
    assert all(split.labels[..., :4].min() == 0 and split.labels[..., :4].max() <= 32 for split in own[:3])
    if resize != "crop":
        assert sum((split.labels[..., 4] >= 0).sum() for split in own[:3]) == sum(
            (scenes(4, seed, (20 + 4 * seed, 30)).labels[..., 4] >= 0).sum() for seed in range(3)
        )


# Unusual, and valid


def test_categories_are_classes_by_ascending_id_with_gaps(tmp_path, coco):
    plain = digest(coco(lambda content: None))
    gaps = write_coco(scenes(10), NAMES, tmp_path / "gaps", ids=lambda index: 90 * index + 7)
    own, _ = load(gaps)
    assert own.class_names == NAMES
    assert data_digest(Splits(*own[:3])) == plain


def test_crowds_and_empty_annotations_are_left_out_and_counted(coco):
    plain = digest(coco(lambda content: None))

    def edit(content):
        one = content["annotations"][0]
        content["annotations"] += [
            {**one, "id": 501, "iscrowd": 1, "segmentation": {"counts": [1, 2], "size": [20, 30]}},
            {**one, "id": 502, "area": 0.0, "bbox": [3, 4, 5, 0.0]},
        ]

    own, lines = load(coco(edit))
    assert lines[:2] == [
        "left out, annotations of crowds (iscrowd): 1 (annotation 501)",
        "left out, annotations of area 0: 1 (annotation 502)",
    ]
    assert data_digest(Splits(*own[:3])) == plain


def test_a_category_that_only_groups_others_is_no_class(coco):
    plain = digest(coco(lambda content: None))

    def edit(content):
        content["categories"].append({"id": -1, "name": "thing", "supercategory": "none"})

    own, lines = load(coco(edit))
    assert own.class_names == NAMES and data_digest(Splits(*own[:3])) == plain
    assert lines[:1] == ["left out, categories that only group others: 1 (thing)"]
    coco(lambda content: content["annotations"][0].update(category_id=-1))
    assert load(coco(lambda content: None))[0].class_names == ("thing", *NAMES)


def test_coordinates_over_the_edge_by_rounding_are_clipped(coco, yolo):
    def edit(content):
        content["annotations"][0]["bbox"] = [-0.5, 0, 30.75, 20]

    own, _ = load(coco(edit))
    assert [0, 0, 30, 20] in [rows[:4] for split in own[:3] for image in split.labels for rows in image.tolist()]
    (yolo / "labels" / "train" / "0.txt").write_text("0 0.1 0.1 0.4 1.0000001\n")
    own, _ = load(yolo)
    boxes = [rows for split in own[:3] for image in split.labels for rows in image.tolist() if rows[4] == 0]
    assert any(np.allclose(rows, [0, 0, 9, 12, 0], atol=1e-4) for rows in boxes)


def test_a_polygon_is_read_as_the_box_around_it(yolo):
    plain = digest(yolo)
    (yolo / "labels" / "train" / "0.txt").write_text("1 0.25 0.5 0.5 0.25 0.75 0.5\n")
    with_polygon = digest(yolo)
    (yolo / "labels" / "train" / "0.txt").write_text("1 0.5 0.375 0.5 0.25\n")
    assert digest(yolo) == with_polygon != plain


YAML = {
    "list": "names: [a, 'b c', \"d\"]\n",
    "list in lines": "names: [a,\n  b c,  # two words\n  d]\nnc: 3\n",
    "items": "names:\n- a\n- b c\n- d\n",
    "dict": "path: ../x\nnames:\n  0: a\n  1: b c\n  2: d\n",
    "dict in another order": "names: {2: d, 0: a, 1: b c}\n",
    "byte order mark, CRLF": "\ufeffnames:\r\n  - a\r\n  - b c\r\n  - d\r\n",
}


@pytest.mark.parametrize("name", YAML)
def test_names_are_read_from_yaml_as_lists_and_dicts(yolo, name):
    (yolo / "data.yaml").write_bytes(YAML[name].encode())
    assert load(yolo)[0].class_names == ("a", "b c", "d")


def test_names_that_yaml_has_other_values_for_stay_names(yolo):
    (yolo / "data.yaml").write_text("names: [no, 1.50, null]\n")
    assert load(yolo)[0].class_names == ("no", "1.50", "null")


def test_byte_order_marks_line_ends_and_empty_files_are_read(yolo, coco):
    plain = digest(yolo)
    for file in yolo.glob("labels/train/*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b" \r\n\r\n"))
    (yolo / "labels" / "train" / "1.txt").write_bytes(b"\n")
    assert digest(yolo) == plain
    root = coco(lambda content: content.update(extra={"deep": [1, None]}))
    plain = digest(root)
    file = root / "annotations" / "instances_train.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b", ", b",\r\n"))
    assert digest(root) == plain


def test_one_class_and_images_without_objects_are_enough(tmp_path):
    split = scenes(6, classes=1)
    split.labels[..., 4] = -1
    split.labels[0, 0, 4] = 0
    for part in ("train", "val", "test"):
        write_coco(split, ["only"], tmp_path, part)
    own, lines = load(tmp_path)
    assert own.class_names == ("only",) and (own.val.labels[..., 4] >= 0).sum() == 1
    assert len([line for line in lines if "are also" in line]) == 3


def test_hidden_files_and_links_are_treated_as_in_class_folders(yolo, tmp_path):
    plain = digest(yolo)
    (yolo / "images" / "train" / ".hidden.png").write_bytes(b"no image")
    (yolo / "images" / "train" / "notes.md").write_text("no image")
    (yolo / "images" / "train").rename(tmp_path / "elsewhere")
    (yolo / "images" / "train").symlink_to(tmp_path / "elsewhere")
    own, lines = load(yolo)
    assert data_digest(Splits(*own[:3])) == plain
    assert lines[:2] == [
        "left out, hidden: 1 (.hidden.png)",
        "left out, not PNG, JPEG, WebP, BMP, GIF or TIFF: 1 (notes.md)",
    ]
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leads back"):
        load(yolo)


def test_a_folder_of_no_split_is_left_out_and_named(yolo):
    plain = digest(yolo)
    for change, name in ((lambda root: None, "images/extra"), (roboflow_yolo, "extra/images")):
        change(yolo)
        (yolo / name).mkdir(parents=True)
        shutil.copy(next(yolo.rglob("*.png")), yolo / name)
        own, lines = load(yolo)
        assert data_digest(Splits(*own[:3])) == plain
        assert lines[0] == f"left out, folders whose names have no split: 1 ({name})"
        shutil.rmtree(yolo / name)


def test_what_lies_beside_the_folders_of_the_splits_is_left_out_and_named(yolo):
    plain = digest(yolo)
    (yolo / "labels" / "test").mkdir()
    for name in ("classes.txt", "train/b.txt", "test/.hidden.txt", "test/c.txt"):
        (yolo / "labels" / name).write_text("0 0.5 0.5 0.1 0.1\n")
    shutil.copy(yolo / "images" / "train" / "0.png", yolo / "images" / "stray.png")
    own, lines = load(yolo)
    assert data_digest(Splits(*own[:3])) == plain
    assert lines[:2] == [
        "left out, images outside of the folders of the splits: 1 (images/stray.png)",
        "left out, text files without an image: 2 (labels/test/c.txt, labels/train/b.txt)",
    ]


@pytest.mark.parametrize("kept", ["images", "labels", ""])
def test_a_folder_of_a_split_that_lacks_images_or_labels_is_named(yolo, kept):
    plain = digest(yolo)
    roboflow_yolo(yolo)
    (yolo / "valid" / kept).mkdir(parents=True)
    (yolo / "test").mkdir()
    if kept != "labels":
        shutil.copy(yolo / "train" / "images" / "0.png", yolo / "valid" / kept)
    own, lines = load(yolo)
    assert data_digest(Splits(*own[:3])) == plain
    assert lines[0] == "left out, folders that lack images/ or labels/: 1 (valid)"


def test_images_of_a_split_without_a_coco_file_are_left_out_and_named(coco):
    root = coco(lambda content: None)
    plain = digest(root)
    for name in ("val", "images/test", "annotations/masks", "empty", "images/empty"):
        (root / name).mkdir(parents=True)
        if "empty" not in name:
            shutil.copy(root / "train" / "train 0.png", root / name)
    for change in (lambda root: None, roboflow_coco):
        change(root)
        own, lines = load(root)
        assert data_digest(Splits(*own[:3])) == plain
        split = "valid" if change is roboflow_coco else "val"
        assert lines[0] == f"left out, folders of which no image is listed: 2 ({split}, images/test)"
        shutil.rmtree(root / "annotations" / "masks", ignore_errors=True)


def test_a_coco_file_of_no_split_is_left_out_and_named(coco):
    root = coco(lambda content: None)
    plain = digest(root)
    for name in ("instances_minival", "captions_val"):
        shutil.copy(root / "annotations" / "instances_train.json", root / "annotations" / f"{name}.json")
    own, lines = load(root)
    assert data_digest(Splits(*own[:3])) == plain
    assert lines[0] == "left out, of no split: 1 (instances_minival.json)"
    for name in ("instances_minival", "captions_val"):
        (root / "annotations" / f"{name}.json").unlink()
    by_split_beside_images(root)
    shutil.copy(root / "train.json", root / "minival.json")
    assert load(root)[1][0] == "left out, of no split: 1 (minival.json)"


def test_images_at_any_depth_have_their_text_files_at_the_same(yolo):
    plain = digest(yolo)
    for folder, suffix in (("images", "png"), ("labels", "txt")):
        (yolo / folder / "train" / "camera 1" / "day").mkdir(parents=True)
        file = yolo / folder / "train" / f"0.{suffix}"
        file.rename(file.parent / "camera 1" / "day" / file.name)
    assert digest(yolo) == plain
    # The last of these names in the path, as Ultralytics reads it.
    (yolo / "images" / "train" / "images").mkdir()
    (yolo / "images" / "train" / "labels").mkdir()
    (yolo / "images" / "train" / "2.png").rename(yolo / "images" / "train" / "images" / "2.png")
    (yolo / "labels" / "train" / "2.txt").rename(yolo / "images" / "train" / "labels" / "2.txt")
    assert digest(yolo) == plain


def test_a_damaged_image_is_left_out_with_its_boxes(yolo, coco):
    for root in (yolo, coco(lambda content: None)):
        next(root.glob("**/*3.png")).write_bytes(b"no image")
        own, lines = load(root)
        assert sum(len(split.images) for split in own[:3]) == 9
        assert lines[0].startswith("left out 1 of 10 images, which cannot be read: ") and "3.png" in lines[0]


# Layouts


def test_other_layouts_have_no_boxes(tmp_path, digits):
    assert find_box_layout(class_folders(tmp_path / "classes", {"": digits})) is None
    assert find_box_layout(class_folders(tmp_path / "splits", {"train": digits, "test": digits})) is None
    for name in ("images", "labels"):
        class_folders(tmp_path / "two classes" / name, {"": digits})
    (tmp_path / "table" / "images").mkdir(parents=True)
    (tmp_path / "table" / "labels.csv").write_text("file,label\n")
    (tmp_path / "table" / "info.json").write_text("{}")
    (tmp_path / "file.json").write_text("{}")
    for name in ("two classes", "table", "file.json", "nowhere"):
        assert find_box_layout(tmp_path / name) is None
    with pytest.raises(DataError, match="holds no images with boxes; give a folder with annotations"):
        load(tmp_path / "table")


def test_boxes_without_training_images_are_refused(tmp_path):
    for write in (write_coco, write_yolo):
        root = write(scenes(3), NAMES, tmp_path / write.__name__, "val")
        with pytest.raises(DataError, match="no f.* named train"):
            find_box_layout(root)


# Bad input


def _annotation(**fields):
    return lambda content: content["annotations"][0].update(fields)


def _image(**fields):
    return lambda content: content["images"][0].update(fields)


BOX = r"annotation 1 has the bbox .*, but must have \[x, y, width, height\] of positive size inside of its image"

BAD_COCO = {
    "negative size": (_annotation(bbox=[3, 3, -2, 4]), BOX),
    "no size": (_annotation(bbox=[3, 3, 0, 4]), BOX),
    "outside": (_annotation(bbox=[40, 3, 5, 5]), BOX),
    "over the edge": (_annotation(bbox=[20, 3, 15, 5]), BOX),
    "above": (_annotation(bbox=[3, -9, 5, 5]), BOX),
    "huge": (_annotation(bbox=[1e300, 1e300, 1e300, 1e300]), BOX),
    "huge integer": (_annotation(bbox=[10**15, 1, 2, 2]), BOX),
    "three numbers": (_annotation(bbox=[1, 2, 3]), BOX),
    "text": (_annotation(bbox=["1", "2", "3", "4"]), BOX),
    "booleans": (_annotation(bbox=[True, True, True, True]), BOX),
    "no box": (lambda content: content["annotations"][0].pop("bbox"), BOX),
    "not finite": (_annotation(bbox=[float("nan"), 1, 2, 3]), "a number that is not finite"),
    "infinite": (_annotation(bbox=[1, 1, float("inf"), 3]), "a number that is not finite"),
    "unknown image": (_annotation(image_id=77), "annotation 1 has the image_id 77, but must have one that the file"),
    "unknown category": (_annotation(category_id=77), "annotation 1 has the category_id 77, but must have one"),
    "list for an id": (_annotation(category_id=[1]), r"annotation 1 has the category_id \[1\]"),
    "same id": (lambda content: content["annotations"][1].update(id=1), "two annotations have the id 1"),
    "no id": (lambda content: content["annotations"][3].pop("id"), r"annotations\[3\] is None, but must be an object"),
    "number for an object": (lambda content: content["images"].append(7), r"images\[10\] is 7, but must be an object"),
    "no annotations": (lambda content: content.pop("annotations"), "has no list of annotations"),
    "dict for a list": (lambda content: content.update(categories={}), "has no list of categories"),
    "no categories": (
        lambda content: content.update(categories=[], annotations=[]),
        "has no classes, but must name at least 1",
    ),
    "no objects": (lambda content: content.update(annotations=[]), "no training image has a box"),
    "no images": (lambda content: content.update(images=[], annotations=[]), "there are no images"),
    "two names": (lambda content: content["categories"][0].update(name=NAMES[0].upper()), "two classes are named"),
    "no name": (lambda content: content["categories"][0].pop("name"), "a class has the name None"),
    "missing image": (_image(file_name="no.png"), "image 0 has no file 'no.png' in train, annotations; add it"),
    "directory": (_image(file_name="."), "image 0 has no file '.'"),
    "upwards": (_image(file_name="../train/train 0.png"), "but must name a file in the folder of images, without .."),
    "absolute": (_image(file_name="/etc/passwd"), "image 0 has the file_name '/etc/passwd', but must name a file in"),
    "NUL": (_image(file_name="a\0.png"), "image 0 has no file"),
    "long": (_image(file_name="a" * 5000), "image 0 has no file"),
    "no file_name": (lambda content: content["images"][0].pop("file_name"), "image 0 has the file_name None"),
    "no width": (lambda content: content["images"][0].pop("width"), r"height and width \[20, None\]"),
    "other size": (
        lambda content: content["images"][1].update(width=20, height=30),
        r"1.png has 30 x 20 pixels, but 20 x 30 \(width x height\) by its annotations",
    ),
    "deep": (lambda content: content.update(deep=json.loads("[" * 70 + "]" * 70)), "more than 64 levels"),
    "many boxes": (
        lambda content: content.update(annotations=[{**content["annotations"][0], "id": i} for i in range(10_001)]),
        "has 10,001 boxes, but an image may have at most 10,000",
    ),
}


def refused(path, match):
    with pytest.raises(DataError, match=match) as error:
        load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", BAD_COCO)
def test_a_bad_coco_file_is_refused_in_one_line(coco, name):
    edit, message = BAD_COCO[name]
    refused(coco(edit), message)


BAD_FILES = {
    "broken": (b'{"images": [', "not JSON"),
    "empty": (b"", "not JSON"),
    "deeper": (b"[" * 200_000, "more than 64 levels"),
    "a list": (b"[]", "has no list of images"),
    "Latin-1": (b'{"\xe9": 1}', "is not UTF-8; save it in UTF-8"),
    "many digits": (b"9" * 5000, "not JSON"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_json_is_refused_in_one_line(coco, name):
    content, message = BAD_FILES[name]
    root = coco(lambda content: None)
    (root / "annotations" / "instances_train.json").write_bytes(content)
    refused(root, message)


def test_a_picture_that_is_stored_rotated_needs_boxes_of_it_upright(coco):
    root = coco(lambda content: None)
    exif = Image.Exif()
    exif[274] = 6
    image = Image.open(root / "train" / "train 0.png")
    (root / "train" / "train 0.png").write_bytes(encoded(image, "JPEG", exif=exif))
    with pytest.raises(DataError, match="train 0.png has 20 x 30 pixels, but 30 x 20 .* save it upright"):
        load(root, (20, 30))


def test_files_with_other_categories_are_refused(tmp_path):
    write_coco(scenes(4), NAMES, tmp_path)
    write_coco(scenes(4, 1), NAMES[::-1], tmp_path, "val")
    refused(tmp_path, "the categories differ from those of instances_train.json; give both the same")


BAD_LINES = {
    "class beyond": ("3 0.5 0.5 0.1 0.1", "line 1: the class is '3', but must be from 0 to 2"),
    "negative class": ("0 0.5 0.5 0.1 0.1\n\n-1 0.5 0.5 0.1 0.1", "line 3: the class is '-1'"),
    "fraction of a class": ("0.5 0.5 0.5 0.1 0.1", "the class is '0.5'"),
    "class NaN": ("nan 0.5 0.5 0.1 0.1", "the class is 'nan'"),
    "text": ("cat 0.5 0.5 0.1 0.1", "must have numbers: class, x, y, width, height"),
    "comma": ("0,0.5,0.5,0.1,0.1", "must have numbers"),
    "pixels": ("0 15 10 5 5", "as fractions of the image, from 0 to 1"),
    "NaN": ("0 nan 0.5 0.1 0.1", "as fractions of the image"),
    "infinite": ("0 0.5 0.5 inf 0.1", "as fractions of the image"),
    "huge": ("0 0.5 0.5 1e300 0.1", "as fractions of the image"),
    "confidence": ("0 0.5 0.5 0.1 0.1 0.9", "as fractions of the image"),
    "too few": ("0 0.5 0.5", "as fractions of the image"),
    "negative size": ("0 0.5 0.5 -0.1 0.1", "as fractions of the image"),
    "no size": ("0 0.5 0.5 0 0.1", "width and height must be above 0"),
    "binary": ("\x00\x01\x7f", "must have numbers"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_of_a_text_file_is_refused_in_one_line(yolo, name):
    content, message = BAD_LINES[name]
    (yolo / "labels" / "train" / "0.txt").write_text(content)
    refused(yolo, message)


BAD_NAMES = {
    "no names": ("nc: 3\n", "names: must be a list of names, or a dict of names by number from 0 on"),
    "text": ("names: a b c\n", "names: must be a list"),
    "gap": ("names: {0: a, 2: b}\n", "names: must be a list"),
    "from 1 on": ("names: {1: a, 2: b}\n", "names: must be a list"),
    "by name": ("names: {a: 0, b: 1}\n", "names: must be a list"),
    "nested": ("names: [a, [b], c]\n", "names: that of class 1 is a list, but must be a text"),
    "nested dict": ("names: {0: a, 1: {b: c}}\n", "names: that of class 1 is a dict, but must be a text"),
    "empty name": ("names: [a, '', c]\n", "a class has the name ''"),
    "empty": ("names: []\n", "has no classes"),
    "nothing": ("", "names: must be a list"),
    "equal": ("names: [a, b, A]\n", "two classes are named 'a' and 'A'"),
    "no YAML": ("names: [a, b\n", "not YAML"),
    "tab": ("names:\n\t- a\n", "not YAML"),
    "deep": ("names: " + "[" * 5000, "more than 100 lists and dicts in brackets"),
    "deep by dashes": ("names:\n" + "- " * 5000, "not YAML"),
    "object": ("names: !!python/object/apply:os.getcwd []\n", "has no classes"),
    "recursive": ("names: &a [*a]\n", "not YAML|that of class 0 is a list"),
    "large": ("#" * 2**18 + "\nnames: [a]\n", "bytes, but at most"),
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_cannot_be_read_are_refused_in_one_line(yolo, name):
    content, message = BAD_NAMES[name]
    (yolo / "data.yaml").write_text(content)
    refused(yolo, message)


def test_a_name_of_aliases_is_refused_without_being_written_out(yolo, monkeypatch):
    monkeypatch.setattr("cnn.data.box_formats.shown", lambda name: pytest.fail("writes a name"))
    (yolo / "data.yaml").write_text("x: &x [once, twice]\ny: &y [*x, *x]\nnames: [a, *y]\n")
    refused(yolo, "data.yaml cannot be read: names: that of class 1 is a list, but must be a text$")


def test_what_is_missing_is_named_with_its_hint(yolo, tmp_path):
    (yolo / "data.yaml").rename(tmp_path / "data.yaml")
    refused(yolo, "has no names of classes; give data.yaml with names:, or classes.txt with a name a line")
    (yolo / "classes.txt").write_text("a\n\nb\n")
    refused(yolo, "classes.txt: a class has the name ''")
    (tmp_path / "data.yaml").rename(yolo / "data.yaml")
    (yolo / "images" / "val").mkdir()
    refused(yolo, "val has no PNG, JPEG.* file; put images into it, or remove it")
    (yolo / "images" / "val" / "a.png").write_bytes(png(np.zeros((20, 30), np.uint8)))
    refused(
        yolo, "none of 1 images has a text file of boxes; labels/val/a.txt would be the first, or remove the folder"
    )
    shutil.rmtree(yolo / "images" / "val")
    for index in range(2, 10):
        (yolo / "images" / "train" / f"{index}.png").unlink()
    refused(yolo, "2 different training images, but at least 3 are needed; add images")


ODD = (None, True, -1, 0, 0.5, 1e308, 2**62, "", "x", [], {}, [[]], [1, 2, 3, {}], {"id": 1})


@pytest.mark.parametrize("kind", ["images", "annotations", "categories"])
def test_any_value_in_any_field_is_read_or_refused_in_one_line(coco, kind, monkeypatch):
    monkeypatch.setattr(box_files, "load_source", lambda *arguments: None)
    file = coco(lambda content: None) / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    refusals = 0
    for field in (*content[kind][0], "area"):
        for value in ODD:
            first, *others = content[kind]
            file.write_text(json.dumps({**content, kind: [{**first, field: value}, *others]}))
            try:
                load(file.parents[1])
            except DataError as error:
                refusals += 1
                assert "\n" not in str(error)
    assert refusals > 25


@pytest.mark.parametrize("name", ["labels/train/0.txt", "data.yaml", "images/train/0.png"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path)])
def test_what_is_no_regular_file_is_refused_or_left_out_and_never_waited_for(yolo, name, make):
    (yolo / name).unlink()
    make(yolo / name)
    if not name.endswith("png"):
        refused(yolo, "not a regular file|a directory|Too many levels of symbolic links")
    else:
        own, _ = load(yolo)
        assert sum(len(split.images) for split in own[:3]) == 9


@pytest.mark.parametrize("name", ["annotations/instances_train.json", "train/train 0.png"])
def test_a_pipe_in_place_of_a_coco_file_is_refused_and_never_waited_for(coco, name):
    root = coco(lambda content: None)
    (root / name).unlink()
    os.mkfifo(root / name)
    refused(root, "not a regular file|has no file 'train 0.png'")
