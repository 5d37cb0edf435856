from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.colors import to_rgba

from cnn.figures import fonts, image_plots, plots
from tests.figures.examples import CLASSES, IMAGES, LABELS, MAPS, PROBABILITIES, RGB_IMAGES, all_axes, shown, texts

KOREAN = ("티셔츠", "바지", "앵클 부츠")


def write_font(path: Path, characters: str, one_glyph: bool = False) -> str:
    """A font with a separate blank glyph for each character, or one glyph for all."""
    glyphs = [".notdef", *("box" if one_glyph else f"uni{ord(c):04X}" for c in dict.fromkeys(characters))]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(list(dict.fromkeys(glyphs)))
    builder.setupCharacterMap({ord(c): glyph for c, glyph in zip(dict.fromkeys(characters), glyphs[1:], strict=True)})
    builder.setupGlyf({glyph: TTGlyphPen(None).glyph() for glyph in glyphs})
    builder.setupHorizontalMetrics({glyph: (1000, 0) for glyph in glyphs})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: image_plots.sample(IMAGES[:0], LABELS[:0], CLASSES), r"images must be \[N,H,W,C\].*\[0, 28, 28, 1\]"),
        (lambda: image_plots.sample(IMAGES[..., 0], LABELS, CLASSES), r"images must be \[N,H,W,C\]"),
        (lambda: image_plots.sample(IMAGES, LABELS[:1], CLASSES), "shorter"),
        (lambda: image_plots.image(IMAGES, "title"), r"image must be \[H,W,C\]"),
        (lambda: image_plots.feature_maps(MAPS[..., :0], "title"), r"maps must be \[H,W,C\]"),
        (lambda: image_plots.probabilities(IMAGES[:0], PROBABILITIES, LABELS, CLASSES), r"images must be"),
        (
            lambda: image_plots.probabilities(IMAGES, PROBABILITIES[0], LABELS, CLASSES),
            r"probabilities must be \[N,K\]",
        ),
        (lambda: image_plots.probabilities(IMAGES, PROBABILITIES[:1], LABELS, CLASSES), "shorter"),
        (lambda: image_plots.probabilities(IMAGES, PROBABILITIES, LABELS, (*CLASSES, "Bag")), "labels"),
        (lambda: image_plots.top_losses(IMAGES, LABELS[:1], PROBABILITIES, CLASSES, "title"), "shorter"),
    ],
    ids=[
        *("no images", "images without channels", "labels of sample", "image", "no maps", "no probabilities"),
        *("probabilities", "fewer probabilities", "more classes", "losses"),
    ],
)
def test_empty_or_wrongly_shaped_input_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


@pytest.mark.parametrize("images", [IMAGES, RGB_IMAGES], ids=["gray", "rgb"])
def test_sample_shows_each_image_over_its_class(images, monkeypatch):
    monkeypatch.setattr(fonts, "font_paths", lambda: [])
    (axes,) = all_axes(image_plots.sample(images, LABELS, CLASSES, KOREAN))
    np.testing.assert_array_equal(shown(axes), images.squeeze())
    assert {tile.get_clim() for tile in axes.images} == {(0, 255)}
    assert texts(axes) == ["Ankle boot", "T-shirt/top"]
    for tile, text in zip(axes.images, axes.texts, strict=True):
        left, right, bottom, top = tile.get_extent()
        assert text.xy == ((left + right) / 2, bottom)
        assert bottom > top and axes.yaxis_inverted()


