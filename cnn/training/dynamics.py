"""Training dynamics: how probable each training image's label is as the image is trained on, epoch by epoch."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def zero_dynamics(images: int, batch_size: int) -> dict[str, Array]:
    """Returns the dynamics of no steps: a row for each step of an epoch, float32 [S, B]."""
    shape = math.ceil(images / batch_size), batch_size
    return {"probability": jnp.zeros(shape), "margin": jnp.zeros(shape)}


def record(dynamics: dict[str, Array], step: Array, logits_BxK: Array, targets: Any) -> dict[str, Array]:
    """Returns the dynamics with a batch's: its labels' probabilities, and their logits less the highest other one.

    S. Swayamdipta et al., Dataset Cartography, arXiv:2009.10795, section 2, has the probabilities; G. Pleiss et al.,
    Identifying Mislabeled Data using the Area Under the Margin Ranking, arXiv:2001.10528, section 3, the margins.

    A row is written in place, whatever images the batch has: to scatter by image would cost more.

    Args:
      dynamics: of the epoch, by step, each float32 [S, B]; {} keeps nothing.
      step: steps taken, int32.
      logits_BxK: before the step's update, of augmented images with dropout.
      targets: of classification; their labels are used.
    """
    if not dynamics:
        return dynamics
    is_label_BxK = jax.nn.one_hot(targets.labels, logits_BxK.shape[-1], dtype=bool)
    label_B = jnp.where(is_label_BxK, logits_BxK, 0).sum(-1)
    values = {
        "probability": jnp.exp(label_B - jax.nn.logsumexp(logits_BxK, -1)),
        "margin": label_B - jnp.where(is_label_BxK, -jnp.inf, logits_BxK).max(-1),
    }
    steps, batch_size = dynamics["margin"].shape
    # On several devices, a batch is padded to fit.
    at = step % steps, 0
    return {name: lax.dynamic_update_slice(dynamics[name], values[name][None, :batch_size], at) for name in dynamics}


def by_image(values_SxB: np.ndarray, order_SxB: np.ndarray, images: int) -> np.ndarray:
    """Returns an epoch's values in the order of the training images, [N]; what is left of the last batch is padding.

    Args:
      values_SxB: by step.
      order_SxB: the images of each step, as of ``epoch_order``.
      images: number of training images.
    """
    values_N = np.empty(images, values_SxB.dtype)
    values_N[order_SxB.ravel()[:images]] = values_SxB.ravel()[:images]
    return values_N
