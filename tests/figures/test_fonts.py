"""Texts of figures in any language."""

import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from cnn.figures import evaluation_plots, fonts, image_plots, plots
from tests.figures.examples import IMAGES, all_axes
from tests.figures.test_image_plots import KOREAN, write_font


@pytest.fixture(autouse=True)
def search_again():
    """Fonts are searched once for the same characters."""
    fonts._fallbacks.cache_clear()
    yield
    fonts._fallbacks.cache_clear()


@pytest.fixture
def korean_font(monkeypatch, tmp_path) -> str:
    """A font with Hangul alone, which matplotlib does not know yet."""
    path = write_font(tmp_path / "Hangul.ttf", "".join(KOREAN).replace(" ", ""))
    monkeypatch.setattr(fonts, "font_paths", lambda: [path])
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])
    return path


def test_names_in_any_language_are_drawn_with_installed_fonts(korean_font):
    names = [*KOREAN, *(f"class {label}" for label in range(3, 27))]
    for count in (3, 27):
        figure = evaluation_plots.confusion_matrix(np.eye(count, dtype=int), names[:count])
        # A missing glyph would raise a warning, which is an error in tests.
        plots.png(figure)
        label = all_axes(figure)[0].get_yticklabels()[0]
        assert label.get_text() == KOREAN[0] and label.get_fontfamily() == ["sans-serif", "Hangul"]


def test_names_that_no_font_draws_are_replaced_by_labels(monkeypatch):
    monkeypatch.setattr(fonts, "font_paths", lambda: [])
    assert fonts.labels(["cat", "바지", "d'été"]) == ["cat", "class 1", "d'été"]
    with warnings.catch_warnings(action="error"):
        assert plots.png(image_plots.image(IMAGES[0], "바지.png")).startswith(b"\x89PNG")


def test_a_dollar_in_a_name_is_no_formula():
    assert plots.png(image_plots.sample(IMAGES, np.array([0, 1]), ["$5", r"$\frac{$"])).startswith(b"\x89PNG")


def test_figures_without_other_characters_keep_their_font(monkeypatch):
    monkeypatch.setattr(fonts, "font_paths", lambda: pytest.fail("searched"))
    figure = Figure()
    text = figure.suptitle("μ = 1, ✓ naïve")
    fonts.use_fallbacks(figure)
    assert text.get_fontfamily() == ["sans-serif"]