def test_sample_uses_the_first_font_with_all_korean_characters(monkeypatch, tmp_path):
    damaged = tmp_path / "damaged.ttf"
    damaged.write_bytes(b"not a font")
    # matplotlib measures the height of a line by the letters l and p.
    all_characters = "".join(KOREAN) + "lp"
    paths = [
        str(tmp_path / "removed.ttf"),
        str(damaged),
        font_manager.findfont("DejaVu Sans"),
        write_font(tmp_path / "incomplete.ttf", all_characters.replace("앵", "")),
        write_font(tmp_path / "boxes.ttf", all_characters, one_glyph=True),
        write_font(tmp_path / "complete.ttf", all_characters),
        write_font(tmp_path / "later.ttf", all_characters),
    ]
    monkeypatch.setattr(fonts, "font_paths", lambda: paths)
    figure = image_plots.sample(IMAGES, LABELS, CLASSES, KOREAN)
    (axes,) = all_axes(figure)
    assert texts(axes) == ["Ankle boot", "앵클 부츠", "T-shirt/top", "티셔츠"]
    assert [Path(text.get_fontproperties().get_file() or "").name for text in axes.texts[1::2]] == ["complete.ttf"] * 2
    # A missing glyph would raise a warning, which is an error in tests.
    plots.png(figure)


def test_fallback_font_does_not_count_as_korean():
    paths = list(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("LastResort*.ttf"))
    if not paths:
        pytest.skip("this version of matplotlib brings no such font")
    assert not any(fonts.draws(str(path), "".join(KOREAN)) for path in paths)


def test_newly_installed_fonts_are_found_plain_ones_first(monkeypatch, tmp_path):
    ornate, plain = (write_font(tmp_path / f"{name}.ttf", "".join(KOREAN)) for name in ("A", "NanumGothic"))
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [ornate, plain])
    (axes,) = all_axes(image_plots.sample(IMAGES, LABELS, CLASSES, KOREAN))
    assert axes.texts[1].get_fontproperties().get_file() == plain


def test_listed_font_avoids_the_system_search(monkeypatch, tmp_path):
    listed = font_manager.FontEntry(fname=write_font(tmp_path / "listed.ttf", "".join(KOREAN)))
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [listed])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: pytest.fail("searched"))
    (axes,) = all_axes(image_plots.sample(IMAGES, LABELS, CLASSES, KOREAN))
    assert axes.texts[1].get_fontproperties().get_file() == listed.fname


@pytest.mark.parametrize("pixels", [IMAGES[0], RGB_IMAGES[0]], ids=["gray", "rgb"])
def test_image_is_shown_unchanged(pixels):
    (axes,) = all_axes(image_plots.image(pixels, "The first image"))
    np.testing.assert_array_equal(shown(axes)[0], pixels.squeeze())
    assert axes.images[0].get_clim() == (0, 255)
    assert axes.get_title() == "The first image"


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 20)),
    columns=st.integers(1, 9),
    offset=st.floats(-3, 3),
)
@example(shape=(1, 1, 1), columns=1, offset=-1.0)
@settings(max_examples=15)
def test_feature_maps_do_not_overlap_and_share_one_scale(shape, columns, offset):
    maps = np.random.default_rng(0).normal(offset, 1, shape)
    axes, bar = all_axes(image_plots.feature_maps(maps, "Maps", columns))
    np.testing.assert_array_equal(shown(axes), np.moveaxis(maps, 2, 0))
    scale = (min(0, maps.min()), max(0, maps.max()))
    assert {tile.get_clim() for tile in axes.images} == {scale}
    assert bar.get_xlim() == pytest.approx(scale)
    (x0, x1), (y1, y0) = axes.get_xlim(), axes.get_ylim()
    extents = [tile.get_extent() for tile in axes.images]
    for i, (left, right, bottom, top) in enumerate(extents):
        assert x0 <= left < right <= x1 and y0 <= top < bottom <= y1
        assert (bottom - top) / (right - left) == pytest.approx(shape[0] / shape[1])
        if i % columns:
            assert extents[i - 1][1] < left and extents[i - 1][3] == top
        elif i:
            assert extents[i - columns][2] < top and extents[i - columns][0] == left


def test_dead_layer_has_the_colour_of_zero():
    axes, _ = all_axes(image_plots.feature_maps(np.zeros((4, 4, 2), np.float32), "Dead"))
    assert {tile.get_clim() for tile in axes.images} == {(0, 1)}


