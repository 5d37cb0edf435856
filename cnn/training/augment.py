"""Data augmentation inside the compiled step: pure functions of a random key and a batch.

Images are float32 from 0 to 1; targets are class probabilities, float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from cnn.config import AugmentConfig
from cnn.training.photos import colour, crop, rotate, trivial

ERASED_AREA = (0.02, 1 / 3)
"""Smallest and largest share of the image that random erasing replaces, as in the paper."""

ERASED_RATIO = 0.3
"""Smallest height over width of an erased rectangle; the largest is its inverse."""


def shift(key: Array, images_BxHxWxC: Array, pixels: int) -> Array:
    """Returns images shifted by up to ``pixels`` in each direction and filled with zeros: padded, then cropped.

    K. He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385, section 4.2.
    """
    batch, *size = images_BxHxWxC.shape
    padded = jnp.pad(images_BxHxWxC, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    starts_Bx2 = random.randint(key, (batch, 2), 0, 2 * pixels + 1)
    crop = jax.vmap(lambda image_HxWxC, start_2: lax.dynamic_slice(image_HxWxC, (*start_2, 0), size))
    return crop(padded, starts_Bx2)


def flip(key: Array, images_BxHxWxC: Array) -> Array:
    """Returns images, each mirrored left to right with probability 1/2."""
    mirrored = random.bernoulli(key, shape=(len(images_BxHxWxC), 1, 1, 1))
    return jnp.where(mirrored, images_BxHxWxC[:, :, ::-1], images_BxHxWxC)


def rectangles(shape: tuple[int, ...], top_left_Bx2: Array, sizes_Bx2: Array) -> Array:
    """Returns which pixels are inside rectangles with these top left corners and sizes, int: bool [B, H, W, 1]."""
    # Each pixel's row and column, counted from the rectangle's first.
    offsets_BxHxWx2 = jnp.stack(jnp.indices(shape[1:3]), -1) - top_left_Bx2[:, None, None]
    return ((offsets_BxHxWx2 >= 0) & (offsets_BxHxWx2 < sizes_Bx2[:, None, None])).all(-1, keepdims=True)


def cutout(key: Array, images_BxHxWxC: Array, pixels: int) -> Array:
    """Returns images, each with a square of ``pixels`` a side set to zero, which may extend beyond the edge.

    T. DeVries and G. W. Taylor, Improved Regularization of CNNs with Cutout, arXiv:1708.04552, section 3.
    """
    shape, batch = images_BxHxWxC.shape, len(images_BxHxWxC)
    centers_Bx2 = random.randint(key, (batch, 2), 0, jnp.asarray(shape[1:3]))
    return jnp.where(rectangles(shape, centers_Bx2 - pixels // 2, jnp.full((batch, 2), pixels)), 0, images_BxHxWxC)


def erase(key: Array, images_BxHxWxC: Array, probability: float) -> Array:
    """Returns images, each of which gets a rectangle of noise with this probability.

    Z. Zhong et al., Random Erasing Data Augmentation, arXiv:1708.04896, algorithm 1; a rectangle longer than the
    image is clipped to its size instead of drawn again.
    """
    size, (batch, height, width, _) = jnp.asarray(images_BxHxWxC.shape[1:3]), images_BxHxWxC.shape
    chosen_key, area_key, ratio_key, position_key, noise_key = random.split(key, 5)
    areas = random.uniform(area_key, (batch, 1), minval=ERASED_AREA[0], maxval=ERASED_AREA[1]) * height * width
    log_ratio = jnp.abs(jnp.log(ERASED_RATIO))
    ratios = jnp.exp(random.uniform(ratio_key, (batch, 1), minval=-log_ratio, maxval=log_ratio))
    sizes_Bx2 = jnp.concatenate([jnp.sqrt(areas * ratios), jnp.sqrt(areas / ratios)], 1).round().astype(int)
    sizes_Bx2 = jnp.clip(sizes_Bx2, 1, size)
    top_left_Bx2 = (random.uniform(position_key, (batch, 2)) * (size - sizes_Bx2 + 1)).astype(int)
    inside = rectangles(images_BxHxWxC.shape, top_left_Bx2, sizes_Bx2)
    erased = inside & random.bernoulli(chosen_key, probability, (batch, 1, 1, 1))
    return jnp.where(erased, random.uniform(noise_key, images_BxHxWxC.shape), images_BxHxWxC)


def partners(array_BxX: Array, mask_B: Array | np.ndarray | None) -> Array:
    """Returns what is to be mixed into each image: the image before it, and into the first, the last; never padding."""
    if mask_B is None:
        return jnp.roll(array_BxX, 1, 0)
    last_B = lax.cummax(jnp.where(mask_B, jnp.arange(len(mask_B)), -1))
    before_B = jnp.roll(last_B, 1)
    return array_BxX[jnp.where(before_B < 0, last_B[-1], before_B)]


def mixup(
    key: Array, images_BxHxWxC: Array, targets_BxK: Array, alpha: float, mask_B: Array | np.ndarray | None = None
) -> tuple[Array, Array]:
    """Returns images and targets, each mixed with its partner by a weight drawn from Beta(alpha, alpha).

    H. Zhang et al., mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412, section 2; a batch is in random order.
    """
    weight = random.beta(key, alpha, alpha)

    def mix(array_BxX):
        return weight * array_BxX + (1 - weight) * partners(array_BxX, mask_B)

    return mix(images_BxHxWxC), mix(targets_BxK)


def cutmix(
    key: Array, images_BxHxWxC: Array, targets_BxK: Array, alpha: float, mask_B: Array | np.ndarray | None = None
) -> tuple[Array, Array]:
    """Returns images, each with a rectangle of its partner, and targets mixed by the shares of the pixels.

    S. Yun et al., CutMix, arXiv:1905.04899, section 3.1; one rectangle for the batch, clipped at the edges.
    """
    size, (size_key, position_key) = jnp.asarray(images_BxHxWxC.shape[1:3]), random.split(key)
    sizes_1x2 = (size * jnp.sqrt(1 - random.beta(size_key, alpha, alpha))).astype(int)[None]
    inside = rectangles(images_BxHxWxC.shape, random.randint(position_key, (1, 2), 0, size) - sizes_1x2 // 2, sizes_1x2)
    weight = 1 - inside.mean()
    mixed = jnp.where(inside, partners(images_BxHxWxC, mask_B), images_BxHxWxC)
    return mixed, weight * targets_BxK + (1 - weight) * partners(targets_BxK, mask_B)


def tta_views(images_BxHxWxC: Array, config: AugmentConfig) -> Array:
    """Returns variants of images for test-time augmentation [V, B, H, W, C], the images themselves first.

    Mirror images, if training flips; each of both shifted by one pixel up, down, left and right, if training shifts:
    A. Krizhevsky et al., ImageNet Classification with Deep CNNs, section 4.1.
    """
    views = [images_BxHxWxC] + ([images_BxHxWxC[:, :, ::-1]] if config.flip else [])
    if config.shift:
        padded = [jnp.pad(view, ((0, 0), (1, 1), (1, 1), (0, 0))) for view in views]
        height, width = images_BxHxWxC.shape[1:3]
        starts = (0, 1), (2, 1), (1, 0), (1, 2)
        views += [view[:, top : top + height, left : left + width] for view in padded for top, left in starts]
    return jnp.stack(views)


def augment(
    key: Array,
    images_BxHxWxC: Array,
    targets_BxK: Array,
    config: AugmentConfig,
    mask_B: Array | np.ndarray | None = None,
) -> tuple[Array, Array]:
    """Returns the images and targets after the augmentations of the configuration, if any.

    Args:
      key: a random key.
      images_BxHxWxC: from 0 to 1.
      targets_BxK: class probabilities.
      config: of the experiment.
      mask_B: False for padding; None for a batch without any.
    """
    # The first keys are the same, however many follow.
    keys = random.split(key, 10)
    if config.crop:
        images_BxHxWxC = crop(keys[6], images_BxHxWxC, config.crop)
    if config.rotate:
        images_BxHxWxC = rotate(keys[7], images_BxHxWxC, config.rotate)
    if config.colour:
        images_BxHxWxC = colour(keys[8], images_BxHxWxC, config.colour)
    if config.trivial:
        images_BxHxWxC = trivial(keys[9], images_BxHxWxC)
    if config.shift:
        images_BxHxWxC = shift(keys[0], images_BxHxWxC, config.shift)
    if config.flip:
        images_BxHxWxC = flip(keys[1], images_BxHxWxC)
    if config.cutout:
        images_BxHxWxC = cutout(keys[2], images_BxHxWxC, config.cutout)
    if config.erase:
        images_BxHxWxC = erase(keys[3], images_BxHxWxC, config.erase)
    if config.mixup:
        images_BxHxWxC, targets_BxK = mixup(keys[4], images_BxHxWxC, targets_BxK, config.mixup, mask_B)
    if config.cutmix:
        images_BxHxWxC, targets_BxK = cutmix(keys[5], images_BxHxWxC, targets_BxK, config.cutmix, mask_B)
    return images_BxHxWxC, targets_BxK
