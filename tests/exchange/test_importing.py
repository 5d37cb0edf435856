"""Weights of Keras and PyTorch as runs, against the outputs of the frameworks."""

import hashlib
import io
import json
import os
import tarfile
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import jax
import numpy as np
import pytest

import cnn
from cnn.__main__ import main
from cnn.data.splits import check_splits
from cnn.exchange import importing as weights
from cnn.exchange.source_layers import SourceLayer
from cnn.look import run_figures
from cnn.runs import rundir
from cnn.runs import verify as verification
from cnn.runs.transfer import apply_transfer
from cnn.training.state import abstract_state
from tests.exchange.test_onnx_graph import images
from tests.files import make_keras_fixture
from tests.helpers import NARROW, Interrupted

FILES = Path(__file__).parents[1] / "files"
TORCH_FILE = FILES / "torch_narrow.pt"
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
        monkeypatch.setattr("cnn.exchange.importing.load", lambda config: (check_splits(config, small), small))
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


def _assert_same_outputs(file: Path, expected: Path) -> None:
    state, _ = weights.load_weights(file, CONFIG)
    with np.load(expected) as arrays:
        maps = cnn.feature_maps(state, arrays["images"])
        for name in ("conv1", "conv2", "dense", "logits"):
            np.testing.assert_allclose(maps[name], arrays[name], atol=1e-5, err_msg=name)
        assert np.ptp(arrays["logits"], 0).max() > 1e-1


