"""Own images: the same arrays from every layout, size, copies, and the cache."""

import errno
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cnn.data import own_images
from cnn.data.image_files import decode_image
from cnn.data.splits import Splits
from tests.data.image_bytes import png
from tests.data.own_layouts import WRITERS, class_folders, cut, digest, keras_npz, load, refused

pytestmark = pytest.mark.usefixtures("offline")


GIVEN = {
    "no splits": lambda digits: {"": digits},
    "train and test": lambda digits: dict(zip(("train", "test"), cut(digits, 70), strict=True)),
    "all splits": lambda digits: dict(zip(("train", "val", "test"), cut(digits, 60, 80), strict=True)),
}


SHARES = {
    "no splits": {"train": 60, "val": 20, "test": 20},
    "train and test": {"train": 60, "val": 10, "test": 30},
    "all splits": {"train": 60, "val": 20, "test": 20},
}


@pytest.mark.parametrize("given", GIVEN)
def test_every_layout_gives_the_same_arrays(tmp_path, digits, given):
    parts = GIVEN[given](digits)
    results, own = {}, None
    for writer in WRITERS:
        own, lines = load(writer(tmp_path / writer.__name__, parts))
        assert lines == [], writer
        assert own.train.images.dtype == np.uint8 and own.train.labels.dtype == np.int32
        results[writer.__name__] = digest(own)
        names = {"parquet_named": "digit {}", **dict.fromkeys(("csv_files", "csv_pixels"), "class {}")}
        names |= dict.fromkeys(("keras_npz", "medmnist_npz", "parquet_numbers"), "class {}")
        assert own.class_names == tuple(names.get(writer.__name__, "{}").format(label) for label in range(10))
    assert len(set(results.values())) == 1, results
    assert own
    # And they are the images that were written; those of a given split are in it.
    for split, name in zip(own[:3], Splits._fields, strict=True):
        within = [parts[name]] if name in parts else parts.values()
        written = {(image.tobytes(), label) for pair in within for image, label in zip(*pair, strict=True)}
        assert {(image.tobytes(), label) for image, label in zip(*split, strict=True)} <= written
        assert len(split.labels) == SHARES[given][name]


# Size and channels


@pytest.fixture
def photos(tmp_path):
    """Two classes of colour images of several sizes."""
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index, size in enumerate([(30, 40), (41, 20), (16, 16), (9, 60)]):
            image = Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8))
            image.save(tmp_path / "photos" / label / f"{index}.jpg")
    return tmp_path / "photos"


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_images_are_resized_as_predict_resizes_them(photos, resize, channels):
    own, _ = load(photos, (16, 24), channels, resize)
    actual = {image.tobytes() for split in own[:3] for image in split.images}
    shape = (16, 24, channels or 3)
    assert actual == {decode_image(path, shape, False, resize).pixels.tobytes() for path in photos.glob("*/*.jpg")}
    assert own.train.images.shape[1:] == shape


def test_the_split_is_the_same_at_every_size(photos):
    def sources(size):
        own, _ = load(photos, size)
        by_pixels = {
            decode_image(path, (*size, 3), False, "crop").pixels.tobytes(): path for path in photos.glob("*/*")
        }
        return [{by_pixels[image.tobytes()] for image in split.images} for split in own[:3]]

    assert sources((8, 8)) == sources((16, 24))


def test_images_of_several_sizes_need_a_size(photos):
    assert "give all one size with --data.image_size HEIGHT WIDTH" in refused(photos)


def test_channels_stay_as_they_are_unless_one_image_has_colours(folder):
    own, _ = load(folder)
    assert own.train.images.shape[1:] == (8, 8, 1)
    (folder / "3" / "red.png").write_bytes(png(Image.new("RGB", (8, 8), "red")))
    coloured, _ = load(folder)
    assert coloured.train.images.shape[1:] == (8, 8, 3)
    assert {image[..., :1].tobytes() for image in own.test.images} <= {
        image[..., :1].tobytes() for split in coloured[:3] for image in split.images
    }
    assert load(folder, channels=1)[0].train.images.shape[1:] == (8, 8, 1)
    assert "--data.channels is 2" in refused(folder, channels=2)


def test_a_colour_copy_of_a_grey_image_is_found(folder, digits):
    (folder / "0" / "copy.png").write_bytes(png(Image.fromarray(digits[0][0]).convert("RGB")))
    _, lines = load(folder)
    assert lines == ["2 images are copies of one another, 1 different ones; copies share a split"]


# Copies


def test_copies_are_counted_and_stay_in_one_split(tmp_path, digits):
    images, labels = (np.concatenate([array, array, array[:30]]) for array in digits)
    own, lines = load(class_folders(tmp_path / "twice", {"": (images, labels)}))
    assert lines == ["230 images are copies of one another, 100 different ones; copies share a split"]
    sets = [{image.tobytes() for image in split.images} for split in own[:3]]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 100
    assert sum(len(split.labels) for split in own[:3]) == 230


def test_equal_images_of_two_classes_are_counted(folder, digits):
    for label in "35":
        (folder / label / "same.png").write_bytes(png(np.full((8, 8), 77, np.uint8)))
    assert "1 different images have several labels, one of them '3' and '5'" in load(folder)[1]


