"""The figure of a reading shows the numbers that it is given, row beside row."""

from typing import Any

import numpy as np
import pytest

from cnn.figures import recurrent_plots


def test_the_likeliest_classes_are_drawn_in_colour_and_rows_stand_beside_each_other():
    rng = np.random.default_rng(0)
    image, hidden = rng.integers(0, 256, (8, 6, 1), np.uint8), rng.uniform(-1, 1, (8, 5))
    probabilities = rng.dirichlet(np.ones(6), 8)
    names = [f"class {number}" for number in range(6)]
    figure = recurrent_plots.reading(image, hidden, probabilities, names, "title")
    pixels, states, chances = figure.axes[:3]
    legend: Any = chances.get_legend()
    assert pixels.get_ylim() == states.get_ylim() == chances.get_ylim() == (8.5, 0.5)
    np.testing.assert_array_equal(states.images[0].get_array(), hidden)
    order = np.argsort(-probabilities[-1])
    assert [text.get_text() for text in legend.get_texts()] == [names[label] for label in order[:4]]
    for line, label in zip(reversed(chances.lines), order, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), probabilities[:, label])
    assert chances.lines[0].get_color() == recurrent_plots.GREY
    assert chances.lines[-1].get_color() == recurrent_plots.COLOURS[0]


def test_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="hidden must be"):
        recurrent_plots.reading(np.zeros((8, 6, 1), np.uint8), np.zeros(8), np.zeros((8, 3)), "abc", "title")
