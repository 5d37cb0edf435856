"""Figures of the numbers of detections, of few classes and of many."""

import sys

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from cnn.figures import detection_plots, plots
from tests.figures.examples import CLASSES, all_axes, texts

RECALL = np.linspace(0, 1, 11)
PRECISION = np.stack([np.linspace(1, 0.5, 11), np.full(11, np.nan), np.linspace(1, 0.9, 11)])
AVERAGE = np.array([0.75, np.nan, 0.95])
COUNTS = np.array([[5, 1, 0, 2], [0, 7, 0, 0], [3, 0, 9, 4], [1, 0, 6, 0]])
# Two thresholds, three classes, three ranges of sizes.
BY_SIZE = np.array([[0.75, 0.5, np.nan], [np.nan] * 3, [0.95, 0.7, np.nan]]) * np.array([1, 0.6])[:, None, None]
AREAS = "all", "small", "large"
FIGURES = {
    "precision_recall": lambda: detection_plots.precision_recall(PRECISION, RECALL, CLASSES, AVERAGE, "Precision"),
    "detection_confusion": lambda: detection_plots.detection_confusion(COUNTS, CLASSES),
    "average_precision_by_class": lambda: detection_plots.average_precision_by_class(
        BY_SIZE, CLASSES, AREAS, "Average precision"
    ),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_same_arrays_give_identical_bytes_without_pyplot(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert plots.png(draw()) == plots.png(draw())


def test_curves_are_in_the_order_of_their_average_precision_without_absent_classes():
    (axes,) = all_axes(FIGURES["precision_recall"]())
    assert axes.get_title() == "Precision\n1 class without objects"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("recall", "precision")
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(lines) == ["0.850  mean of all", "0.950  Ankle boot", "0.750  T-shirt/top"]
    mean = (PRECISION[0] + PRECISION[2]) / 2
    np.testing.assert_allclose(list(lines.values()), [mean, PRECISION[2], PRECISION[0]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(lines)


def test_of_many_classes_the_best_the_worst_and_a_band_are_shown():
    average = np.random.default_rng(0).permutation(np.linspace(0.1, 0.9, 200))
    precision = np.repeat(average[:, None], 11, axis=1)
    names = [f"{'a' * 60} number {label}" for label in range(200)]
    (axes,) = all_axes(detection_plots.precision_recall(precision, RECALL, names, average, "Precision"))
    assert axes.get_title() == "Precision\nthe best and the worst of 200 classes"
    mean, *lines = axes.lines
    np.testing.assert_allclose(mean.get_ydata(), 0.5)
    expected = sorted(average, reverse=True)
    np.testing.assert_allclose([line.get_ydata()[0] for line in lines], [*expected[:4], *expected[-4:]])
    assert lines[0].get_label().endswith(f"mber {average.argmax()}") and "…" in lines[0].get_label()
    (band,) = (drawn for drawn in axes.collections if isinstance(drawn, PolyCollection))
    np.testing.assert_allclose(band.get_datalim(axes.transData).intervaly, np.quantile(average, [0.1, 0.9]))


def test_without_any_object_there_is_no_curve_and_no_bar():
    absent = np.full(2, np.nan)
    (axes,) = all_axes(detection_plots.precision_recall(np.full((2, 11), np.nan), RECALL, "ab", absent, "Precision"))
    assert axes.get_title() == "Precision\n2 classes without objects"
    assert not axes.lines and axes.get_legend() is None
    classes, sizes = all_axes(detection_plots.average_precision_by_class(np.full((2, 2, 3), np.nan), "ab", AREAS, "AP"))
    assert classes.get_title() == "by class (2 without objects)"
    assert not classes.patches and texts(sizes)[-1] == "no objects"


def test_confusion_has_background_last_and_a_dash_where_nothing_can_be_counted():
    (axes,) = all_axes(FIGURES["detection_confusion"]())
    assert axes.get_title() == ("21 of 31 objects detected as their class, 6 missed;\n7 seen where no object is")
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == [*CLASSES, "background"]
    assert texts(axes) == [*map(str, COUNTS.ravel()[:-1]), "–"]


def test_confusion_of_many_classes_names_the_most_confused():
    counts = np.eye(201, dtype=int) * 7
    counts[200, 200], counts[3, 200], counts[200, 8] = 0, 5, 4
    names = [f"{'a' * 60} number {label}" for label in range(200)]
    matrix, side = all_axes(detection_plots.detection_confusion(counts, names))
    assert matrix.get_title().startswith("1,400 of 1,405 objects detected as their class, 5 missed")
    first, second = texts(side)
    assert first.startswith("5  a") and first.endswith("number 3\n   as background")
    assert second.startswith("4  background\n") and second.endswith("number 8")
    assert [bar.get_xlabel() for bar in side.child_axes] == ["objects or boxes"]
    assert texts(matrix) == []


def test_bars_show_both_averages_by_class_the_best_first_and_by_size():
    figure = FIGURES["average_precision_by_class"]()
    classes, sizes = all_axes(figure)
    assert figure.get_suptitle() == "Average precision"
    assert [classes.get_title(), sizes.get_title()] == ["by class (1 without objects)", "by size"]
    by_class = [("Ankle boot", 0.95, 0.76), ("T-shirt/top", 0.75, 0.6)]
    by_size = [("all", 0.85, 0.68), ("small", 0.6, 0.48), ("large", 0, 0)]
    for axes, rows in ((classes, by_class), (sizes, by_size)):
        assert [label.get_text() for label in axes.get_yticklabels()] == [name for name, _, _ in rows]
        halves, overall = axes.containers
        np.testing.assert_allclose([bar.get_width() for bar in halves], [half for _, half, _ in rows])
        np.testing.assert_allclose([bar.get_width() for bar in overall], [mean for _, _, mean in rows])
    assert texts(classes) == ["0.950", "0.760", "0.750", "0.600"]
    assert texts(sizes) == ["0.850", "0.680", "0.600", "0.480", "no objects"]


def test_bars_of_many_classes_are_the_best_ten_the_mean_of_the_others_and_the_worst_ten():
    overall = np.linspace(0.02, 0.9, 200)
    average = np.stack([overall + 0.05, overall - 0.05])[:, :, None]
    (axes, _) = all_axes(detection_plots.average_precision_by_class(average, ["x" * 40] * 200, ["all"], "AP"))
    widths = [bar.get_width() for bar in axes.containers[1]]
    np.testing.assert_allclose(widths, [*overall[:-11:-1], overall[10:-10].mean(), *overall[9::-1]])
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[10] == "mean of 180 others" and all("…" in name for name in (*names[:10], *names[11:]))
    # A short bar has no space for its number.
    assert texts(axes)[-1] == "0.020 / 0.070"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: detection_plots.precision_recall(PRECISION[0], RECALL, CLASSES, AVERAGE, "title"),
            r"precision must be \[K,R\]",
        ),
        (lambda: detection_plots.detection_confusion(COUNTS[0], CLASSES), r"counts must be \[K\+1,K\+1\]"),
        (
            lambda: detection_plots.average_precision_by_class(PRECISION, CLASSES, AREAS, "title"),
            r"average_precision must be \[T,K,A\]",
        ),
    ],
    ids=["precision", "counts", "average precision"],
)
def test_wrong_shapes_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
