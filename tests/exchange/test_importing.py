"""Weights of Keras and PyTorch as runs, against the outputs of the frameworks."""

import hashlib
import io
import json
import os
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import jax
import numpy as np
import pytest

import cnn
from cnn.__main__ import main
from cnn.exchange import importing as weights
from cnn.exchange.readers import SourceLayer
from cnn.look import run_figures
from cnn.runs import verify as verification
from cnn.runs.transfer import apply_transfer
from cnn.training.state import abstract_state
from tests.exchange.test_onnx_graph import images
from tests.helpers import NARROW

TORCH_FILE = Path(__file__).parents[1] / "files" / "torch_narrow.pt"
CONFIG = cnn.ExperimentConfig(name="narrow", model=NARROW)


EXPERIMENT = f"""
import cnn
CONFIG = cnn.ExperimentConfig(name="ema", model=cnn.{NARROW!r}, optim=cnn.OptimConfig(average_decay=0.9))
"""


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    """A run directory that the command made from PyTorch's weights, and the printed text."""
    directory, printed = tmp_path_factory.mktemp("imported"), io.StringIO()
    (directory / "ema_experiment.py").write_text(EXPERIMENT)
    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(printed):
        monkeypatch.syspath_prepend(directory)
        monkeypatch.setattr("cnn.exchange.importing.load_data", lambda config: small)
        arguments = ["--run-dir", str(directory / "run"), "--experiment", "ema_experiment"]
        main(["import", str(TORCH_FILE), *arguments])
    return directory / "run", printed.getvalue()


@pytest.fixture(scope="module")
def keras_network(tmp_path_factory):
    """A .keras file, and the outputs of its layers for the images."""
    os.environ["KERAS_BACKEND"] = "jax"
    with warnings.catch_warnings():
        # Keras does not follow all of NumPy's newer rules.
        warnings.simplefilter("ignore", DeprecationWarning)
        return _saved_by_keras(tmp_path_factory.mktemp("keras") / "model.keras")


