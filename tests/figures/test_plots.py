import os
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from cnn.figures import image_plots, plots
from cnn.training.summary import LayerRow

GENERATOR = np.random.default_rng(0)
CLASSES = ("T-shirt/top", "Trouser", "Ankle boot")
KOREAN = ("티셔츠", "바지", "앵클 부츠")
LABELS = np.array([2, 0])
IMAGES = GENERATOR.integers(50, 200, (2, 28, 28, 1), np.uint8)
RGB_IMAGES = GENERATOR.integers(50, 200, (2, 32, 32, 3), np.uint8)
KERNEL = GENERATOR.normal(0, 0.3, (3, 3, 2, 18)).astype(np.float32)
MAPS = np.maximum(GENERATOR.normal(0, 1, (14, 14, 10)), 0).astype(np.float32)
PROBABILITIES = np.array([[0.0, 0.0, 1.0], [0.25, 0.5, 0.25]], np.float32)
POINTS = np.array([[0.0, 0.0], [3.0, 0.0], [9.0, 1.0]])
HISTORY = [
    {"epoch": 1, "train_loss": 0.5, "train_accuracy": 0.81, "val_loss": 0.4, "val_accuracy": 0.85},
    {"epoch": 2, "train_loss": 0.3, "train_accuracy": 0.88, "val_loss": 0.25, "val_accuracy": 0.91},
    {"epoch": 3, "train_loss": 0.2, "train_accuracy": 0.92, "val_loss": 0.31, "val_accuracy": 0.9},
]
ROWS = [
    LayerRow("conv1", "Conv", (None, 28, 28, 1), (None, 28, 28, 32), 320, 1),
    LayerRow("pool1", "MaxPool", (None, 28, 28, 32), (None, 14, 14, 32), 0, 0),
    LayerRow("conv2", "Conv", (None, 14, 14, 32), (None, 14, 14, 64), 18496, 1),
]
FIGURES = {
    "learning_curves": lambda: plots.learning_curves(HISTORY, 2),
    "sample": lambda: image_plots.sample(IMAGES, LABELS, CLASSES),
    "image": lambda: image_plots.image(IMAGES[0], "An image"),
    "weights_histogram": lambda: plots.weights_histogram(KERNEL, KERNEL / 3, "conv1"),
    "kernels": lambda: image_plots.kernels(KERNEL, "Kernels"),
    "feature_maps": lambda: image_plots.feature_maps(MAPS, "Maps"),
    "probabilities": lambda: image_plots.probabilities(IMAGES, PROBABILITIES, LABELS, CLASSES),
    "model_diagram": lambda: plots.model_diagram(ROWS),
    "kernels_compared": lambda: image_plots.kernels_compared(KERNEL / 3, KERNEL, "conv1", ("untrained", "trained")),
    "kernels_by_epoch": lambda: image_plots.kernels_by_epoch(np.stack([KERNEL[:, :, 0]] * 2), [0, 1], "Kernels"),
    "top_losses": lambda: image_plots.top_losses(IMAGES, LABELS, PROBABILITIES, CLASSES, "Losses"),
    "attribution": lambda: image_plots.attribution(IMAGES[0], MAPS[..., 0], IMAGES[0] / 255, "conv2", "A boot"),
    "units": lambda: plots.units(np.array([1.0, -2.0, 0.0]), "Units"),
    "embedding": lambda: plots.embedding(POINTS, np.array([0, 0, 2]), CLASSES, "t-SNE"),
}


def saved(figure: Figure, path: Path) -> bytes:
    plots.save(figure, path)
    return path.read_bytes()


def all_axes(figure: Figure) -> list[Any]:
    """The axes of a figure, untyped, as what they hold is of types that only matplotlib knows."""
    return figure.axes


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def shown(axes) -> list[np.ndarray]:
    return [np.asarray(tile.get_array()) for tile in axes.images]


def write_font(path: Path, characters: str, one_glyph: bool = False) -> str:
    """A font with a blank glyph of its own, or one for all, for each of the characters."""
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


