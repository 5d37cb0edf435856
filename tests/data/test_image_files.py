"""Image files of every kind, and files that are not what they claim to be."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import cnn
from cnn.data import image_files
from tests.data.image_bytes import HOSTILE, animated, bomb, png


@pytest.fixture(scope="module")
def shoe(small):
    return small.test.images[0]


def test_an_image_of_the_data_sets_format_keeps_its_pixels(tmp_path, shoe):
    (tmp_path / "shoe.png").write_bytes(png(shoe[:, :, 0]))
    np.testing.assert_array_equal(image_files.read_image(tmp_path / "shoe.png"), shoe)


def test_every_mode_and_size_gives_the_same_image(tmp_path, shoe):
    grey = Image.fromarray(shoe[:, :, 0])
    black = Image.new("L", grey.size, 0)
    variants = {
        "rgb": grey.convert("RGB"),
        "palette": grey.convert("P"),
        "16-bit": Image.fromarray(shoe[:, :, 0].astype(np.uint16) * 257),
        "dark on light": Image.fromarray(255 - shoe[:, :, 0]),
        "rgba": Image.merge("RGBA", (grey, grey, grey, black.point(lambda value: 255))),
        # Black, and transparent around the shoe: dark on a background that becomes white.
        "transparent": Image.merge("RGBA", (black, black, black, grey)),
        "grey and alpha": Image.merge("LA", (black, grey)),
        "large": grey.resize((280, 280), Image.Resampling.NEAREST),
    }
    for name, image in variants.items():
        (tmp_path / name).write_bytes(png(image))
        read = image_files.read_image(tmp_path / name).astype(int)
        tolerance = 40 if name == "large" else 1  # resampling, or rounding in the conversion to grey
        assert np.abs(read - shoe).max() <= tolerance, name
    grey.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(image_files.read_image(tmp_path / "cmyk.jpg").astype(int) - shoe).mean() < 5


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (300, 20), (29, 28), (5000, 5000)])
def test_any_size_is_fitted_into_the_shape(tmp_path, size):
    (tmp_path / "image.png").write_bytes(png(Image.new("L", size, 30)))
    image = image_files.read_image(tmp_path / "image.png")
    assert image.shape == (28, 28, 1) and (image == 30).all()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_non_image_gives_one_line_with_the_reason(tmp_path, name):
    content, message = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(cnn.DataError, match=message) as error:
        image_files.read_image(tmp_path / name)
    assert "\n" not in str(error.value) and str(tmp_path / name) in str(error.value)


def test_the_exif_orientation_is_applied(tmp_path, shoe):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn, clockwise
    Image.fromarray(np.rot90(shoe[:, :, 0])).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(image_files.read_image(tmp_path / "turned.png"), shoe)


def test_a_non_file_gives_one_line_with_the_reason(tmp_path):
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
    st.sampled_from([png(np.arange(784, dtype=np.uint8).reshape(28, 28)), animated(), bomb(30, 30)]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    st.integers(0, 10_000),
)
def test_any_mutated_file_gives_an_image_or_a_data_error(tmp_path, content, changes, length):
    mutated = bytearray(content[: max(length, 1)])
    for position, value in changes:
        mutated[position % len(mutated)] = value
    (tmp_path / "mutated").write_bytes(mutated)
    try:
        image = image_files.read_image(tmp_path / "mutated")
    except cnn.DataError as error:
        assert "\n" not in str(error)
    else:
        assert image.shape == (28, 28, 1) and image.dtype == np.uint8


def test_a_directory_is_replaced_by_its_sorted_images(tmp_path, shoe):
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(png(shoe[:, :, 0]))
    (tmp_path / "empty").mkdir()
    files = image_files.image_files([tmp_path, tmp_path / "empty", tmp_path / "missing.png"])
    assert [path.name for path in files] == ["a.png", "b.JPG", "empty", "missing.png"]