def test_images_in_two_given_splits_are_counted(tmp_path, digits):
    train, test = cut(digits, 70)
    both = np.concatenate([test[0], train[0][:7]]), np.concatenate([test[1], train[1][:7]])
    _, lines = load(keras_npz(tmp_path, {"train": train, "test": both}))
    assert sum("different test images are also" in line for line in lines) >= 1


def test_renaming_classes_and_files_moves_no_image(folder):
    own, _ = load(folder)
    for path in folder.glob("*/*.png"):
        path.rename(path.with_name(f"{hash(path.stem) % 1000}_{path.name}"))
    for path in list(folder.iterdir()):
        path.rename(folder / f"class {9 - int(path.name)}")
    renamed, _ = load(folder)
    for split, other in zip(own[:3], renamed[:3], strict=True):
        np.testing.assert_array_equal(split.images, other.images)
        np.testing.assert_array_equal(split.labels, 9 - other.labels)


def test_another_seed_gives_another_split_of_the_same_images(folder):
    one, other = (load(folder, split_seed=seed)[0] for seed in (1, 2))
    assert digest(one) != digest(other)
    assert one.digest == other.digest
    assert sum(map(np.sum, (split.images for split in one[:3]))) == sum(np.sum(split.images) for split in other[:3])


# The cache


@pytest.fixture
def never_decode(monkeypatch):
    def forbid():
        def raising(*args):
            raise AssertionError("decoded again")

        monkeypatch.setattr(own_images, "decode_all", raising)

    return forbid


def test_a_second_run_decodes_nothing(folder, never_decode, capsys):
    (folder / "3" / "broken.png").write_bytes(b"no image")
    first, lines = load(folder)
    assert capsys.readouterr().err == "decoding 101 images into the cache, once\n"
    never_decode()
    second, again = load(folder)
    assert digest(second) == digest(first) and again == lines and len(lines) == 1
    assert capsys.readouterr().err == ""
    assert isinstance(second.train.images, np.memmap) and not second.train.images.flags.writeable


def test_files_of_another_time_or_place_are_recognized_by_their_bytes(folder, never_decode):
    first, _ = load(folder)
    never_decode()
    os.utime(folder / "3" / "3.png")
    shutil.copytree(folder, folder.parent / "copy")
    for path in (folder, folder.parent / "copy"):
        assert digest(load(path)[0]) == digest(first)


def test_a_changed_file_of_equal_size_and_time_is_noticed(folder):
    first, _ = load(folder)
    path = folder / "3" / "3.png"
    times = path.stat()
    content = Image.open(path)
    content.putpixel((0, 0), 200)
    changed = png(content)
    path.write_bytes(changed + bytes(times.st_size - len(changed)) if len(changed) < times.st_size else changed)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest(load(folder)[0]) != digest(first)


def _entry(tmp_path):
    return next(path.parent for path in tmp_path.glob("home/fashion-cnn/images/*/metadata.json"))


@pytest.mark.parametrize("damage", ["bit flip", "truncated", "metadata", "other files"])
def test_a_damaged_cache_is_noticed_and_rebuilt(tmp_path, folder, digits, damage):
    first = digest(load(folder)[0])
    entry = _entry(tmp_path)
    if damage == "other files":
        other = class_folders(tmp_path / "other", {"": (digits[0][::-1] // 2, digits[1][::-1])})
        load(other)
        another = next(path for path in entry.parent.glob("*/metadata.json") if path.parent != entry).parent
        shutil.copytree(another, entry, dirs_exist_ok=True)
    else:
        name = "metadata.json" if damage == "metadata" else "val_images.npy"
        content = bytearray((entry / name).read_bytes())
        content[-5] ^= 1
        (entry / name).write_bytes(content[:-1] if damage == "truncated" else content)
    own, lines = load(folder)
    assert digest(own) == first
    assert len(lines) == 1 and "is damaged" in lines[0] and lines[0].endswith("it is rebuilt")
    assert ("made from other files" in lines[0]) == (damage == "other files")


def test_a_file_that_changes_while_it_is_read_is_noticed(monkeypatch, tmp_path, folder):
    decode_all = own_images.decode_all

    def changing(*args):
        decoded = decode_all(*args)
        (folder / "3" / "3.png").write_bytes(b"half")
        return decoded

    monkeypatch.setattr(own_images, "decode_all", changing)
    assert "a file changed while it was read" in refused(folder)
    assert not list(tmp_path.glob("home/fashion-cnn/images/*"))


def test_a_full_disk_is_one_line_and_leaves_nothing(monkeypatch, tmp_path, folder):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(own_images, "write_rows", full)
    assert "cannot write the cache" in refused(folder) and "No space left" in refused(folder)
    assert not list(tmp_path.glob("home/fashion-cnn/images/*"))


def test_an_interrupted_decoding_leaves_nothing_and_says_so_in_one_line(folder, monkeypatch, tmp_path):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    lines = []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(own_images, "decode_all", interrupt)
        own_images.load_own_images(folder, warn=lines.append)
    assert lines == ["interrupted; nothing is cached, and the same command starts again"]
    assert not list((tmp_path / "home" / "fashion-cnn" / "images").iterdir())
    load(folder)