def test_a_pytorch_network_has_the_outputs_of_pytorch():
    _assert_same_outputs(TORCH_FILE, FILES / "torch_narrow.npz")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with the files of Keras 2 and the checkpoints of PyTorch."""
    directory = tmp_path_factory.mktemp("saved")
    for name in ("keras2_narrow.tar.xz", "torch_narrow.tar.xz"):
        with tarfile.open(FILES / name) as tar:
            tar.extractall(directory, filter="data")
    return directory


@pytest.mark.parametrize("ending", [".keras", ".h5", ".weights.h5", "-weights.h5"])
@pytest.mark.parametrize("version", ["2.13.1", "2.21.0"])
@pytest.mark.parametrize("model", ["sequential", "functional", "inner"])
def test_every_file_of_keras_2_has_its_outputs(saved, model, version, ending):
    _assert_same_outputs(saved / f"{model}-{version}{ending}", FILES / "keras2_narrow.npz")


@pytest.mark.parametrize(
    "name",
    [
        *("tutorial.pt", "imagenet.pth.tar", "timm.pth.tar", "lightning.ckpt", "compiled.pth", "averaged.bin"),
        # Its layers are stored in the reverse order of their use, but no two have equal shapes.
        "reversed.pt",
    ],
)
def test_every_checkpoint_of_pytorch_has_its_outputs(saved, name):
    _assert_same_outputs(saved / name, FILES / "torch_narrow.npz")


@pytest.mark.parametrize("model", ["sequential", "functional", "inner"])
def test_every_file_of_keras_3_has_the_outputs_of_the_same_weights(keras_network, tmp_path, model):
    import keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = make_keras_fixture.make_models(keras)[model]
        network.compile("adam", "sparse_categorical_crossentropy")
        network.optimizer.build(network.trainable_variables)
        network.set_weights(make_keras_fixture.make_weights(network))
        for save, ending in ((network.save, ".keras"), (network.save, ".h5"), (network.save_weights, ".weights.h5")):
            save(tmp_path / f"model{ending}")
            _assert_same_outputs(tmp_path / f"model{ending}", FILES / "keras2_narrow.npz")


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
    monkeypatch.setattr("cnn.exchange.importing.load", lambda config: (check_splits(config, small), small))
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


def _interrupt(*arguments):
    raise Interrupted


def test_an_import_that_was_cut_short_starts_again_and_nothing_trains_on_from_it(small, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "load", lambda config: (check_splits(config, small), small))
    run_dir, (state, config) = tmp_path / "run", weights.load_weights(TORCH_FILE, CONFIG)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(rundir, "write_result", _interrupt)
        weights.import_run(TORCH_FILE, run_dir, state, config)
    before = (run_dir / "config.json").read_bytes()
    for use in (
        lambda: cnn.fit(config, run_dir, small),
        lambda: apply_transfer(cnn.create_state(config), cnn.TransferConfig(str(run_dir))),
        lambda: weights.import_run(FILES / "keras2_narrow.npz", run_dir, state, config),
    ):
        with pytest.raises(cnn.RunDirError, match="holds an import of 'torch_narrow.pt' that was cut short; repeat"):
            use()
    result = weights.import_run(TORCH_FILE, run_dir, state, config)
    assert result["imported"]["file"] == TORCH_FILE.name and (run_dir / "config.json").read_bytes() == before
    assert set(verification.verify(run_dir).values()) == {""}
    assert cnn.load_result(run_dir)[1].summary == result


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


CONV, WIDER, DENSE, LOGITS = MATCHING


@pytest.mark.parametrize(
    ("shapes", "listed"),
    [
        ([*MATCHING, LOGITS], ["'layer4' (unexpected)/kernel Dense [8, 10] -> missing"]),
        ([(5, 5, 1, 4), WIDER, DENSE, LOGITS], ["conv1/kernel Conv [5, 5, 1, 4] -> Conv [3, 3, 1, 4]"]),
        (
            [CONV, (3, 3, 4, 6), DENSE, LOGITS],
            ["conv2/bias Conv [6] -> Conv [4]", "conv2/kernel Conv [3, 3, 4, 6] -> Conv [3, 3, 4, 4]"],
        ),
        ([CONV, WIDER, LOGITS, LOGITS], ["dense/kernel Dense [8, 10] -> Dense [196, 8]"]),
        (MATCHING[:3], [r"logits/kernel missing -> Dense [8, 10]"]),
        ([CONV, DENSE, DENSE, LOGITS], ["conv2/kernel Dense [196, 8] -> Conv [3, 3, 4, 4]"]),
    ],
)
def test_a_mismatch_is_listed(shapes, listed):
    state = abstract_state(CONFIG)
    weights.match_layers(state, _layers(*MATCHING))
    with pytest.raises(cnn.UserError) as refusal:
        weights.match_layers(state, _layers(*shapes))
    assert all(line in str(refusal.value) for line in listed)


def test_layers_in_another_order_are_matched_only_where_shapes_decide():
    state = abstract_state(CONFIG)
    layers = _layers(*MATCHING)
    reordered = weights.match_layers(state, [layers[index] for index in (2, 3, 1, 0)])
    for params, layer in zip(reordered.values(), layers, strict=True):
        assert params["kernel"] is layer.leaves["kernel"]
    state = abstract_state(cnn.ExperimentConfig(model=cnn.DenseConfig(features=(5, 5, 5))))
    same = [(784, 5), (5, 5), (5, 5), (5, 10)]
    weights.match_layers(state, _layers(*same))
    with pytest.raises(cnn.UserError, match="in another order than the model uses them, and dense2, dense3 have equal"):
        weights.match_layers(state, _layers(*reversed(same)))


def test_non_finite_values_and_other_kinds_of_layers_are_refused():
    layers = _layers(*MATCHING)
    layers[1].leaves["bias"][0] = np.inf
    with pytest.raises(cnn.UserError, match="non-finite values, in conv2"):
        weights.match_layers(abstract_state(CONFIG), layers)
    resnet = abstract_state(cnn.ExperimentConfig(model=cnn.ResNetConfig(blocks=(1, 1, 1), features=2)))
    with pytest.raises(cnn.UserError, match="BatchNorm; only Conv, Dense and Recurrent can be"):
        weights.match_layers(resnet, layers)


def test_a_wrong_file_or_experiment_is_one_line_and_writes_nothing(tmp_path):
    (tmp_path / "model.npz").write_bytes(b"")
    for file, message in (
        (tmp_path / "model.npz", r"must end in \.keras, \.h5, \.hdf5, \.pt, .*, \.tar or \.safetensors"),
        (TORCH_FILE, r"conv1/bias Conv \[4\] -> Conv \[32\];.*name the experiment with these layers with --experiment"),
    ):
        with pytest.raises(cnn.UserError, match=message) as refusal:
            main(["import", str(file), "--run-dir", str(tmp_path / "run")])
        assert "\n" not in str(refusal.value) and not (tmp_path / "run").exists()