# All figures


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_the_same_arrays_give_the_same_bytes_whatever_the_user_has_set(draw, tmp_path):
    once = saved(draw(), tmp_path / "once.png")
    user: Any = {"axes.facecolor": "red", "font.size": 20, "savefig.dpi": 30, "figure.facecolor": "blue"}
    with matplotlib.rc_context(user):
        again = saved(draw(), tmp_path / "again.png")
    assert once == again


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_drawing_needs_no_pyplot_and_leaves_the_settings_alone(draw, monkeypatch, tmp_path):
    # None makes an import of it fail.
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    # Looking up the backend would choose one.
    names = set(matplotlib.rcParams) - {"backend"}
    before = {name: matplotlib.rcParams[name] for name in names}
    plots.save(draw(), tmp_path / "figure.png")
    assert {name: matplotlib.rcParams[name] for name in names} == before


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.learning_curves([], 1), "best_epoch is 1"),
        (lambda: plots.learning_curves(HISTORY, 4), r"best_epoch is 4.*\[1, 2, 3\]"),
        (lambda: image_plots.sample(IMAGES[:0], LABELS[:0], CLASSES), r"images must be \[N,H,W,C\].*\[0, 28, 28, 1\]"),
        (lambda: image_plots.sample(IMAGES[..., 0], LABELS, CLASSES), r"images must be \[N,H,W,C\]"),
        (lambda: image_plots.sample(IMAGES, LABELS[:1], CLASSES), "shorter"),
        (lambda: image_plots.image(IMAGES, "title"), r"image must be \[H,W,C\]"),
        (lambda: plots.weights_histogram(KERNEL, KERNEL[:0], "conv1"), "untrained must be"),
        (lambda: plots.weights_histogram(KERNEL * np.nan, KERNEL, "conv1"), "finite"),
        (lambda: image_plots.kernels(KERNEL[..., 0], "title"), r"kernel must be \[H,W,C_in,C_out\]"),
        (lambda: image_plots.feature_maps(MAPS[..., :0], "title"), r"maps must be \[H,W,C\]"),
        (lambda: image_plots.probabilities(IMAGES[:0], PROBABILITIES, LABELS, CLASSES), r"images must be"),
        (
            lambda: image_plots.probabilities(IMAGES, PROBABILITIES[0], LABELS, CLASSES),
            r"probabilities must be \[N,K\]",
        ),
        (lambda: image_plots.probabilities(IMAGES, PROBABILITIES[:1], LABELS, CLASSES), "shorter"),
        (lambda: image_plots.probabilities(IMAGES, PROBABILITIES, LABELS, (*CLASSES, "Bag")), "labels"),
        (lambda: plots.model_diagram([]), "at least one layer"),
        (lambda: plots.units(MAPS, "title"), r"values must be \[D\]"),
        (lambda: plots.embedding(POINTS[:, :0], LABELS, CLASSES, "title"), r"points must be \[N,2\]"),
        (lambda: image_plots.kernels_compared(KERNEL, KERNEL[0], "title", ("a", "b")), r"trained must be \[H,W,C_in"),
        (lambda: image_plots.kernels_by_epoch(KERNEL[0], [0], "title"), r"kernels must be \[E,H,W,N\]"),
        (lambda: image_plots.top_losses(IMAGES, LABELS[:1], PROBABILITIES, CLASSES, "title"), "shorter"),
    ],
)
def test_empty_or_wrongly_shaped_input_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


# Learning curves


def test_learning_curves_show_the_history_and_the_best_epoch():
    figure = plots.learning_curves(HISTORY, 2)
    panels = (("loss", "0.3000", "0.2500"), ("accuracy", "0.8800", "0.9100"))
    for axes, (name, best_train, best_val) in zip(all_axes(figure), panels, strict=True):
        train, val, dashed = axes.lines
        for line, split in ((train, "train"), (val, "val")):
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == [row[f"{split}_{name}"] for row in HISTORY]
        assert list(dashed.get_xdata()) == [2, 2]
        legend = axes.get_legend()
        assert [text.get_text() for text in legend.get_texts()] == [
            f"training: {best_train}",
            f"validation: {best_val}",
        ]
        assert legend.get_title().get_text() == "At the best epoch, 2 (dashed)"
        assert axes.get_title() == f"{name.capitalize()} by epoch"
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", name)


@pytest.mark.parametrize("epochs", [1, 2, 3, 20, 150])
def test_epoch_ticks_are_integers_within_the_history(epochs):
    figure = plots.learning_curves([HISTORY[0] | {"epoch": i + 1} for i in range(epochs)], 1)
    for axes in all_axes(figure):
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and all(tick in range(1, epochs + 1) for tick in ticks)


# Images


