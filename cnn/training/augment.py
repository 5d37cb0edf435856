"""Augmentation inside the compiled step: pure functions of a key and the images, drawn anew for every step.

Images are float32 [B, H, W, C] from 0 to 1, targets float32 [B, K], the probability of each class.
"""

import jax
import jax.numpy as jnp
from jax import Array, random

from cnn.config import AugmentConfig

ERASED_AREA = (0.02, 1 / 3)
"""Share of the image that random erasing takes away, at least and at most; the paper's."""

ERASED_RATIO = 0.3
"""Height over width of what is erased, at least; at most its inverse."""


def shift(key: Array, images: Array, pixels: int) -> Array:
    """Returns images moved by up to so many pixels in each direction, zeros moving in: padded and cropped at random.

    K. He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385, section 4.2.
    """
    batch, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    starts = random.randint(key, (batch, 2), 0, 2 * pixels + 1)
    crop = jax.vmap(lambda image, start: jax.lax.dynamic_slice(image, (*start, 0), (height, width, channels)))
    return crop(padded, starts)


def flip(key: Array, images: Array) -> Array:
    """Returns images of which each is mirrored, left to right, with probability one half."""
    mirrored = random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def _inside(shape: tuple[int, ...], first: Array, sizes: Array) -> Array:
    """Where the pixels of rectangles are, bool [B, H, W, 1]: first row and column, and sizes, int [B, 2]."""
    # Each pixel's row and column, counted from the rectangle's first: [B, H, W, 2].
    place = jnp.stack(jnp.indices(shape[1:3]), -1) - first[:, None, None]
    return ((place >= 0) & (place < sizes[:, None, None])).all(-1, keepdims=True)


def cutout(key: Array, images: Array, pixels: int) -> Array:
    """Returns images with a square of so many pixels a side set to zero; it may lie partly outside.

    T. DeVries and G. W. Taylor, Improved Regularization of CNNs with Cutout, arXiv:1708.04552, section 3.
    """
    centers = random.randint(key, (len(images), 2), 0, jnp.asarray(images.shape[1:3]))
    inside = _inside(images.shape, centers - pixels // 2, jnp.full((len(images), 2), pixels))
    return jnp.where(inside, 0, images)


def erase(key: Array, images: Array, probability: float) -> Array:
    """Returns images of which some, by this probability, have a rectangle of noise in them.

    Z. Zhong et al., Random Erasing Data Augmentation, arXiv:1708.04896, algorithm 1; a rectangle too long for the
    image is cut off at its size, and not drawn again.
    """
    size, (batch, height, width, _) = jnp.asarray(images.shape[1:3]), images.shape
    chosen, area, ratio, place, noise = random.split(key, 5)
    areas = random.uniform(area, (batch, 1), minval=ERASED_AREA[0], maxval=ERASED_AREA[1]) * height * width
    log_ratio = jnp.abs(jnp.log(ERASED_RATIO))
    ratios = jnp.exp(random.uniform(ratio, (batch, 1), minval=-log_ratio, maxval=log_ratio))
    sizes = jnp.concatenate([jnp.sqrt(areas * ratios), jnp.sqrt(areas / ratios)], 1).round().astype(int)
    sizes = jnp.clip(sizes, 1, size)
    first = (random.uniform(place, (batch, 2)) * (size - sizes + 1)).astype(int)
    taken = _inside(images.shape, first, sizes) & random.bernoulli(chosen, probability, (batch, 1, 1, 1))
    return jnp.where(taken, random.uniform(noise, images.shape), images)


def mixup(key: Array, images: Array, targets: Array, alpha: float) -> tuple[Array, Array]:
    """Returns each image mixed with another, and the targets alike, by a share that is Beta(alpha, alpha).

    H. Zhang et al., mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412, section 2. The other is the next one
    of the batch, whose order is random.
    """
    share = random.beta(key, alpha, alpha)

    def mixed(array):
        return share * array + (1 - share) * jnp.roll(array, 1, 0)

    return mixed(images), mixed(targets)


def cutmix(key: Array, images: Array, targets: Array, alpha: float) -> tuple[Array, Array]:
    """Returns images with a rectangle of another in each, and targets mixed by the pixels' shares.

    S. Yun et al., CutMix, arXiv:1905.04899, section 3.1; a rectangle for all of the batch, cut off at the edges.
    """
    size, (cut, place) = jnp.asarray(images.shape[1:3]), random.split(key)
    sizes = (size * jnp.sqrt(1 - random.beta(cut, alpha, alpha))).astype(int)[None]
    inside = _inside(images.shape, random.randint(place, (1, 2), 0, size) - sizes // 2, sizes)
    share = 1 - inside.mean()
    mixed = jnp.where(inside, jnp.roll(images, 1, 0), images)
    return mixed, share * targets + (1 - share) * jnp.roll(targets, 1, 0)


def tta_views(images: Array, config: AugmentConfig) -> Array:
    """Returns images [B, H, W, C] as training may have seen them, [V, B, H, W, C], themselves first.

    Their mirror images, if training flips, and each of both one pixel up, down, left and right, if it shifts: A.
    Krizhevsky et al., ImageNet Classification with Deep CNNs, section 4.1.
    """
    found = [images] + ([images[:, :, ::-1]] if config.flip else [])
    if config.shift:
        padded = [jnp.pad(view, ((0, 0), (1, 1), (1, 1), (0, 0))) for view in found]
        height, width = images.shape[1:3]
        places = (0, 1), (2, 1), (1, 0), (1, 2)
        found += [view[:, top : top + height, left : left + width] for view in padded for top, left in places]
    return jnp.stack(found)


def augment(key: Array, images: Array, targets: Array, config: AugmentConfig) -> tuple[Array, Array]:
    """Returns images and targets as the configuration wants them changed; without a change, the same."""
    keys = random.split(key, 6)
    if config.shift:
        images = shift(keys[0], images, config.shift)
    if config.flip:
        images = flip(keys[1], images)
    if config.cutout:
        images = cutout(keys[2], images, config.cutout)
    if config.erase:
        images = erase(keys[3], images, config.erase)
    if config.mixup:
        images, targets = mixup(keys[4], images, targets, config.mixup)
    if config.cutmix:
        images, targets = cutmix(keys[5], images, targets, config.cutmix)
    return images, targets
