import numpy as np
import pytest

from cnn.figures import explanation_plots
from tests.figures.examples import CURVES, EXPLAINED, IMAGES, RGB_IMAGES, all_axes, shown, texts

GENERATOR = np.random.default_rng(0)


def _legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_each_explanation_is_over_the_image_and_the_curves_have_their_areas():
    figure = explanation_plots.explanations(IMAGES[0], *EXPLAINED, "conv2", "A boot")
    image, cam, occlusion, *_, deletion, insertion = [axes for axes in all_axes(figure) if not axes.get_label()]
    assert [axes.get_title() for axes in (image, cam, occlusion)] == ["The image", "Grad-CAM of conv2", "Occlusion"]
    for axes, values in ((cam, EXPLAINED[0]["Grad-CAM"]), (occlusion, EXPLAINED[0]["Occlusion"])):
        np.testing.assert_array_equal(shown(axes)[1], values)
    # Zero is at the end of the colours of a magnitude, and in their middle if values have a sign.
    assert cam.images[1].get_clim()[0] == 0 and sum(occlusion.images[1].get_clim()) == 0
    assert _legend(deletion) == ["Grad-CAM: 0.10", "Occlusion: 0.20", "Random order: 0.50"]
    assert _legend(insertion) == ["Grad-CAM: 0.70", "Occlusion: 0.80", "Random order: 0.50"]
    for axes, curve in ((deletion, CURVES[0]), (insertion, CURVES[1])):
        for line in axes.lines:
            np.testing.assert_array_equal(line.get_xydata(), np.stack([np.linspace(0, 1, 5), curve], 1))


@pytest.mark.parametrize("image", [IMAGES[0], RGB_IMAGES[0]], ids=["gray", "rgb"])
def test_attention_colours_each_patch_and_nothing_else(image):
    """Patches of 9 x 9 pixels leave a row and a column over."""
    received = {f"block{number}": GENERATOR.uniform(size=(2, 3, 3)) for number in (1, 2, 3)}
    picture, grid, bar = all_axes(explanation_plots.attention(image, received, 9, "Attention"))
    np.testing.assert_array_equal(shown(picture)[0], image.squeeze())
    assert texts(grid) == ["head 1", "block1", "head 2", "block2", "block3"]
    tiles = shown(grid)
    assert len(tiles) == 6
    grey = 1 - image / 255 if image.shape[-1] == 1 else image.mean(-1, keepdims=True) / 255
    pale = np.broadcast_to(0.45 + 0.55 * grey, (*image.shape[:2], 3))
    for tile, maps in zip(tiles, [head for block in received.values() for head in block], strict=True):
        shares = tile / pale
        np.testing.assert_allclose(shares[27:], 1)
        np.testing.assert_allclose(shares[:, 27:], 1)
        patches = shares[:27, :27].reshape(3, 9, 3, 9, 3)
        np.testing.assert_allclose(patches, np.broadcast_to(patches[:, :1, :, :1], patches.shape))
        # The more attention, the less green is in the colour, from yellow to red.
        order = np.argsort(maps.ravel())
        assert (np.diff(patches[:, 0, :, 0, 1].ravel()[order]) <= 1e-9).all()
    assert "1 / 9 if equal" in bar.get_xlabel()


def test_of_many_blocks_and_heads_some_are_shown():
    received = {f"block{number}": GENERATOR.uniform(size=(20, 2, 2)) for number in range(1, 31)}
    _, grid, _ = all_axes(explanation_plots.attention(IMAGES[0], received, 14, "Attention"))
    names = texts(grid)
    assert len(grid.images) == 12 * 12 and "head 12" in names and "head 13" not in names
    assert {"block1", "block30"} <= set(names)


def test_wrongly_shaped_input_is_refused():
    with pytest.raises(ValueError, match=r"image must be \[H,W,C\]"):
        explanation_plots.explanations(IMAGES, *EXPLAINED, "conv2", "A boot")
    with pytest.raises(ValueError, match=r"Occlusion must be \[H,W\]"):
        explanation_plots.explanations(IMAGES[0], {"Occlusion": IMAGES[0]}, *EXPLAINED[1:], "conv2", "A boot")
    with pytest.raises(ValueError, match=r"block1 must be \[A,P,Q\]"):
        explanation_plots.attention(IMAGES[0], {"block1": np.ones((2, 49))}, 4, "Attention")
