"""Layer activations by their names, shapes and values."""

import numpy as np
import pytest

import cnn
from cnn.look.features import layer_outputs
from tests.helpers import narrow


@pytest.fixture
def state(config, small):
    return cnn.create_state(narrow(config), len(small.train.labels))


def test_feature_maps_have_the_names_order_and_shapes_of_the_layers(state, small):
    maps = cnn.feature_maps(state, small.val.images[:3])
    assert [(name, values.shape) for name, values in maps.items()] == [
        ("conv1", (3, 28, 28, 4)),
        ("pool1", (3, 14, 14, 4)),
        ("conv2", (3, 14, 14, 4)),
        ("pool2", (3, 7, 7, 4)),
        ("flatten", (3, 196)),
        ("dense", (3, 8)),
        ("dropout", (3, 8)),
        ("logits", (3, 10)),
    ]


def test_one_layers_outputs_equal_those_of_feature_maps(state, small):
    images = small.val.images[:3]
    expected = cnn.feature_maps(state, images)["dense"]
    np.testing.assert_allclose(layer_outputs(state, images, "dense"), expected, rtol=1e-5, atol=1e-6)


def test_an_empty_batch_has_empty_feature_maps(state, small):
    assert cnn.feature_maps(state, small.val.images[:0])["conv2"].shape == (0, 14, 14, 4)


def test_convolutions_are_captured_after_the_relu(state, small):
    image = small.val.images[:1]
    maps = cnn.feature_maps(state, image)
    # The middle pixel of conv1 by hand: the products of its 3 x 3 neighbourhood with each kernel, then ReLU.
    kernel, bias = (np.asarray(state.params["conv1"][name]) for name in ("kernel", "bias"))
    patch = image[0, 13:16, 13:16, :, None] / 255
    expected = np.maximum((patch * kernel).sum(axis=(0, 1, 2)) + bias, 0)
    np.testing.assert_allclose(maps["conv1"][0, 14, 14], expected, atol=1e-6)
    assert (expected == 0).any() and (expected > 0).any()
    assert maps["conv2"].min() == 0


def test_captured_logits_are_those_of_predict(state, small):
    logits = np.asarray(cnn.feature_maps(state, small.val.images[:5])["logits"])
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(cnn.predict(state, small.val.images[:5]), expected, atol=1e-6)
