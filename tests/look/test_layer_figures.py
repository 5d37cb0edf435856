"""The figures of a layer of a vision transformer; those of other families are tested with the figures of runs."""

import dataclasses

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import cnn
from cnn.__main__ import main
from cnn.look import layer_figures
from cnn.look.attention import attention_maps
from tests.helpers import narrow


def test_look_draws_the_attention_of_a_vision_transformer(config, small, tmp_path, monkeypatch):
    config = dataclasses.replace(config, model=cnn.ViTConfig(blocks=1, features=4, heads=2, patch_size=8))
    state, drawn = cnn.create_state(config), []
    monkeypatch.setattr(layer_figures, "load_best", lambda run_dir: (state, config))
    draw = layer_figures.explanation_plots.attention
    monkeypatch.setattr(
        layer_figures.explanation_plots, "attention", lambda *arguments: drawn.append(arguments) or draw(*arguments)
    )
    Image.fromarray(small.test.images[0, :, :, 0]).save(tmp_path / "boot.png")
    paths = layer_figures.draw_layer(tmp_path / "run", "block1", tmp_path / "boot.png", tmp_path)
    names = ["look_block1_maps", "look_block1_attribution", "look_attention"]
    assert [path.stem for path in paths] == names and all(path.is_file() for path in paths)
    # The mean over the queries, where the patches are; 4 rows and columns of pixels are left over.
    ((image, received, patch, title),) = drawn
    expected = np.asarray(attention_maps(state, small.test.images[:1])["block1"])[0].mean(1).reshape(2, 3, 3)
    np.testing.assert_allclose(received["block1"], expected, rtol=1e-5)
    np.testing.assert_array_equal(image, small.test.images[0])
    assert patch == 8 and title.startswith("boot.png: the attention that each patch receives")


def test_look_warns_of_training_images_that_it_cannot_use(config, small, tmp_path, monkeypatch, capsys):
    cnn.fit(narrow(config, epochs=1), tmp_path / "run", small)
    Image.fromarray(small.test.images[0, :, :, 0]).save(tmp_path / "boot.png")
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(layer_figures, "explanations_figure", lambda *arguments: Figure())
    # The run's images are a few of those that its configuration names.
    main(["look", str(tmp_path / "run"), "--image", str(tmp_path / "boot.png"), "--output", str(tmp_path / "there")])
    out, err = capsys.readouterr()
    assert "neighbours" not in out
    assert err.startswith("warning: no figure of the nearest training images: ") and err.count("\n") == 1
