"""Adversarial examples: images changed by at most epsilon a pixel, so that a network's loss becomes high.

Images are attacked with full knowledge of the network, whose gradient with respect to the pixels is computed.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax, random

from cnn.training.state import TrainState
from cnn.training.steps import apply_model
from cnn.training.task import check_images, scale

STEPS = 10
"""Of PGD: each is 2.5 epsilon / STEPS long, so that every corner of the ball can be reached from any start in it."""


def _gradients(state: TrainState, inputs_BxHxWxC: Array, labels_B: Array | np.ndarray) -> Array:
    """The gradient of each image's cross-entropy with respect to its own pixels."""

    def loss_sum(inputs_BxHxWxC):
        logits_BxK, _ = apply_model(state, state.params, inputs_BxHxWxC)
        return optax.softmax_cross_entropy_with_integer_labels(logits_BxK, jnp.asarray(labels_B)).sum()

    return jax.grad(loss_sum)(inputs_BxHxWxC)


@jax.jit
def fgsm(
    state: TrainState, images_BxHxWxC: Array | np.ndarray, labels_B: Array | np.ndarray, epsilon: Array | float
) -> Array:
    """Returns images after one step of epsilon along the sign of the loss's gradient, float32 from 0 to 1.

    I. Goodfellow et al., Explaining and Harnessing Adversarial Examples, arXiv:1412.6572, section 4.

    Args:
      state: a trained state.
      images_BxHxWxC: uint8.
      labels_B: the true classes, integers.
      epsilon: maximum change of a pixel, of the range from 0 to 1.
    """
    check_images(state.spec, images_BxHxWxC)
    state, inputs_BxHxWxC = state.eval_state, scale(images_BxHxWxC)
    return jnp.clip(inputs_BxHxWxC + epsilon * jnp.sign(_gradients(state, inputs_BxHxWxC, labels_B)), 0, 1)


@partial(jax.jit, static_argnames="steps")
def pgd(
    state: TrainState,
    images_BxHxWxC: Array | np.ndarray,
    labels_B: Array | np.ndarray,
    epsilon: Array | float,
    key: Array,
    *,
    steps: int = STEPS,
) -> Array:
    """Returns images after several smaller steps, each projected back to the ball of epsilon, float32 from 0 to 1.

    A. Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, arXiv:1706.06083, section 2.1:
    projected gradient descent in the L-infinity ball, from one random start in it.

    Args:
      state: a trained state.
      images_BxHxWxC: uint8.
      labels_B: the true classes, integers.
      epsilon: maximum change of a pixel, of the range from 0 to 1.
      key: of the random start.
      steps: number of steps, each 2.5 epsilon / steps long.
    """
    check_images(state.spec, images_BxHxWxC)
    state, inputs_BxHxWxC = state.eval_state, scale(images_BxHxWxC)
    low, high = jnp.maximum(inputs_BxHxWxC - epsilon, 0), jnp.minimum(inputs_BxHxWxC + epsilon, 1)

    def step(_, attacked_BxHxWxC):
        signs_BxHxWxC = jnp.sign(_gradients(state, attacked_BxHxWxC, labels_B))
        return jnp.clip(attacked_BxHxWxC + 2.5 * epsilon / steps * signs_BxHxWxC, low, high)

    start_BxHxWxC = inputs_BxHxWxC + epsilon * random.uniform(key, inputs_BxHxWxC.shape, minval=-1, maxval=1)
    return lax.fori_loop(0, steps, step, jnp.clip(start_BxHxWxC, low, high))


@jax.jit
def correct_under_attack(
    state: TrainState,
    images_BxHxWxC: Array | np.ndarray,
    labels_B: Array | np.ndarray,
    epsilon: Array | float,
    key: Array,
) -> dict[str, Array]:
    """Returns, by attack, whether each image is still classified correctly, bool [B]; arguments as of ``pgd``."""
    attacked = {
        "fgsm": fgsm(state, images_BxHxWxC, labels_B, epsilon),
        "pgd": pgd(state, images_BxHxWxC, labels_B, epsilon, key),
    }
    state = state.eval_state
    return {
        name: apply_model(state, state.params, inputs_BxHxWxC)[0].argmax(-1) == jnp.asarray(labels_B)
        for name, inputs_BxHxWxC in attacked.items()
    }
