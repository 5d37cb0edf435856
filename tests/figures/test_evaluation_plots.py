"""Figures of an evaluation with many classes."""

import io

import numpy as np
import pytest
from PIL import Image

from cnn.figures import evaluation_plots, plots
from tests.figures.examples import all_axes, texts


def _names(count: int) -> list[str]:
    return [f"{'a' * 60} number {label}" for label in range(count)]


@pytest.mark.parametrize("classes", [26, 300])
def test_a_large_confusion_matrix_has_the_size_of_a_slide_and_no_crowded_names(classes):
    counts = np.eye(classes, dtype=int) * 7
    counts[3, 5], counts[8, 2] = 4, 1
    figure = evaluation_plots.confusion_matrix(counts, _names(classes))
    assert tuple(figure.get_size_inches()) == (plots.WIDTH, 8)
    with Image.open(io.BytesIO(plots.png(figure))) as picture:
        assert picture.width < 1.05 * 200 * plots.WIDTH and picture.height < 1.05 * 200 * 8
    # Texts have their places at the figure's own resolution only after they are drawn at it.
    figure.draw_without_rendering()
    matrix, side, *_ = all_axes(figure)
    assert texts(matrix) == []
    heights = [label.get_window_extent() for label in matrix.get_yticklabels()]
    assert all(above.y0 >= below.y1 - 1 for above, below in zip(heights, heights[1:], strict=False))
    errors = matrix.images[1].get_array()
    assert errors[3, 5] == 4 and errors[8, 2] == 1 and errors.count() == 2
    first, second = texts(side)
    assert first.startswith("4  a") and "…" in first and first.endswith("number 5") and second.startswith("1  a")


def test_names_of_an_embedding_do_not_overlap():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(60), 4)
    points = rng.normal(0, 5, (60, 2))[labels] + rng.normal(0, 0.3, (240, 2))
    figure = evaluation_plots.embedding(points, labels, _names(60), "t-SNE")
    (axes,) = all_axes(figure)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert 3 < len(boxes) <= evaluation_plots.MOST_NAMES
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])
    assert f"{len(boxes)} of 60 classes are named" in axes.get_title()


def test_units_of_many_classes_name_the_highest():
    values = np.random.default_rng(0).permutation(100).astype(np.float32)
    (axes,) = all_axes(plots.units(values, "Logits", [f"name {label}" for label in range(100)]))
    lines = axes.get_xlabel().splitlines()[1:]
    expected = [int(np.flatnonzero(values == value)[0]) for value in (99, 98, 97, 96, 95)]
    assert lines == [f"{values[unit]:.2f}  unit {unit}: name {unit}" for unit in expected]
