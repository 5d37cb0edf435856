"""Captured outputs by their names and values; Grad-CAM and integrated gradients by what they must add up to."""

import dataclasses

import jax
import numpy as np
import pytest

import cnn
from cnn.look.attribution import grad_cam, integrated_gradients
from cnn.look.features import layer_outputs
from tests.helpers import narrow


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


def test_the_outputs_of_one_layer_are_those_of_all(state, small):
    images = small.val.images[:3]
    wanted = cnn.feature_maps(state, images)["dense"]
    np.testing.assert_allclose(layer_outputs(state, images, "dense"), wanted, rtol=1e-5, atol=1e-6)


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


@pytest.fixture(scope="module")
def resnet(config, small):
    """The layer before the mean and the logits is a block, so that Grad-CAM of it has a closed form."""
    state = cnn.create_state(dataclasses.replace(config, model=cnn.ResNetConfig(blocks=(1, 1, 1), features=4)))
    return cnn.train_epoch(state, small.train, batch_size=50)[0]


def test_grad_cam_before_a_mean_is_the_maps_weighted_by_the_classs_kernel(resnet, small):
    """B. Zhou et al., arXiv:1512.04150: the logit is the mean over the pixels of the maps times the kernel's column."""
    images, labels = small.test.images[:3], np.array([2, 9, 2])
    maps, kernel = cnn.feature_maps(resnet, images)["block3"], np.asarray(resnet.params["logits"]["kernel"])
    pixels = maps.shape[1] * maps.shape[2]
    wanted = np.maximum(np.einsum("bhwc,cb->bhw", maps, kernel[:, labels]), 0) / pixels
    np.testing.assert_allclose(grad_cam(resnet, images, "block3", labels), wanted, rtol=1e-4, atol=1e-7)


def test_integrated_gradients_add_up_to_the_logits_difference_from_black(resnet, small):
    images, labels = small.test.images[:4], np.array([0, 1, 2, 3])
    logits, black = (cnn.feature_maps(resnet, given)["logits"] for given in (images, np.zeros_like(images)))
    difference = np.asarray(logits - black)[np.arange(4), labels]
    found = np.asarray(integrated_gradients(resnet, images, labels))
    # The integral is a sum of 64 terms.
    np.testing.assert_allclose(found.sum((1, 2, 3)), difference, rtol=0.02, atol=0.02)
    assert not found[np.asarray(images) == 0].any()


@pytest.mark.parametrize("layer", ["pool", "logits", "conv9"])
def test_a_layer_without_pixels_is_refused(resnet, small, layer):
    with pytest.raises(cnn.ConfigError, match=f"--layer is '{layer}', but must be one of conv, norm, block1_conv1"):
        grad_cam(resnet, small.test.images[:1], layer, np.array([0]))


def test_attribution_takes_the_average_where_one_is_kept(config, small):
    optim = dataclasses.replace(config.optim, average_decay=0.9)
    averaged = cnn.create_state(dataclasses.replace(narrow(config), optim=optim))
    averaged, _ = cnn.train_step(averaged, cnn.Batch(small.train.images[:8], small.train.labels[:8]))
    images, labels = small.test.images[:1], np.array([3])
    plain = averaged.replace(params=averaged.average["params"], average={})
    jax.tree.map(
        np.testing.assert_array_equal,
        grad_cam(averaged, images, "conv2", labels),
        grad_cam(plain, images, "conv2", labels),
    )
