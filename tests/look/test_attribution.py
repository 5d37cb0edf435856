"""Grad-CAM against its closed form, and integrated gradients against the sum they must have."""

import dataclasses

import numpy as np
import pytest

import cnn
from cnn.look.attribution import grad_cam, integrated_gradients
from tests.helpers import narrow


@pytest.fixture(scope="module")
def resnet(config, small):
    """A trained state whose last layers are a block, the mean and the logits, so Grad-CAM has a closed form."""
    state = cnn.create_state(dataclasses.replace(config, model=cnn.ResNetConfig(blocks=(1, 1, 1), features=4)))
    return cnn.train_epoch(state, small.train, batch_size=50)[0]


def test_grad_cam_before_a_global_mean_has_a_closed_form(resnet, small):
    """B. Zhou et al., arXiv:1512.04150: the logit is the mean over the pixels of the maps times the kernel's column."""
    images, labels = small.test.images[:3], np.array([2, 9, 2])
    maps, kernel = cnn.feature_maps(resnet, images)["block3"], np.asarray(resnet.params["logits"]["kernel"])
    pixels = maps.shape[1] * maps.shape[2]
    expected = np.maximum(np.einsum("bhwc,cb->bhw", maps, kernel[:, labels]), 0) / pixels
    np.testing.assert_allclose(grad_cam(resnet, images, "block3", labels), expected, rtol=1e-4, atol=1e-7)


def test_integrated_gradients_sum_to_the_logits_difference_from_black(resnet, small):
    images, labels = small.test.images[:4], np.array([0, 1, 2, 3])
    logits, black_logits = (cnn.feature_maps(resnet, batch)["logits"] for batch in (images, np.zeros_like(images)))
    difference = np.asarray(logits - black_logits)[np.arange(4), labels]
    gradients = np.asarray(integrated_gradients(resnet, images, labels))
    # The integral is a sum of 64 terms.
    np.testing.assert_allclose(gradients.sum((1, 2, 3)), difference, rtol=0.02, atol=0.02)
    assert not gradients[np.asarray(images) == 0].any()


@pytest.mark.parametrize("layer", ["pool", "logits", "conv9"])
def test_a_layer_without_pixels_is_refused(resnet, small, layer):
    with pytest.raises(cnn.ConfigError, match=f"--layer is '{layer}', but must be one of conv, norm, block1_conv1"):
        grad_cam(resnet, small.test.images[:1], layer, np.array([0]))


def test_attribution_uses_the_ema_if_it_is_kept(config, small):
    optim = dataclasses.replace(config.optim, average_decay=0.9)
    state = cnn.create_state(dataclasses.replace(narrow(config), optim=optim))
    state, _ = cnn.train_step(state, cnn.Batch(small.train.images[:8], small.train.labels[:8]))
    images, labels = small.test.images[:1], np.array([3])
    plain = state.replace(params=state.ema["params"], ema={})
    cam, expected = (grad_cam(source, images, "conv2", labels) for source in (state, plain))
    np.testing.assert_array_equal(cam, expected)
