"""Image files of every kind, most of them not what they say."""

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import cnn
from cnn.data import image_files
from cnn.look import prediction
from cnn.runs import fit as train
from tests.helpers import ROOT


def _png(pixels, mode=None):
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels, mode)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def shoe(small):
    return small.test.images[0]


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _bomb(width, height):
    """A few kilobytes that say they are so many pixels, and are a part of that."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(width * 1000), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _animated():
    file, frames = io.BytesIO(), [Image.new("L", (28, 28), value) for value in (0, 90)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


def _gif():
    file = io.BytesIO()
    Image.new("L", (28, 28)).save(file, "GIF")
    return file.getvalue()


def test_an_image_as_the_data_sets_keeps_its_pixels(tmp_path, shoe):
    (tmp_path / "shoe.png").write_bytes(_png(shoe[:, :, 0]))
    np.testing.assert_array_equal(image_files.read_image(tmp_path / "shoe.png"), shoe)


def test_whatever_its_mode_and_size_the_same_shoe_is_read(tmp_path, shoe):
    grey = Image.fromarray(shoe[:, :, 0])
    black = Image.new("L", grey.size, 0)
    variants = {
        "rgb": grey.convert("RGB"),
        "palette": grey.convert("P"),
        "16-bit": Image.fromarray(shoe[:, :, 0].astype(np.uint16) * 257),
        "dark on light": Image.fromarray(255 - shoe[:, :, 0]),
        "rgba": Image.merge("RGBA", (grey, grey, grey, black.point(lambda value: 255))),
        # Black, and transparent where the shoe is not: dark on what counts as white.
        "transparent": Image.merge("RGBA", (black, black, black, grey)),
        "grey and alpha": Image.merge("LA", (black, grey)),
        "large": grey.resize((280, 280), Image.Resampling.NEAREST),
    }
    for name, image in variants.items():
        (tmp_path / name).write_bytes(_png(image))
        read = image_files.read_image(tmp_path / name).astype(int)
        tolerance = 40 if name == "large" else 1  # resampling, and what conversion to grey rounds
        assert np.abs(read - shoe).max() <= tolerance, name
    grey.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(image_files.read_image(tmp_path / "cmyk.jpg").astype(int) - shoe).mean() < 5


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (300, 20), (29, 28), (5000, 5000)])
def test_any_size_is_fitted_in(tmp_path, size):
    (tmp_path / "image.png").write_bytes(_png(Image.new("L", size, 30)))
    image = image_files.read_image(tmp_path / "image.png")
    assert image.shape == (28, 28, 1) and (image == 30).all()


HOSTILE = {
    "empty": (b"", "neither PNG nor JPEG"),
    "garbage": (os.urandom(1000), "neither PNG nor JPEG"),
    "text": (b"GET / HTTP/1.1\n", "neither PNG nor JPEG"),
    "a.gif": (_gif(), "neither PNG nor JPEG"),
    "truncated.png": (_png(np.arange(784, dtype=np.uint8).reshape(28, 28))[:-40], "has no end"),
    "endless.png": (_png(np.zeros((28, 28), np.uint8))[:-12], "has no end"),
    "half.png": (_png(np.zeros((28, 28), np.uint8))[:40], "has no end"),
    "bomb.png": (_bomb(10_000, 10_000), "but at most 40,000,000 are decoded"),
    "larger bomb.png": (_bomb(60_000, 60_000), "could be decompression bomb"),
    "short.png": (_bomb(100, 2000), "truncated|broken"),
    "animated.png": (_animated(), "animated"),
    "large.png": (b"\x89PNG\r\n\x1a\n" + bytes(image_files.MAX_BYTES), "bytes, but at most"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_image_is_one_line_that_says_why(tmp_path, name):
    content, message = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(cnn.DataError, match=message) as error:
        image_files.read_image(tmp_path / name)
    assert "\n" not in str(error.value) and str(tmp_path / name) in str(error.value)


def test_a_picture_that_says_how_it_lies_is_turned(tmp_path, shoe):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(np.rot90(shoe[:, :, 0])).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(image_files.read_image(tmp_path / "turned.png"), shoe)


def test_what_is_no_file_is_one_line_that_says_why(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, message in {
        "missing": "No such file",
        ".": "a directory without a PNG or JPEG file",
        "fifo": "not a regular",
    }.items():
        with pytest.raises(cnn.DataError, match=message):
            image_files.read_image(tmp_path / name)
    with pytest.raises(cnn.DataError, match="not a regular file"):
        image_files.read_image("/dev/zero")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([_png(np.arange(784, dtype=np.uint8).reshape(28, 28)), _animated(), _bomb(30, 30)]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    st.integers(0, 10_000),
)
def test_any_mutation_of_a_file_gives_an_image_or_a_data_error(tmp_path, content, changes, length):
    mutated = bytearray(content[: max(length, 1)])
    for place, value in changes:
        mutated[place % len(mutated)] = value
    (tmp_path / "mutated").write_bytes(mutated)
    try:
        image = image_files.read_image(tmp_path / "mutated")
    except cnn.DataError as error:
        assert "\n" not in str(error)
    else:
        assert image.shape == (28, 28, 1) and image.dtype == np.uint8


@pytest.fixture(scope="module")
def run_dir(config, small, tmp_path_factory):
    directory = tmp_path_factory.mktemp("predict") / "run"
    train.fit(config, directory, small)
    return directory


def test_a_files_failure_is_its_own_line_and_the_rest_go_on(run_dir, small, tmp_path):
    names = ["good.png", "line\nbreak.png", b"not-utf8-\xff.png", *HOSTILE, "missing", "good again.png"]
    for name in names:
        content = HOSTILE[name][0] if name in HOSTILE else _png(small.test.images[0][:, :, 0])
        if name != "missing":
            Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), os.fsencode(name)))).write_bytes(content)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    paths = [os.path.join(os.fsencode(tmp_path), os.fsencode(name)) for name in [*names, "fifo", "folder"]]
    command = subprocess.run(
        [sys.executable, "-m", "cnn", "predict", str(run_dir), *paths], cwd=ROOT, capture_output=True, timeout=100
    )
    lines = command.stdout.decode().splitlines()
    assert command.returncode == 2
    assert (
        command.stderr.decode()
        == f"error: {len(HOSTILE) + 3} of the {len(paths)} could not be read; the lines above say why\n"
    )
    assert len(lines) == len(paths)
    state, _ = cnn.load_best(run_dir)
    likeliest = cnn.class_names(cnn.DataConfig())[int(np.argmax(cnn.predict(state, small.test.images[:1])[0]))]
    for index, shown in enumerate(["good.png", r"line\nbreak.png", r"not-utf8-\xff.png"]):
        assert lines[index].startswith(f"{tmp_path}/{shown}: {likeliest} 0.")
        assert lines[index].count(",") == 2
    assert lines[-3].startswith(f"{tmp_path}/good again.png: {likeliest}")
    assert all(line.startswith("error: ") for line in [*lines[3:-3], *lines[-2:]])


def test_many_files_are_classified_in_their_order(run_dir, small, tmp_path):
    files = []
    for index in range(110):
        files.append(tmp_path / f"{index}.png")
        files[-1].write_bytes(_png(small.test.images[index, :, :, 0]))
    files = files + files[:30]  # more than a batch
    state, _ = cnn.load_best(run_dir)
    images = np.stack([image_files.read_image(path) for path in files])
    best = np.argmax(cnn.predict(state, images), axis=1)
    names = cnn.class_names(cnn.DataConfig())
    lines = list(prediction.predict_files(run_dir, files))
    likeliest = [line.rsplit(": ", 1)[1].split(", ")[0].rsplit(" ", 1)[0] for line, _ in lines]
    assert likeliest == [names[label] for label in best]
    assert all(is_read for _, is_read in lines)


def test_a_directory_gives_its_images_in_order(tmp_path, shoe):
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(_png(shoe[:, :, 0]))
    (tmp_path / "empty").mkdir()
    found = image_files.image_files([tmp_path, tmp_path / "empty", tmp_path / "missing.png"])
    assert [path.name for path in found] == ["a.png", "b.JPG", "empty", "missing.png"]


def test_dark_on_light_is_inverted_and_said_unless_told_otherwise(run_dir, tmp_path, shoe):
    (tmp_path / "light.png").write_bytes(_png(255 - shoe[:, :, 0]))
    np.testing.assert_array_equal(image_files.read_image(tmp_path / "light.png"), shoe)
    np.testing.assert_array_equal(image_files.read_image(tmp_path / "light.png", invert=False), 255 - shoe)
    said = {
        invert: [line for line, _ in prediction.predict_files(run_dir, [tmp_path / "light.png"], invert)][0]
        for invert in (None, True, False)
    }
    assert "light.png (inverted): " in said[None] and said[None] == said[True]
    assert "(inverted)" not in said[False]


def test_json_has_a_line_for_each_file_and_standard_input_is_one(run_dir, small, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    command = subprocess.run(
        [sys.executable, "-m", "cnn", "predict", str(run_dir), "-", str(tmp_path / "broken.png"), "--json"],
        input=_png(small.test.images[0][:, :, 0]),
        cwd=ROOT,
        capture_output=True,
        timeout=100,
    )
    read, broken = map(json.loads, command.stdout.splitlines())
    assert command.returncode == 2
    state, _ = cnn.load_best(run_dir)
    wanted = np.asarray(cnn.predict(state, small.test.images[:1]))[0]
    assert read["file"] == "-" and read["inverted"] is False and len(read["classes"]) == 3
    assert read["classes"][0]["probability"] == pytest.approx(wanted.max(), rel=1e-5)
    assert broken == {"file": str(tmp_path / "broken.png"), "error": broken["error"]} and "PNG" in broken["error"]


def test_no_file_is_wrong_use(run_dir):
    command = subprocess.run(
        [sys.executable, "-m", "cnn", "predict", str(run_dir)], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert command.returncode == 2 and "no file is named" in command.stderr and command.stderr.count("\n") == 1
