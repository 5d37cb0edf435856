"""The figures of a run: maps and kernels of every layer of every family, and kernels by epoch."""

import dataclasses
import math
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import cnn
from cnn.__main__ import main
from cnn.look import layer_figures, run_figures
from cnn.look.features import feature_maps
from cnn.runs import derived
from cnn.runs import verify as verification
from cnn.training.state import abstract_state
from tests.helpers import NARROW, narrow


@pytest.fixture(scope="module")
def finished(config, small, tmp_path_factory):
    """A run of two epochs with an EMA, and its result."""
    run_dir, optim = tmp_path_factory.mktemp("pictures") / "run", dataclasses.replace(config.optim, average_decay=0.9)
    return run_dir, cnn.fit(dataclasses.replace(narrow(config, epochs=2), optim=optim), run_dir, small)


def _figure_names(printed):
    paths = list(map(Path, printed.split()))
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    return [path.stem for path in paths]


def test_look_draws_the_maps_of_a_file_and_the_kernels_of_a_layer(finished, small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cnn.runs.result.load_data", lambda config: small)
    run_dir = str(finished[0])
    Image.fromarray(small.test.images[0, :, :, 0]).resize((90, 60)).save(tmp_path / "my.png")
    main(["look", run_dir, "--layer", "conv2", "--image", str(tmp_path / "my.png")])
    parts = ("maps", "attribution", "neighbours", "kernels", "weights")
    assert _figure_names(capsys.readouterr().out) == [f"look_conv2_{part}" for part in parts]
    main(["look", run_dir, "--image", str(tmp_path / "my.png")])
    assert _figure_names(capsys.readouterr().out) == [f"look_pool2_{part}" for part in parts[:3]]
    main(["look", run_dir, "--layer", "dense"])
    assert "look_dense_kernels" in _figure_names(capsys.readouterr().out)
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
    "recurrent": cnn.RecurrentConfig(features=6),
}


@pytest.mark.parametrize("model", FAMILIES.values(), ids=FAMILIES)
def test_every_layer_of_every_family_has_maps_or_units_and_a_kernel(model, config):
    """Tokens become maps of their pixels. Only shapes matter; nothing is computed."""
    state = abstract_state(dataclasses.replace(config, model=model))
    state = state.replace(params=jax.tree.map(lambda leaf: np.zeros(leaf.shape), state.params))
    layers = cnn.layer_table(state)
    shapes: dict[str, Any] = {row.name: row.output_shape[1:] for row in layers}
    maps = {name: np.arange(math.prod(shape)).reshape(1, *shape) for name, shape in shapes.items()}
    pixels, drawn = None, set()
    for row in layers:
        shape = shapes[row.name]
        pixels = shape[:2] if len(shape) == 3 else pixels
        outputs = run_figures.layer_maps(maps, row.name)
        expected = (*pixels, shape[-1]) if pixels and len(shape) > 1 else shape
        # The rows that a recurrent network reads.
        expected = (*shape, 1) if isinstance(model, cnn.RecurrentConfig) and len(shape) == 2 else expected
        assert outputs.shape == expected and outputs.ravel().tolist() == maps[row.name].ravel().tolist()
        if outputs.ndim not in drawn:
            assert layer_figures.layer_figure(maps, row.name, "an image", [str(i) for i in range(10)]).axes
            drawn.add(outputs.ndim)
        if "kernel" in state.params.get(row.name, {}):
            kernel = run_figures.layer_kernel(state, layers, row.name)
            # A recurrent layer has four gates.
            gates = 4 if row.kind == "Recurrent" else 1
            assert kernel.ndim == 4 and kernel.shape[3] == gates * shape[-1]
            assert kernel.size == state.params[row.name]["kernel"].size


def test_a_dense_layer_after_pixels_has_kernels_of_the_images_size(config, small):
    """Each unit sees 7 x 7 pixels of 4 maps: the sum of their products with its kernel is its output."""
    state = cnn.create_state(narrow(config))
    maps = feature_maps(state, small.test.images[:1])
    kernel = run_figures.layer_kernel(state, cnn.layer_table(state), "dense")
    assert kernel.shape == (7, 7, 4, 8)
    expected = np.maximum(np.einsum("hwc,hwcd->d", np.asarray(maps["pool2"][0]), kernel), 0)
    np.testing.assert_allclose(maps["dense"][0], expected, rtol=1e-4, atol=1e-5)


def test_dropout_after_flatten_keeps_the_kernels_pixels(config):
    softmax = cnn.create_state(dataclasses.replace(config, model=cnn.DenseConfig(features=(), dropout_rate=0.2)))
    layers = cnn.layer_table(softmax)
    assert [layer.kind for layer in layers] == ["Flatten", "Dropout", "Dense"]
    assert run_figures.layer_kernel(softmax, layers, "logits").shape == (28, 28, 1, 10)


# Initial state


