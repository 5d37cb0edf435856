"""Training dynamics: how probable each training image's label is as the image is trained on, epoch by epoch."""

import jax
import jax.numpy as jnp
from jax import Array


def zero_dynamics(images: int) -> dict[str, Array]:
    """Returns the dynamics of no steps: for each image, float32 [N]."""
    return {"probability": jnp.zeros(images), "margin": jnp.zeros(images)}


def record(
    dynamics: dict[str, Array], indices_B: Array | None, logits_BxK: Array, labels_B: Array, mask_B: Array
) -> dict[str, Array]:
    """Returns the dynamics with a batch's: its labels' probabilities, and their logits less the highest other one.

    S. Swayamdipta et al., Dataset Cartography, arXiv:2009.10795, section 2, has the probabilities; G. Pleiss et al.,
    Identifying Mislabeled Data using the Area Under the Margin Ranking, arXiv:2001.10528, section 3, the margins.

    Args:
      dynamics: by image of the epoch, each float32 [N]; {} keeps nothing.
      indices_B: the batch's images, as indices into the epoch's; None keeps nothing.
      logits_BxK: before the step's update, of augmented images with dropout.
      labels_B: integers.
      mask_B: False for padding.
    """
    if not dynamics or indices_B is None:
        return dynamics
    is_label_BxK = jax.nn.one_hot(labels_B, logits_BxK.shape[-1], dtype=bool)
    label_B = jnp.where(is_label_BxK, logits_BxK, 0).sum(-1)
    values = {
        "probability": jnp.exp(label_B - jax.nn.logsumexp(logits_BxK, -1)),
        "margin": label_B - jnp.where(is_label_BxK, -jnp.inf, logits_BxK).max(-1),
    }
    # Padding has the index of an image that is there; beyond the last one, it is dropped.
    kept_B = jnp.where(mask_B, indices_B, len(dynamics["margin"]))
    return {name: dynamics[name].at[kept_B].set(values[name], mode="drop") for name in dynamics}