@pytest.mark.parametrize("images", [IMAGES, RGB_IMAGES], ids=["gray", "rgb"])
def test_sample_shows_each_image_over_its_class(images, monkeypatch):
    monkeypatch.setattr(image_plots, "_font_paths", lambda: [])
    (axes,) = all_axes(image_plots.sample(images, LABELS, CLASSES, KOREAN))
    np.testing.assert_array_equal(shown(axes), images.squeeze())
    assert {tile.get_clim() for tile in axes.images} == {(0, 255)}
    assert texts(axes) == ["Ankle boot", "T-shirt/top"]
    for tile, text in zip(axes.images, axes.texts, strict=True):
        left, right, bottom, top = tile.get_extent()
        assert text.xy == ((left + right) / 2, bottom)
        assert bottom > top and axes.yaxis_inverted()


def test_sample_names_classes_in_korean_in_the_first_font_that_can_draw_them(monkeypatch, tmp_path):
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
    monkeypatch.setattr(image_plots, "_font_paths", lambda: paths)
    figure = image_plots.sample(IMAGES, LABELS, CLASSES, KOREAN)
    (axes,) = all_axes(figure)
    assert texts(axes) == ["Ankle boot", "앵클 부츠", "T-shirt/top", "티셔츠"]
    assert [Path(text.get_fontproperties().get_file() or "").name for text in axes.texts[1::2]] == ["complete.ttf"] * 2
    # A glyph that is missing would be a warning, and so an error.
    plots.save(figure, tmp_path / "sample.png")


def test_the_boxes_of_a_font_of_last_resort_are_no_korean():
    fonts = list(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("LastResort*.ttf"))
    if not fonts:
        pytest.skip("this version of matplotlib brings no such font")
    assert not any(image_plots._draws(str(font), "".join(KOREAN)) for font in fonts)


def test_a_font_installed_after_matplotlib_listed_them_is_found_plain_ones_first(monkeypatch, tmp_path):
    ornate, plain = (write_font(tmp_path / f"{name}.ttf", "".join(KOREAN)) for name in ("A", "NanumGothic"))
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [ornate, plain])
    (axes,) = all_axes(image_plots.sample(IMAGES, LABELS, CLASSES, KOREAN))
    assert axes.texts[1].get_fontproperties().get_file() == plain


def test_a_listed_font_spares_the_search_for_others(monkeypatch, tmp_path):
    listed = font_manager.FontEntry(fname=write_font(tmp_path / "listed.ttf", "".join(KOREAN)))
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [listed])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: pytest.fail("searched"))
    (axes,) = all_axes(image_plots.sample(IMAGES, LABELS, CLASSES, KOREAN))
    assert axes.texts[1].get_fontproperties().get_file() == listed.fname


@pytest.mark.parametrize("pixels", [IMAGES[0], RGB_IMAGES[0]], ids=["gray", "rgb"])
def test_image_is_shown_as_it_is(pixels):
    (axes,) = all_axes(image_plots.image(pixels, "The first image"))
    np.testing.assert_array_equal(shown(axes)[0], pixels.squeeze())
    assert axes.images[0].get_clim() == (0, 255)
    assert axes.get_title() == "The first image"


# Weights


def test_weights_histogram_counts_all_weights_on_the_same_axes():
    untrained = KERNEL / 3
    figure = plots.weights_histogram(KERNEL, untrained, "conv1")
    edges = np.linspace(KERNEL.min(), KERNEL.max(), 61)
    for axes, kernel in zip(all_axes(figure), (untrained, KERNEL), strict=True):
        counts = [bar.get_height() for bar in axes.patches]
        np.testing.assert_array_equal(counts, np.histogram(kernel, edges)[0])
        assert sum(counts) == 324
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("weight", "count")
    untrained_axes, trained_axes = all_axes(figure)
    assert trained_axes.get_xlim() == untrained_axes.get_xlim()
    assert trained_axes.get_ylim() == untrained_axes.get_ylim()


def test_weights_histogram_names_mean_and_standard_deviation():
    figure = plots.weights_histogram(np.array([[3.0], [-1.0]]), np.array([[0.5], [0.5]]), "dense")
    assert [axes.get_title() for axes in all_axes(figure)] == [
        "The 2 weights of dense, untrained\nμ = 0.5000, σ = 0.0000",
        "The 2 weights of dense, trained\nμ = 1.0000, σ = 2.0000",
    ]


def test_kernels_show_the_first_input_channel_on_a_scale_centred_on_zero():
    axes, bar = all_axes(image_plots.kernels(KERNEL, "Kernels of conv1"))
    np.testing.assert_array_equal(shown(axes), KERNEL[:, :, 0].transpose(2, 0, 1))
    assert {tile.get_clim() for tile in axes.images} == {(-0.5, 0.5)}
    tops = [tile.get_extent()[3] for tile in axes.images]
    assert tops == [tops[0]] * 16 + [tops[16]] * 2 and tops[0] < tops[16]
    assert (axes.get_title(), bar.get_xlabel(), bar.get_xlim()) == ("Kernels of conv1", "weight", (-0.5, 0.5))


