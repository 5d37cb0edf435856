"""Image files of every kind, and files that are not what they claim to be."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import cnn
from cnn.data import image_files
from tests.data.image_bytes import HOSTILE, LOSSLESS, READABLE, encoded, png


@pytest.fixture(scope="module")
def shoe(small):
    return small.test.images[0]


def test_an_image_of_the_data_sets_format_keeps_its_pixels(tmp_path, shoe):
    (tmp_path / "shoe.png").write_bytes(png(shoe[:, :, 0]))
    np.testing.assert_array_equal(image_files.read_image(tmp_path / "shoe.png"), shoe)


@pytest.mark.parametrize("format", LOSSLESS)
def test_every_lossless_format_keeps_its_pixels(tmp_path, shoe, format):
    (tmp_path / "shoe").write_bytes(encoded(Image.fromarray(shoe[:, :, 0]), format, **LOSSLESS[format]))
    read = image_files.decode_image(tmp_path / "shoe", (28, 28, 1), None)
    np.testing.assert_array_equal(read.pixels, shoe)
    assert not read.first_of_several


@pytest.mark.parametrize("format", ["PNG", "WebP", "GIF", "TIFF"])
def test_the_first_of_several_frames_or_pages_is_read(tmp_path, shoe, format):
    frames = [Image.fromarray(shoe[:, :, 0]), Image.new("L", (28, 28), 90)]
    (tmp_path / "frames").write_bytes(encoded(frames, format, **LOSSLESS[format]))
    read = image_files.decode_image(tmp_path / "frames", (28, 28, 1), None)
    np.testing.assert_array_equal(read.pixels, shoe)
    assert read.first_of_several


def test_a_phones_jpeg_file_with_a_second_picture_is_one_image(tmp_path, shoe):
    shoe = Image.fromarray(shoe[:, :, 0])
    (tmp_path / "phone.jpg").write_bytes(encoded([shoe, shoe], "MPO"))
    assert not image_files.decode_image(tmp_path / "phone.jpg", (28, 28, 1), None).first_of_several


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


def test_another_shape_is_cropped_padded_or_stretched(tmp_path):
    """A wide image, light in its middle third."""
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 200
    (tmp_path / "wide.png").write_bytes(png(pixels))
    crop, pad, stretch = (
        image_files.decode_image(tmp_path / "wide.png", (10, 10, 1), False, resize).pixels[:, :, 0] > 100
        for resize in ("crop", "pad", "stretch")
    )
    third = np.array([0, 0, 0, 1, 1, 1, 1, 0, 0, 0], bool)
    assert crop.all()
    np.testing.assert_array_equal(stretch, np.tile(third, (10, 1)))
    # The whole image, ten by three pixels, in the middle of a margin.
    assert not pad[:3].any() and not pad[7:].any()
    np.testing.assert_array_equal(pad[5], third)


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
    turned = Image.fromarray(np.rot90(shoe[:, :, 0]))
    for format in ("PNG", "WebP", "TIFF", "TIFF, LZW"):
        (tmp_path / "turned").write_bytes(encoded(turned, format, exif=exif, **LOSSLESS[format]))
        np.testing.assert_array_equal(image_files.read_image(tmp_path / "turned"), shoe, format)


def test_a_non_file_gives_one_line_with_the_reason(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, message in {
        "missing": "No such file",
        ".": "a directory",
        "fifo": "not a regular",
    }.items():
        with pytest.raises(cnn.DataError, match=message):
            image_files.read_image(tmp_path / name)
    with pytest.raises(cnn.DataError, match="not a regular file"):
        image_files.read_image("/dev/zero")


def test_a_damaged_tiff_file_writes_no_lines_of_libtiff(tmp_path, capfd):
    (tmp_path / "damaged.tif").write_bytes(READABLE["TIFF, LZW"][:-20])
    with pytest.raises(cnn.DataError):
        image_files.read_image(tmp_path / "damaged.tif")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", [name for name in READABLE if "frames" not in name])
def test_half_a_file_is_refused(tmp_path, name):
    content = READABLE[name]
    (tmp_path / "half").write_bytes(content[: len(content) // 2])
    with pytest.raises(cnn.DataError):
        image_files.read_image(tmp_path / "half")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(list(READABLE.values())),
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
    for name in ("b.JPG", "a.png", "c.webp", "d.bmp", "e.gif", "f.TIF", "g.tiff", "notes.txt"):
        (tmp_path / name).write_bytes(png(shoe[:, :, 0]))
    (tmp_path / "empty").mkdir()
    files = image_files.image_files([tmp_path, tmp_path / "empty", tmp_path / "missing.png"])
    assert [path.name for path in files] == [
        *("a.png", "b.JPG", "c.webp", "d.bmp", "e.gif", "f.TIF", "g.tiff"),
        *("empty", "missing.png"),
    ]


def test_a_scene_is_inverted_only_if_the_user_says_so():
    """Its border is its background; that of a published image decides."""
    scenes = cnn.DataConfig(scenes=96)
    assert [image_files.reading(scenes, invert)["invert"] for invert in (None, False, True)] == [False, False, True]
    assert (
        image_files.reading(scenes)["shape"] == (96, 96, 1) and image_files.reading(cnn.DataConfig())["invert"] is None
    )
