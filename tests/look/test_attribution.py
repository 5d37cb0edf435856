"""Grad-CAM against its closed form, integrated gradients against their sum, and all on networks with known answers."""

import dataclasses

import flax.linen as nn
import numpy as np
import pytest

import cnn
from cnn.look.attribution import NOISE, explanations, grad_cam, integrated_gradients, occlusion, smooth_grad
from cnn.models.family import Family
from cnn.models.layers import Dense, Flatten
from tests.helpers import narrow
from tests.look.networks import linear_state, small_state, softmax

GENERATOR = np.random.default_rng(0)


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
    images, labels = small.test.images[:3], np.array([0, 1, 2])
    logits, black_logits = (cnn.feature_maps(resnet, batch)["logits"] for batch in (images, np.zeros_like(images)))
    difference = np.asarray(logits - black_logits)[np.arange(3), labels]
    gradients = np.asarray(integrated_gradients(resnet, images, labels))
    # The integral is a sum of 32 terms.
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


def test_a_linear_networks_gradients_are_its_weights_and_its_contributions_their_products():
    kernel = GENERATOR.normal(size=(5, 7, 3, 4))
    state, images, labels = linear_state(kernel), GENERATOR.integers(0, 256, (2, 5, 7, 3), np.uint8), np.array([3, 1])
    weights = kernel[..., labels].transpose(3, 0, 1, 2)
    np.testing.assert_allclose(smooth_grad(state, images, labels), weights, rtol=1e-4)
    np.testing.assert_allclose(
        integrated_gradients(state, images, labels), images / 255 * weights, rtol=1e-4, atol=1e-6
    )
    maps = explanations(state, images, labels, None)
    assert list(maps) == ["Integrated gradients", "SmoothGrad", "Occlusion"]
    np.testing.assert_allclose(maps["SmoothGrad"], np.abs(weights).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(maps["Integrated gradients"], (images / 255 * weights).sum(-1), rtol=1e-4, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class Cubic(Family):
    """Logits that are sums of cubes of pixels."""

    def module(self):
        return CubicNetwork(self)


class CubicNetwork(nn.Module):
    config: Cubic

    @nn.compact
    def __call__(self, images, *, train):
        return Dense(self.config.classes, activation=None, name="logits")(Flatten(name="flat")(images**3))


def test_smooth_grad_averages_over_noise_of_a_share_of_the_images_range():
    """A cube's derivative is 3 x^2, and with noise of deviation s it is 3 (x^2 + s^2) on average."""
    state = small_state(Cubic(), (20, 20, 1))
    images = GENERATOR.integers(50, 151, (2, 20, 20, 1), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = 50, 150
    weights = np.asarray(state.params["logits"]["kernel"])[:, 1].reshape(20, 20, 1)
    gradients = np.asarray(smooth_grad(state, images, np.array([1, 1])))
    excess = gradients / (3 * weights) - (images / 255) ** 2
    expected = (NOISE * 100 / 255) ** 2
    # The mean over 25 samples of 400 pixels; its standard deviation is that of 2 x s over 100.
    np.testing.assert_allclose(excess.mean((1, 2, 3)), expected, atol=4 * 2 * 0.4 * expected**0.5 / 100)
    again = np.asarray(smooth_grad(state, images[1:], np.array([1])))
    np.testing.assert_allclose(again[0], gradients[1], rtol=1e-5)


def _starts(side):
    """Where windows start along a side: at every half window, and where the last one ends at the edge."""
    window = max(1, round(side / 4))
    starts = [start for start in range(0, side, max(1, window // 2)) if start + window <= side]
    return window, starts + [side - window] * (starts[-1] + window < side)


@pytest.mark.parametrize("shape", [(9, 14, 3), (2, 28, 1), (1, 1, 1)], ids=str)
def test_occlusion_is_the_mean_fall_of_the_probability_over_the_windows_that_cover_a_pixel(shape):
    kernel, images = GENERATOR.normal(size=(*shape, 3)), GENERATOR.integers(0, 256, (2, *shape), np.uint8)
    labels, falls, counts = np.array([2, 0]), np.zeros((2, *shape[:2])), np.zeros(shape[:2])

    def probability(pictures):
        return softmax(np.tensordot(pictures / 255, kernel, 3))[[0, 1], labels]

    (height, tops), (width, lefts) = (_starts(side) for side in shape[:2])
    for top in tops:
        for left in lefts:
            covered, window = images.copy(), np.s_[top : top + height, left : left + width]
            covered[:, *window] = 0
            falls[:, *window] += (probability(images) - probability(covered))[:, None, None]
            counts[window] += 1
    assert counts.min() >= 1
    actual = occlusion(linear_state(kernel), images, labels)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, falls / counts, rtol=1e-4, atol=1e-6)


def test_grad_cam_is_resized_to_the_image(resnet, small):
    images, labels = small.test.images[:3], np.array([2, 9, 2])
    maps, cam = explanations(resnet, images, labels, "block3"), np.asarray(grad_cam(resnet, images, "block3", labels))
    assert list(maps)[0] == "Grad-CAM" and {values.shape for values in maps.values()} == {(3, 28, 28)}
    assert cam.shape == (3, 7, 7) and cam.any()
    # Linear between the centres of its pixels, of which each is 4 x 4 of the image's.
    row = maps["Grad-CAM"][:, 0, 2:26]
    expected = [np.interp(np.arange(2, 26), np.arange(1.5, 28, 4), values) for values in cam[:, 0]]
    np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-7)