def test_trained_kernels_stand_beside_untrained_ones_on_one_scale():
    """Of 3 x 3 weights for 9 inputs and 12 outputs, 8 x 8 kernels; 18 outputs of one input are all shown."""
    wide = np.arange(3 * 3 * 9 * 12, dtype=np.float32).reshape(3, 3, 9, 12) / 1e5
    figure = image_plots.kernels_compared(-wide, wide, "conv2", ("untrained", "trained"))
    untrained, trained, _ = all_axes(figure)
    for axes, kernel in ((untrained, -wide), (trained, wide)):
        np.testing.assert_array_equal(shown(axes), kernel[:, :, :8, :8].transpose(2, 3, 0, 1).reshape(64, 3, 3))
    # The largest of those that are shown is 0.00959, and all but one in fifty are below 0.009.
    assert {tile.get_clim() for axes in (untrained, trained) for tile in axes.images} == {(-0.01, 0.01)}
    assert figure.get_suptitle() == "conv2: the first 8 of 12 kernels, by the first 8 of 9 input channels"
    one = image_plots.kernels_compared(KERNEL[:, :, :1], KERNEL[:, :, :1], "conv1", ("untrained", "trained"))
    assert [len(axes.images) for axes in all_axes(one)[:2]] == [18, 18]
    assert one.get_suptitle() == "conv1: its 18 kernels"


def test_kernels_of_one_pixel_are_shown_as_a_whole_matrix():
    kernel = np.arange(20.0).reshape(1, 1, 10, 2)
    untrained, trained, _ = all_axes(image_plots.kernels_compared(kernel, -kernel, "logits", ("untrained", "trained")))
    np.testing.assert_array_equal(shown(untrained)[0], kernel[0, 0].T)
    np.testing.assert_array_equal(shown(trained)[0], -kernel[0, 0].T)
    assert (trained.get_xlabel(), trained.get_ylabel()) == ("input", "unit")


@pytest.mark.parametrize(("strongest", "limit"), [(0.031, 0.04), (0.2, 0.2), (3.0, 0.5)])
def test_a_few_strong_weights_do_not_take_the_colours_from_the_others(strongest, limit):
    weights = np.full(1000, -strongest)
    weights[:5] = 100
    assert image_plots.weight_limit(weights) == pytest.approx(limit)


def test_kernels_by_epoch_have_a_row_each_and_a_column_an_epoch():
    kernels = GENERATOR.normal(0, 0.1, (3, 2, 2, 5))
    axes, _ = all_axes(image_plots.kernels_by_epoch(kernels, [0, 1, 4], "Kernels"))
    np.testing.assert_array_equal(shown(axes), kernels.transpose(3, 0, 1, 2).reshape(15, 2, 2))
    assert len({tile.get_clim() for tile in axes.images}) == 1
    assert len({tile.get_extent()[3] for tile in axes.images[:3]}) == 1
    assert texts(axes) == ["0", "1", "4", "epoch"]


# Feature maps


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 20)),
    columns=st.integers(1, 9),
    offset=st.floats(-3, 3),
)
@example(shape=(1, 1, 1), columns=1, offset=-1.0)
@settings(max_examples=15)
def test_feature_maps_are_all_shown_apart_on_one_scale(shape, columns, offset):
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


def test_a_dead_layer_has_the_colour_of_zero():
    axes, _ = all_axes(image_plots.feature_maps(np.zeros((4, 4, 2), np.float32), "Dead"))
    assert {tile.get_clim() for tile in axes.images} == {(0, 1)}


# Probabilities


def test_probabilities_stand_beside_their_image_with_true_and_predicted_class_marked():
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
def test_probabilities_have_a_pair_of_axes_for_each_image(count):
    images, probabilities, labels = (
        np.resize(array, (count, *array.shape[1:])) for array in (RGB_IMAGES, PROBABILITIES, LABELS)
    )
    figure = image_plots.probabilities(images, probabilities, labels, CLASSES)
    assert [len(axes.images) for axes in all_axes(figure)] == [1, 0] * count


