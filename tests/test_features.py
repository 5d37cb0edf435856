import numpy as np

import cnn


def test_feature_maps_have_the_layers_names_order_and_shapes(state, small):
    maps = cnn.feature_maps(state, small.val.images[:3])
    assert {name: values.shape for name, values in maps.items()} == {
        "conv1": (3, 28, 28, 32),
        "pool1": (3, 14, 14, 32),
        "conv2": (3, 14, 14, 64),
        "pool2": (3, 7, 7, 64),
        "flatten": (3, 3136),
        "dense": (3, 100),
        "dropout": (3, 100),
        "logits": (3, 10),
    }
    assert list(maps) == ["conv1", "pool1", "conv2", "pool2", "flatten", "dense", "dropout", "logits"]


def test_no_images_have_empty_maps(state, small):
    assert cnn.feature_maps(state, small.val.images[:0])["conv2"].shape == (0, 14, 14, 64)


def test_conv_maps_are_captured_after_the_relu(state, small):
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
