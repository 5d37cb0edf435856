"""The map of easy, ambiguous and hard images."""

from typing import Any

import numpy as np
import pytest

from cnn.figures import dynamics_plots

RNG = np.random.default_rng(0)


def test_the_map_has_every_image_and_the_pictures_of_each_kind_with_their_labels():
    mean, spread, correct = RNG.random((3, 50))
    pictures = {kind: (RNG.integers(0, 255, (3, 8, 8, 1), np.uint8), [kind] * 3) for kind in ("easy", "hard")}
    figure = dynamics_plots.cartography(mean, spread, correct, pictures)
    chart, _, *panels = figure.axes
    assert chart.get_title() == "50 training images"
    # Each cell has the mean of some images: the 50 points are in those that are drawn.
    cells: Any = chart.collections[0]
    assert 0 < len(cells.get_array()) <= 50
    assert [panel.get_title("left") for panel in panels] == ["easy", "hard"]
    assert [len(panel.images) for panel in panels] == [3, 3]
    assert [text.get_text() for text in panels[1].texts] == ["hard"] * 3


def test_values_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"mean must be \[N\]"):
        dynamics_plots.cartography(np.zeros((2, 2)), np.zeros(2), np.zeros(2), {})