def test_top_losses_name_class_prediction_probability_and_loss_below_each_image():
    (axes,) = all_axes(image_plots.top_losses(IMAGES, LABELS, PROBABILITIES, CLASSES, "Highest losses"))
    np.testing.assert_array_equal(shown(axes), IMAGES.squeeze())
    assert texts(axes) == [
        *("Ankle boot", "Ankle boot 100.0%", "loss 0.00"),
        *("T-shirt/top", "Trouser 50.0%", f"loss {-np.log(0.25):.2f}"),
    ]
    green, vermillion = "#009E73", "#D55E00"
    colours = [text.get_color() for text in axes.texts]
    assert [colours[1], colours[4]] == [green, vermillion]


# Units and embeddings


def test_units_are_bars_of_their_activations_under_their_names():
    (axes,) = all_axes(plots.units(np.array([1.0, -2.0, 0.5]), "Units", CLASSES))
    assert [bar.get_height() for bar in axes.patches] == [1.0, -2.0, 0.5]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    many = np.random.default_rng(0).normal(size=3136)
    (axes,) = all_axes(plots.units(many, "Units"))
    np.testing.assert_array_equal(axes.patches[0].get_data().values, many)


def test_an_embedding_has_a_colour_and_a_name_for_each_class_that_is_there():
    (axes,) = all_axes(plots.embedding(POINTS, np.array([0, 0, 2]), CLASSES, "Near is alike"))
    first, last = axes.collections
    assert [len(first.get_offsets()), len(last.get_offsets())] == [2, 1]
    assert not np.array_equal(first.get_facecolor(), last.get_facecolor())
    assert len(set(plots.CLASS_COLOURS)) == 10
    assert texts(axes) == ["T-shirt/top", "Ankle boot"]
    # It is turned, no more: distances stay.
    turned = np.concatenate([first.get_offsets(), last.get_offsets()])
    now, before = (np.linalg.norm(points[:, None] - points, axis=-1) for points in (turned, POINTS))
    np.testing.assert_allclose(now, before, atol=1e-6)


def test_a_class_in_two_parts_is_named_in_one_of_them_and_not_between():
    points = np.concatenate([np.zeros((6, 2)), np.full((4, 2), 10.0)]) + np.arange(20).reshape(10, 2) / 100
    (axes,) = all_axes(plots.embedding(points, np.zeros(10, int), CLASSES, "Two parts"))
    at = np.array(axes.texts[0].get_position())
    dots = np.asarray(axes.collections[0].get_offsets())
    assert np.abs(dots - at).sum(1).min() < 0.1


# Model


def test_model_diagram_has_a_box_a_layer_and_arrows_between_them():
    (axes,) = all_axes(plots.model_diagram(ROWS))
    boxes = [{cell: box[cell].get_text().get_text() for cell in box.get_celld()} for box in axes.tables]
    assert boxes == [
        {
            (0, 0): "conv1 (Conv)",
            (0, 1): "320 parameters",
            (1, 0): "input: (None, 28, 28, 1)",
            (1, 1): "output: (None, 28, 28, 32)",
        },
        {
            (0, 0): "pool1 (MaxPool)",
            (0, 1): "",
            (1, 0): "input: (None, 28, 28, 32)",
            (1, 1): "output: (None, 14, 14, 32)",
        },
        {
            (0, 0): "conv2 (Conv)",
            (0, 1): "18,496 parameters",
            (1, 0): "input: (None, 14, 14, 32)",
            (1, 1): "output: (None, 14, 14, 64)",
        },
    ]
    assert axes.get_title() == "Layers: 3, parameters: 18,816"
    assert [(text.xy, text.xyann) for text in axes.texts] == [((0.5, 1), (0.5, 0.65)), ((0.5, 2), (0.5, 1.65))]


# Saving


def test_a_saved_figure_is_a_sharp_png_that_names_no_software(tmp_path):
    plots.save(image_plots.image(IMAGES[0], "An image"), tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 1000
        assert set(image.info) == {"dpi"}
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
    assert os.listdir(tmp_path) == ["image.png"]


def test_a_save_that_fails_halfway_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    def fill_disk(figure, path, **options):
        Path(path).write_bytes(b"half a PNG")
        raise OSError("no space left on device")

    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fill_disk)
    with pytest.raises(OSError, match="no space left"):
        plots.save(Figure(), path)
    assert os.listdir(tmp_path) == ["figure.png"]
    assert path.read_bytes() == b"old"


def test_a_save_that_cannot_take_its_place_leaves_nothing(tmp_path):
    (tmp_path / "figure.png").mkdir()
    with pytest.raises(OSError):
        plots.save(Figure(), tmp_path / "figure.png")
    assert os.listdir(tmp_path) == ["figure.png"]
