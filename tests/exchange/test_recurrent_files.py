"""Weights of recurrent layers from PyTorch and Keras, and their ONNX nodes: gates in the order of each."""

import dataclasses
import tarfile
import warnings

import jax
import numpy as np
import pytest

import cnn
from cnn.exchange.importing import load_weights
from cnn.exchange.onnx_graph import make_graph
from cnn.training.steps import apply_model
from cnn.training.task import scale
from tests.files.make_recurrent_fixture import FEATURES
from tests.helpers import ROOT

CELLS = "lstm", "gru", "rnn"


def _config(config, cell):
    return dataclasses.replace(config, model=cnn.RecurrentConfig(cell=cell, features=FEATURES))


def _logits(state, images):
    return np.asarray(apply_model(state, state.params, scale(images))[0])


@pytest.fixture(scope="module")
def torch_files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("torch")
    with tarfile.open(ROOT / "tests" / "files" / "torch_recurrent.tar.xz") as tar:
        tar.extractall(directory, filter="data")
    return directory


@pytest.mark.parametrize("cell", CELLS)
def test_pytorchs_weights_give_its_logits(config, torch_files, cell):
    with np.load(torch_files / "expected.npz") as expected:
        state, _ = load_weights(torch_files / f"{cell}.pt", _config(config, cell))
        np.testing.assert_allclose(_logits(state, expected["images"]), expected[cell], atol=1e-5)
        assert np.abs(np.diff(expected[cell], axis=0)).max() > 0.1


def test_another_cells_weights_are_refused(config, torch_files):
    with pytest.raises(cnn.UserError, match=r"the layers are not those of the model \(recurrent/"):
        load_weights(torch_files / "gru.pt", _config(config, "lstm"))


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
@pytest.mark.parametrize("cell", CELLS)
def test_keras_weights_give_its_logits(config, cell, suffix, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with warnings.catch_warnings():
        # Keras does not follow all of NumPy's newer rules.
        warnings.simplefilter("ignore", DeprecationWarning)
        import keras

        kinds = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
        head = keras.layers.Dropout(0.2), keras.layers.Dense(10)
        model = keras.Sequential([keras.Input((28, 28)), kinds[cell](FEATURES), *head])
        rng = np.random.default_rng(0)
        model.set_weights([rng.normal(0, 0.4, weight.shape).astype(np.float32) for weight in model.get_weights()])
        images = rng.integers(0, 256, (5, 28, 28, 1), np.uint8)
        expected = np.asarray(model(images[..., 0] / np.float32(255)))
        path = tmp_path / f"model{suffix}"
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    state, _ = load_weights(path, _config(config, cell))
    np.testing.assert_allclose(_logits(state, images), expected, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_onnx_nodes_give_the_probabilities_of_predict(config, cell):
    import onnxruntime

    config, rng = _config(config, cell), np.random.default_rng(1)
    state = cnn.create_state(config)
    noisy = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32), state.params)
    state = state.replace(params=noisy)
    images = rng.integers(0, 256, (3, 28, 28, 1), np.uint8)
    model = make_graph(state, config)
    operators = {node.op_type for node in model.graph.node}
    assert {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}[cell] in operators
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": images})
    np.testing.assert_allclose(np.asarray(found), np.asarray(cnn.predict(state, images)), atol=1e-5)