def test_probabilities_mark_the_true_and_the_predicted_class():
    figure = image_plots.probabilities(IMAGES, PROBABILITIES, LABELS, CLASSES)
    right_image, right_bars, wrong_image, wrong_bars = all_axes(figure)
    np.testing.assert_array_equal([shown(right_image)[0], shown(wrong_image)[0]], IMAGES.squeeze())
    for axes, values in zip((right_bars, wrong_bars), PROBABILITIES, strict=True):
        assert [bar.get_width() for bar in axes.patches] == list(values)
        assert [label.get_text() for label in axes.get_yticklabels()] == list(CLASSES)
        assert axes.get_xlabel() == "probability"
        assert axes.yaxis_inverted()
    assert right_image.get_title() == "true: Ankle boot"
    assert right_bars.get_title("left") == "predicted: Ankle boot"
    assert texts(right_bars) == ["", "", "correct: 100.0%"]
    assert wrong_image.get_title() == "true: T-shirt/top"
    assert wrong_bars.get_title("left") == "predicted: Trouser"
    assert texts(wrong_bars) == ["true: 25.0%", "predicted: 50.0%", ""]
    green, vermillion, grey = (to_rgba(colour) for colour in ("#009E73", "#D55E00", "#999999"))
    assert [bar.get_facecolor() for bar in right_bars.patches] == [grey, grey, green]
    assert [bar.get_facecolor() for bar in wrong_bars.patches] == [green, vermillion, grey]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_probabilities_have_two_axes_per_image(count):
    images, probabilities, labels = (
        np.resize(array, (count, *array.shape[1:])) for array in (RGB_IMAGES, PROBABILITIES, LABELS)
    )
    figure = image_plots.probabilities(images, probabilities, labels, CLASSES)
    assert [len(axes.images) for axes in all_axes(figure)] == [1, 0] * count


def test_neighbours_follow_the_image_with_their_texts_below():
    lines = [("the image",), ("Bag", "distance 0.100")]
    (axes,) = all_axes(image_plots.neighbours(IMAGES, lines, "The training image nearest to a boot"))
    np.testing.assert_array_equal(shown(axes), IMAGES.squeeze())
    assert texts(axes) == ["the image", "Bag", "distance 0.100"]


def test_top_losses_show_class_prediction_and_loss_of_each_image():
    (axes,) = all_axes(image_plots.top_losses(IMAGES, LABELS, PROBABILITIES, CLASSES, "Highest losses"))
    np.testing.assert_array_equal(shown(axes), IMAGES.squeeze())
    assert texts(axes) == [
        *("Ankle boot", "Ankle boot 100.0%", "loss 0.00"),
        *("T-shirt/top", "Trouser 50.0%", f"loss {-np.log(0.25):.2f}"),
    ]
    green, vermillion = "#009E73", "#D55E00"
    colours = [text.get_color() for text in axes.texts]
    assert [colours[1], colours[4]] == [green, vermillion]


@pytest.mark.parametrize(
    ("label", "shown_labels"), [(7, [29, 28, 27, 26, 25, 24, 23, 22, 21, 7]), (25, range(29, 19, -1))]
)
def test_of_many_probabilities_the_highest_and_the_true_one_are_shown(label, shown_labels):
    values = np.arange(30, dtype=np.float32)[None] / 435
    names = [f"name {number}" for number in range(30)]
    _, bars = all_axes(image_plots.probabilities(IMAGES[:1], values, np.array([label]), names))
    assert [text.get_text() for text in bars.get_yticklabels()] == [names[number] for number in shown_labels]
    assert bars.patches[list(shown_labels).index(label)].get_facecolor() == to_rgba(plots.GREEN)


def test_tiles_of_tall_images_are_at_most_twice_as_high_as_wide():
    (axes,) = all_axes(image_plots.sample(IMAGES[:, :, :2], LABELS, CLASSES))
    first, second = (tile.get_extent() for tile in axes.images)
    assert (first[2] - first[3]) / (first[1] - first[0]) == pytest.approx(14)
    assert first[2] - first[3] < 2.01 * (second[0] - first[0])