def _saved_by_keras(path):
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(4, 3, activation="relu", padding="same", bias_initializer="random_normal", name="first"),
            layers.MaxPooling2D(2),
            layers.Conv2D(4, 3, activation="relu", padding="same", bias_initializer="random_normal"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(8, activation="relu", bias_initializer="random_normal"),
            layers.Dropout(0.4),
            layers.Dense(10, activation="softmax", bias_initializer="random_normal"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(path)
    outputs = keras.Model(model.inputs[0], [layer.output for layer in model.layers])
    x = images(7).astype(np.float32) / 255
    return path, [np.asarray(output) for output in outputs(x, training=False)]


def test_a_keras_network_has_the_outputs_of_keras(keras_network):
    path, outputs = keras_network
    state, config = weights.load_weights(path, CONFIG)
    assert config == CONFIG
    maps = cnn.feature_maps(state, images(7))
    # All layers except the last, which has no softmax here.
    for (name, actual), expected in zip(list(maps.items())[:-1], outputs, strict=False):
        np.testing.assert_allclose(actual, expected, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(cnn.predict(state, images(7)), outputs[-1], atol=1e-5)
    assert np.ptp(outputs[-1], 0).max() > 1e-2


def test_a_pytorch_network_has_the_outputs_of_pytorch():
    state, _ = weights.load_weights(TORCH_FILE, CONFIG)
    with np.load(TORCH_FILE.with_suffix(".npz")) as expected:
        maps = cnn.feature_maps(state, expected["images"])
        for name in ("conv1", "conv2", "dense", "logits"):
            np.testing.assert_allclose(maps[name], expected[name], atol=1e-5, err_msg=name)
        assert np.ptp(expected["logits"], 0).max() > 1e-1


def test_the_imported_run_works_like_a_trained_one(run, small):
    run_dir, printed = run
    state, config = cnn.load_best(run_dir)
    assert config.name == "ema" and state.step == 0
    result = json.loads((run_dir / "result.json").read_text())
    for name, split in (("val", small.val), ("test", small.test)):
        measured = cnn.evaluate(state, split)
        assert result[f"{name}_loss"] == pytest.approx(float(measured.loss))
        assert result[f"{name}_accuracy"] == pytest.approx(float(measured.accuracy))
        assert f"{result[f'{name}_accuracy']:.4f}" in printed
    # 36 + 4, 144 + 4, 1,568 + 8 and 80 + 10.
    assert "imported from torch_narrow.pt, 1,854 parameters" in printed
    assert result["best_epoch"] == result["stopped_epoch"] == 0
    assert result["imported"]["sha256"] == hashlib.sha256(TORCH_FILE.read_bytes()).hexdigest()
    assert set(verification.verify(run_dir).values()) == {""}
    # The experiment's own command finds a finished run; all figures except the curves can be drawn.
    finished = cnn.fit(config, run_dir, small)
    assert finished.history == [] and finished.summary == result
    names = run_figures.figures(config, finished, small)
    assert "feature_maps_conv2" in names and "learning_curves" not in names


def test_training_can_start_with_imported_layers(run):
    state, config = cnn.load_best(run[0])
    initial, report = apply_transfer(cnn.create_state(config), cnn.TransferConfig(str(run[0]), ("conv*",)))
    assert "transferred: conv1, conv2\n" in report
    np.testing.assert_array_equal(initial.params["conv2"]["kernel"], state.params["conv2"]["kernel"])


def test_an_export_is_imported_with_its_own_configuration(run, small, tmp_path, monkeypatch):
    monkeypatch.setattr("cnn.exchange.importing.load_data", lambda config: small)
    file = tmp_path / "again.safetensors"
    main(["export", str(run[0]), "--format", "safetensors", "--output", str(file)])
    main(["import", str(file), "--run-dir", str(tmp_path / "again")])
    (first, config), (second, again) = cnn.load_best(run[0]), cnn.load_best(tmp_path / "again")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, second.eval_state.params, first.eval_state.params)


def test_a_directory_with_a_run_is_refused(run):
    state, config = cnn.load_best(run[0])
    with pytest.raises(cnn.RunDirError, match="already holds a run; name an empty or new directory"):
        weights.import_run(TORCH_FILE, run[0], state, config)


def _layers(*shapes: tuple[int, ...]) -> list[SourceLayer]:
    kinds = {2: "Dense", 4: "Conv"}
    return [
        SourceLayer(f"layer{n}", kinds[len(shape)], {"kernel": np.ones(shape), "bias": np.ones(shape[-1:])})
        for n, shape in enumerate(shapes)
    ]


MATCHING = ((3, 3, 1, 4), (3, 3, 4, 4), (196, 8), (8, 10))


@pytest.mark.parametrize(
    ("model", "shapes", "pixels"),
    [
        (cnn.DenseConfig(features=()), [(784, 10)], (28, 28, 1)),
        (cnn.DenseConfig(features=(5, 6)), [(784, 5), (5, 6), (6, 10)], (28, 28, 1)),
        (
            cnn.AlexNetConfig(features=3, dense_features=5),
            [(5, 5, 1, 3), (3, 3, 3, 8), (3, 3, 8, 12), (3, 3, 12, 12), (3, 3, 12, 8), (72, 5), (5, 5), (5, 10)],
            (3, 3, 8),
        ),
    ],
    ids=["softmax", "dense", "alexnet"],
)
def test_flattened_channels_first_pixels_are_reordered(model, shapes, pixels):
    layers = _layers(*shapes)
    first = next(layer for layer in layers if layer.kind == "Dense")
    first.leaves["kernel"][:] = np.arange(len(first.leaves["kernel"]))[:, None]
    params = weights.match_layers(abstract_state(cnn.ExperimentConfig(model=model)), layers, channels_first=True)
    dense = next(leaves["kernel"] for leaves in params.values() if leaves["kernel"].ndim == 2)
    height, width, channels = pixels
    # The index of each pixel, channel by channel.
    expected = [
        channel * height * width + row * width + column
        for row in range(height)
        for column in range(width)
        for channel in range(channels)
    ]
    np.testing.assert_array_equal(dense[:, 0], expected)


def test_every_mismatch_is_listed():
    state = abstract_state(CONFIG)
    conv, wider, _, logits = MATCHING
    weights.match_layers(state, _layers(*MATCHING))
    with pytest.raises(cnn.UserError) as refusal:
        weights.match_layers(state, _layers((5, 5, 1, 4), (*wider[:3], 6), logits, logits, logits))
    for line in (
        "'layer4' (unexpected)/kernel Dense [8, 10] -> missing",
        "conv1/kernel Conv [5, 5, 1, 4] -> Conv [3, 3, 1, 4]",
        "conv2/kernel Conv [3, 3, 4, 6] -> Conv [3, 3, 4, 4]",
        "conv2/bias Conv [6] -> Conv [4]",
        "dense/kernel Dense [8, 10] -> Dense [196, 8]",
    ):
        assert line in str(refusal.value)
    assert "logits/" not in str(refusal.value)
    with pytest.raises(cnn.UserError, match=r"logits/kernel missing -> Dense \[8, 10\]"):
        weights.match_layers(state, _layers(*MATCHING[:3]))
    with pytest.raises(cnn.UserError, match=r"conv2/kernel Dense \[196, 8\] -> Conv"):
        weights.match_layers(state, _layers(conv, MATCHING[2], MATCHING[2], logits))


def test_non_finite_values_and_other_kinds_of_layers_are_refused():
    layers = _layers(*MATCHING)
    layers[1].leaves["bias"][0] = np.inf
    with pytest.raises(cnn.UserError, match="non-finite values, in conv2"):
        weights.match_layers(abstract_state(CONFIG), layers)
    resnet = abstract_state(cnn.ExperimentConfig(model=cnn.ResNetConfig(blocks=(1, 1, 1), features=2)))
    with pytest.raises(cnn.UserError, match="BatchNorm; only Conv and Dense can be imported"):
        weights.match_layers(resnet, layers)


def test_a_wrong_file_or_experiment_is_one_line_and_writes_nothing(tmp_path):
    (tmp_path / "model.h5").write_bytes(b"")
    for file, message in (
        (tmp_path / "model.h5", r"must end in \.keras, \.pt, \.pth or \.safetensors"),
        (TORCH_FILE, r"conv1/bias Conv \[4\] -> Conv \[32\];.*name the experiment with these layers with --experiment"),
    ):
        with pytest.raises(cnn.UserError, match=message) as refusal:
            main(["import", str(file), "--run-dir", str(tmp_path / "run")])
        assert "\n" not in str(refusal.value) and not (tmp_path / "run").exists()
