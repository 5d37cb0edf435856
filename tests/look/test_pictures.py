"""Which pictures a run gets: of every layer of every family, and of the kernels over the epochs."""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import cnn
from cnn.__main__ import main
from cnn.look import pictures
from cnn.look.features import feature_maps
from cnn.runs import rundir
from cnn.runs import verify as verification
from cnn.training.state import abstract_state
from tests.helpers import NARROW, narrow


@pytest.fixture(scope="module")
def finished(config, small, tmp_path_factory):
    """A run of two epochs, of which averages are evaluated, and its result."""
    run_dir, optim = tmp_path_factory.mktemp("pictures") / "run", dataclasses.replace(config.optim, average_decay=0.9)
    return run_dir, cnn.fit(dataclasses.replace(narrow(config, epochs=2), optim=optim), run_dir, small)


def _names(printed):
    paths = list(map(Path, printed.split()))
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    return [path.stem for path in paths]


def test_look_draws_what_a_layer_makes_of_a_file_and_its_kernels(finished, small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cnn.runs.result.load_data", lambda config: small)
    run_dir = str(finished[0])
    Image.fromarray(small.test.images[0, :, :, 0]).resize((90, 60)).save(tmp_path / "my.png")
    main(["look", run_dir, "--layer", "conv2", "--image", str(tmp_path / "my.png")])
    found = ["look_conv2_maps", "look_conv2_attribution", "look_conv2_kernels", "look_conv2_weights"]
    assert _names(capsys.readouterr().out) == found
    main(["look", run_dir, "--image", str(tmp_path / "my.png")])
    assert _names(capsys.readouterr().out) == ["look_pool2_maps", "look_pool2_attribution"]
    main(["look", run_dir, "--layer", "dense"])
    assert "look_dense_kernels" in _names(capsys.readouterr().out)
    with pytest.raises(cnn.ConfigError, match="--layer is 'conv9', but must be one of conv1, pool1, conv2, pool2"):
        main(["look", run_dir, "--layer", "conv9"])
    with pytest.raises(cnn.DataError, match="nothing.png"):
        main(["look", run_dir, "--image", "nothing.png"])


FAMILIES = {
    "cnn": NARROW,
    "softmax": cnn.DenseConfig(features=()),
    "resnet": cnn.ResNetConfig(blocks=(1, 1, 1), features=4),
    "vit": cnn.ViTConfig(blocks=1, features=8, heads=2),
    "efficientnet": cnn.EfficientNetConfig(features=(4, 6), blocks=1),
}


@pytest.mark.parametrize("model", FAMILIES.values(), ids=FAMILIES)
def test_every_layer_of_every_family_has_maps_or_units_and_its_kernel(model, config):
    """Tokens, which lie in a row, become maps of their pixels. Nothing is computed: it is about shapes."""
    state = abstract_state(dataclasses.replace(config, model=model))
    state = state.replace(params=jax.tree.map(lambda leaf: np.zeros(leaf.shape), state.params))
    layers = cnn.layer_table(state)
    shapes: dict[str, Any] = {row.name: row.output_shape[1:] for row in layers}
    maps = {name: np.arange(math.prod(shape)).reshape(1, *shape) for name, shape in shapes.items()}
    pixels, drawn = None, set()
    for row in layers:
        shape = shapes[row.name]
        pixels = shape[:2] if len(shape) == 3 else pixels
        found = pictures._layer_maps(maps, row.name)
        wanted = (*pixels, shape[-1]) if pixels and len(shape) > 1 else shape
        assert found.shape == wanted and found.ravel().tolist() == maps[row.name].ravel().tolist()
        if found.ndim not in drawn:
            assert pictures._layer_figure(maps, row.name, "it", [str(i) for i in range(10)]).axes
            drawn.add(found.ndim)
        if "kernel" in state.params.get(row.name, {}):
            kernel = pictures._layer_kernel(state, layers, row.name)
            assert kernel.ndim == 4 and kernel.shape[3:] == shape[-1:]
            assert kernel.size == state.params[row.name]["kernel"].size


def test_a_dense_layer_on_pixels_has_kernels_of_the_images_size(state, small):
    """Each unit sees 7 x 7 pixels of 64 maps: their products with its kernel add up to its output."""
    maps = feature_maps(state, small.test.images[:1])
    kernel = pictures._layer_kernel(state, cnn.layer_table(state), "dense")
    assert kernel.shape == (7, 7, 64, 100)
    wanted = np.maximum(np.einsum("hwc,hwcd->d", np.asarray(maps["pool2"][0]), kernel), 0)
    np.testing.assert_allclose(maps["dense"][0], wanted, rtol=1e-4, atol=1e-5)


def test_dropout_between_does_not_hide_that_a_layer_sees_pixels(config):
    softmax = cnn.create_state(dataclasses.replace(config, model=cnn.DenseConfig(features=(), dropout_rate=0.2)))
    layers = cnn.layer_table(softmax)
    assert [layer.kind for layer in layers] == ["Flatten", "Dropout", "Dense"]
    assert pictures._layer_kernel(softmax, layers, "logits").shape == (28, 28, 1, 10)


# What a run began with


def test_kernels_are_compared_with_what_the_run_began_with(finished, config, small, tmp_path):
    source = shutil.copytree(finished[0], tmp_path / "source")
    transfer = cnn.TransferConfig(source=str(source), layers=("conv1",))
    tuned = dataclasses.replace(narrow(config, epochs=1, seed=1), transfer=transfer)
    state, origin = pictures._begun(tuned)
    taken = finished[1].state.eval_state.params["conv1"]["kernel"]
    np.testing.assert_array_equal(state.params["conv1"]["kernel"], taken)
    assert origin == "begun from another run"
    cnn.fit(tuned, tmp_path / "run", small)
    np.testing.assert_array_equal(rundir.read_kernels(tmp_path / "run")[0], taken)
    shutil.rmtree(source)
    state, origin = pictures._begun(tuned)
    assert not np.array_equal(state.params["conv1"]["kernel"], taken)
    assert origin == "random (the other run is gone)"
    assert pictures._begun(narrow(config))[1] == "untrained"


# Kernels over the epochs


def test_a_run_keeps_the_kernels_of_each_epoch_from_before_the_first(finished, config):
    run_dir, result = finished
    kernels = rundir.read_kernels(run_dir)
    assert list(kernels) == [0, 1, 2]
    begin = cnn.create_state(narrow(config)).params["conv1"]["kernel"]
    np.testing.assert_array_equal(kernels[0], begin)
    np.testing.assert_array_equal(
        kernels[result.summary["best_epoch"]], result.state.eval_state.params["conv1"]["kernel"]
    )


def test_lines_too_many_give_way_to_the_same_ones(tmp_path):
    """As after a kill between the kernels of an epoch and its checkpoint."""
    for epoch in (0, 1, 2, 3, 2):
        rundir.write_kernels(tmp_path, epoch, np.full((1, 1, 1, 1), epoch, np.float32))
    assert [kernel.item() for kernel in rundir.read_kernels(tmp_path).values()] == [0, 1, 2]


@pytest.mark.parametrize("lines", ['{"epoch": 0}', "[]", '{"epoch": 0, "kernels": [1]}', '{"epoch": 0, "ker', "\xff"])
def test_a_damaged_file_of_kernels_is_one_line_and_verify_names_it(finished, tmp_path, lines):
    run_dir = shutil.copytree(finished[0], tmp_path / "run")
    assert verification.verify(run_dir)["kernels.jsonl"] == ""
    (run_dir / "kernels.jsonl").write_bytes(lines.encode("latin-1"))
    with pytest.raises(cnn.RunDirError, match="kernels.jsonl.*bring back a copy, or remove it"):
        rundir.read_kernels(run_dir)
    assert "kernels.jsonl" in verification.verify(run_dir)["kernels.jsonl"]


def test_the_strip_shows_the_kernels_that_changed_most_over_sixteen_epochs_at_most(monkeypatch):
    """Of kernels that are 0 at first and grow by their number an epoch, the last ones change most."""
    growth = np.arange(20.0).reshape(1, 1, 1, 20)
    drawn = {}
    monkeypatch.setattr(pictures.image_plots, "kernels_by_epoch", lambda *drawing: drawn.setdefault("it", drawing))
    pictures._kernel_strip({epoch: epoch * growth for epoch in range(101)}, "conv1")
    kernels, epochs, title = drawn["it"]
    assert len(epochs) == 16 and epochs[0] == 0 and epochs[-1] == 100
    np.testing.assert_array_equal(kernels[-1].ravel(), 100 * np.arange(12, 20))
    assert title.startswith("The 8 kernels of conv1 that training changed most")


def test_a_run_without_kernels_goes_without_their_picture(finished, config, small, tmp_path):
    assert rundir.read_kernels(tmp_path) == {}
    run_dir, result = finished
    kernels = rundir.read_kernels(run_dir)
    with_them, without = (set(pictures.figures(narrow(config), result, small, kept)) for kept in (kernels, {}))
    assert with_them - without == {"kernels_conv1_by_epoch"}
