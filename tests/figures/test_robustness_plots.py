"""Figures of robustness show the numbers that they are given."""

import numpy as np
import pytest

from cnn.figures import plots, robustness_plots
from tests.figures.examples import RGB_IMAGES, all_axes, shown, texts
from tests.trust.examples import robustness_values


def test_each_corruption_has_a_panel_with_its_accuracies_from_those_of_the_images_as_they_are():
    values = robustness_values()
    panels = {axes.get_title(): axes for axes in all_axes(robustness_plots.robustness(values))}
    for name, entries in values["corruptions"].items():
        if len(entries) > 1:
            for line, key in zip(panels[name].lines, ("accuracy", "ece"), strict=False):
                expected = [values["clean"][key], *(entry[key] for entry in entries)]
                np.testing.assert_allclose(line.get_ydata(), expected)
    assert [f"{bar.get_height():.4f}" for bar in panels["without severity"].patches] == 2 * ["0.7495"] + 2 * ["0.0625"]
    attacked = panels["attacked (1,000 images)"]
    assert [label.get_text() for label in attacked.get_xticklabels()] == ["0", "1", "2", "4", "8", "16"]
    for line, entries in zip(attacked.lines, values["attacks"].values(), strict=False):
        np.testing.assert_allclose(line.get_ydata(), [entry["accuracy"] for entry in entries])


def test_examples_are_a_column_for_each_corruption_of_degree_and_one_for_the_others():
    image = RGB_IMAGES[0]
    corrupted = {
        "noise": [image // 2, image // 3, image // 4],
        "mirror": [image[:, ::-1]],
        "blur": [image // 5, image // 6, image // 7],
    }
    (axes,) = all_axes(robustness_plots.corruptions(image, corrupted, (1, 3, 5)))
    expected = [
        *(("the image", image), ("noise 1", image // 2), ("blur 1", image // 5)),
        *(("mirror", image[:, ::-1]), ("noise 3", image // 3), ("blur 3", image // 6)),
        *(("", np.full_like(image, 255)), ("noise 5", image // 4), ("blur 5", image // 7)),
    ]
    assert texts(axes) == [name for name, _ in expected]
    np.testing.assert_array_equal(shown(axes), [picture for _, picture in expected])


def test_figures_of_the_same_numbers_have_the_same_bytes():
    first, again = (plots.png(robustness_plots.robustness(robustness_values())) for _ in range(2))
    assert first == again


def test_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"image must be \[H,W,C\]"):
        robustness_plots.corruptions(np.zeros((4, 4)), {}, (1, 3, 5))