def test_kernels_are_compared_with_the_initial_ones(finished, config, small, tmp_path):
    source = shutil.copytree(finished[0], tmp_path / "source")
    transfer = cnn.TransferConfig(source=str(source), layers=("conv1",))
    tuned = dataclasses.replace(narrow(config, epochs=1, seed=1), transfer=transfer)
    state, origin = run_figures.initial_state(tuned)
    transferred = finished[1].state.eval_state.params["conv1"]["kernel"]
    np.testing.assert_array_equal(state.params["conv1"]["kernel"], transferred)
    assert origin == "initialized from another run"
    cnn.fit(tuned, tmp_path / "run", small)
    np.testing.assert_array_equal(derived.read_kernels(tmp_path / "run")[0], transferred)
    # Damaged, which is not the same as gone.
    (source / "config.json").write_text("{")
    assert run_figures.initial_state(tuned)[1] == "random (the source run cannot be used)"
    shutil.rmtree(source)
    state, origin = run_figures.initial_state(tuned)
    assert not np.array_equal(state.params["conv1"]["kernel"], transferred)
    assert origin == "random (the source run cannot be used)"
    assert run_figures.initial_state(narrow(config))[1] == "untrained"


# Kernels by epoch


def test_a_run_keeps_the_initial_kernels_and_those_of_each_epoch(finished, config):
    run_dir, result = finished
    kernels = derived.read_kernels(run_dir)
    assert list(kernels) == [0, 1, 2]
    initial = cnn.create_state(narrow(config)).params["conv1"]["kernel"]
    np.testing.assert_array_equal(kernels[0], initial)
    np.testing.assert_array_equal(
        kernels[result.summary["best_epoch"]], result.state.eval_state.params["conv1"]["kernel"]
    )


def test_surplus_lines_of_kernels_are_replaced(tmp_path):
    """As after a kill between writing the kernels of an epoch and its checkpoint."""
    for epoch in (0, 1, 2, 3, 2):
        derived.write_kernels(tmp_path, epoch, np.full((1, 1, 1, 1), epoch, np.float32))
    assert [kernel.item() for kernel in derived.read_kernels(tmp_path).values()] == [0, 1, 2]


@pytest.mark.parametrize(
    "lines", ["", '{"epoch": 0}', "[]", '{"epoch": 0, "kernels": [1]}', '{"epoch": 0, "ker', "\xff"]
)
def test_a_damaged_kernels_file_is_one_line_and_verify_names_it(finished, tmp_path, lines):
    run_dir = shutil.copytree(finished[0], tmp_path / "run")
    assert verification.verify(run_dir)["kernels.jsonl"] == ""
    (run_dir / "kernels.jsonl").write_bytes(lines.encode("latin-1"))
    with pytest.raises(cnn.RunDirError, match="kernels.jsonl.*restore a copy, or remove it"):
        derived.read_kernels(run_dir)
    assert "kernels.jsonl" in verification.verify(run_dir)["kernels.jsonl"]


def test_kernels_of_too_few_epochs_are_refused(finished, tmp_path):
    run_dir = shutil.copytree(finished[0], tmp_path / "run")
    first = (run_dir / "kernels.jsonl").read_text().splitlines()[0]
    (run_dir / "kernels.jsonl").write_text(first + "\n")
    with pytest.raises(cnn.RunDirError, match="does not have the kernels after epoch 1; restore a copy"):
        run_figures.draw_figures(run_dir, *cnn.load_result(run_dir), output=tmp_path / "figures")


def test_kernels_other_than_those_of_the_checkpoint_are_not_drawn(finished, tmp_path, monkeypatch):
    run_dir = shutil.copytree(finished[0], tmp_path / "run")
    changed = (run_dir / "kernels.jsonl").read_text().replace("0.", "1.", 1)
    (run_dir / "kernels.jsonl").write_text(changed)
    assert list(derived.read_kernels(run_dir)) == [0, 1, 2]
    with pytest.raises(cnn.RunDirError, match="kernels.jsonl is not what was saved .*; restore a copy, or remove it"):
        run_figures.draw_figures(run_dir, *cnn.load_result(run_dir), output=tmp_path / "figures")
    (run_dir / "kernels.jsonl").unlink()
    run_figures._check_kernels(run_dir)
    # Of an older run, whose checkpoint has no digests.
    (run_dir / "kernels.jsonl").write_text(changed)
    monkeypatch.setattr(run_figures, "latest_description", lambda run_dir: {"progress": {}})
    run_figures._check_kernels(run_dir)


def test_the_strip_has_the_most_changed_kernels_of_at_most_16_epochs(monkeypatch):
    """Kernels start at 0 and grow by their index each epoch, so the last ones change most."""
    growth = np.arange(20.0).reshape(1, 1, 1, 20)
    monkeypatch.setattr(run_figures.kernel_plots, "kernels_by_epoch", lambda *arguments: arguments)
    arguments: Any = run_figures._kernel_strip({epoch: epoch * growth for epoch in range(101)}, "conv1")
    kernels, epochs, title = arguments
    assert len(epochs) == 16 and epochs[0] == 0 and epochs[-1] == 100
    np.testing.assert_array_equal(kernels[-1].ravel(), 100 * np.arange(12, 20))
    assert title.startswith("The 8 kernels of conv1 that training changed most")


def test_a_run_without_kernels_has_no_figure_of_them(finished, config, small, tmp_path):
    assert derived.read_kernels(tmp_path) == {}
    run_dir, result = finished
    kernels = derived.read_kernels(run_dir)
    all_figures, others = (set(run_figures.figures(narrow(config), result, small, kept)) for kept in (kernels, {}))
    assert all_figures - others == {"kernels_conv1_by_epoch"}
    names = [f"{name}.png" for name in all_figures]
    assert all(any(fnmatch(name, pattern) for pattern in run_figures.FIGURES) for name in names)
