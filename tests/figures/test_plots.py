import io
import sys
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from cnn.figures import evaluation_plots, explanation_plots, image_plots, kernel_plots, plots
from cnn.training.summary import LayerRow
from tests.figures.examples import CLASSES, EXPLAINED, IMAGES, KERNEL, LABELS, MAPS, PROBABILITIES, all_axes, texts

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
    "kernels": lambda: kernel_plots.kernels(KERNEL, "Kernels"),
    "feature_maps": lambda: image_plots.feature_maps(MAPS, "Maps"),
    "probabilities": lambda: image_plots.probabilities(IMAGES, PROBABILITIES, LABELS, CLASSES),
    "model_diagram": lambda: plots.model_diagram(ROWS),
    "kernels_compared": lambda: kernel_plots.kernels_compared(KERNEL / 3, KERNEL, "conv1", ("untrained", "trained")),
    "kernels_by_epoch": lambda: kernel_plots.kernels_by_epoch(np.stack([KERNEL[:, :, 0]] * 2), [0, 1], "Kernels"),
    "neighbours": lambda: image_plots.neighbours(IMAGES, [("the image",), ("Bag", "distance 0.1")], "Neighbours"),
    "top_losses": lambda: image_plots.top_losses(IMAGES, LABELS, PROBABILITIES, CLASSES, "Losses"),
    "explanations": lambda: explanation_plots.explanations(IMAGES[0], *EXPLAINED, "conv2", "A boot"),
    "attention": lambda: explanation_plots.attention(IMAGES[0], {"block1": MAPS[:2, :7, :7]}, 4, "Attention"),
    "units": lambda: plots.units(np.array([1.0, -2.0, 0.0]), "Units"),
    "embedding": lambda: evaluation_plots.embedding(POINTS, np.array([0, 0, 2]), CLASSES, "t-SNE"),
}


# All figures of both modules


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_same_arrays_give_identical_bytes_for_any_user_settings(draw):
    once = plots.png(draw())
    user: Any = {"axes.facecolor": "red", "font.size": 20, "savefig.dpi": 30, "figure.facecolor": "blue"}
    with matplotlib.rc_context(user):
        again = plots.png(draw())
    assert once == again


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_drawing_needs_no_pyplot_and_keeps_the_settings(draw, monkeypatch):
    # None makes its import fail.
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    # Looking up the backend would choose one.
    names = set(matplotlib.rcParams) - {"backend"}
    before = {name: matplotlib.rcParams[name] for name in names}
    plots.png(draw())
    assert {name: matplotlib.rcParams[name] for name in names} == before


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.learning_curves([], 1), "best_epoch is 1"),
        (lambda: plots.learning_curves(HISTORY, 4), r"best_epoch is 4.*\[1, 2, 3\]"),
        (lambda: plots.weights_histogram(KERNEL, KERNEL[:0], "conv1"), "untrained must be"),
        (lambda: plots.weights_histogram(KERNEL * np.nan, KERNEL, "conv1"), "finite"),
        (lambda: plots.model_diagram([]), "at least one layer"),
        (lambda: plots.units(MAPS, "title"), r"values must be \[D\]"),
        (lambda: evaluation_plots.embedding(POINTS[:, :0], LABELS, CLASSES, "title"), r"points must be \[N,2\]"),
    ],
    ids=["no epochs", "best epoch", "empty kernel", "NaN kernel", "no layers", "units", "points"],
)
def test_empty_or_wrongly_shaped_input_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_the_learning_curves_of_a_detector_have_its_mean_average_precision():
    rows = [{**row, "val_map": 0.1 * row["epoch"], "val_map_50": 0.2 * row["epoch"]} for row in HISTORY]
    axes = plots.learning_curves(rows, 2).axes
    assert [panel.get_title() for panel in axes] == [
        *("Loss by epoch", "Accuracy by epoch", "Mean average precision by epoch"),
    ]
    curves = [np.asarray(line.get_ydata()) for line in axes[2].get_lines()[:2]]
    np.testing.assert_allclose(curves, np.outer([0.1, 0.2], [1, 2, 3]))


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


def test_units_are_bars_labelled_by_name():
    (axes,) = all_axes(plots.units(np.array([1.0, -2.0, 0.5]), "Units", CLASSES))
    assert [bar.get_height() for bar in axes.patches] == [1.0, -2.0, 0.5]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    many = np.random.default_rng(0).normal(size=3136)
    (axes,) = all_axes(plots.units(many, "Units"))
    np.testing.assert_array_equal(axes.patches[0].get_data().values, many)


def test_embedding_has_a_colour_and_a_name_for_each_class_present():
    (axes,) = all_axes(evaluation_plots.embedding(POINTS, np.array([0, 0, 2]), CLASSES, "Near is alike"))
    first, last = axes.collections
    assert [len(first.get_offsets()), len(last.get_offsets())] == [2, 1]
    assert not np.array_equal(first.get_facecolor(), last.get_facecolor())
    assert len(set(evaluation_plots.CLASS_COLOURS)) == 10
    assert texts(axes) == ["T-shirt/top", "Ankle boot"]
    # Only rotated: distances stay the same.
    rotated = np.concatenate([first.get_offsets(), last.get_offsets()])
    actual, expected = (np.linalg.norm(points[:, None] - points, axis=-1) for points in (rotated, POINTS))
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_class_in_two_clusters_is_named_inside_one_of_them():
    points = np.concatenate([np.zeros((6, 2)), np.full((4, 2), 10.0)]) + np.arange(20).reshape(10, 2) / 100
    (axes,) = all_axes(evaluation_plots.embedding(points, np.zeros(10, int), CLASSES, "Two parts"))
    at = np.array(axes.texts[0].get_position())
    dots = np.asarray(axes.collections[0].get_offsets())
    assert np.abs(dots - at).sum(1).min() < 0.1


def test_model_diagram_has_a_box_per_layer_and_arrows():
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


def test_a_figure_is_a_sharp_png_without_the_version_of_matplotlib():
    with Image.open(io.BytesIO(plots.png(image_plots.image(IMAGES[0], "An image")))) as image:
        assert image.format == "PNG"
        assert min(image.size) > 1000
        assert set(image.info) == {"dpi", "Software"} and image.info["Software"] == "fashion-cnn"
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
