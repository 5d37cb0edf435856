"""Distillation: the loss of a student that learns from the logits of other networks."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cnn.config import DistillConfig


def distilled(losses_B: Array, logits_BxK: Array, teachers_TxBxK: Array, config: DistillConfig) -> Array:
    """Returns each image's loss: its own, and how far the student is from the mean of its teachers.

    G. Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531, section 2: the Kullback-Leibler
    divergence at a temperature, times its square, as gradients shrink by that. Several teachers are one by the
    arithmetic mean of their logits, as in section 3.

    Args:
      losses_B: cross-entropies with the labels, in nats.
      logits_BxK: of the student.
      teachers_TxBxK: logits of T teachers for the same augmented images.
      config: temperature, and the teachers' share of the loss.
    """
    temperature, weight = config.temperature, config.weight
    targets_BxK = jax.nn.softmax(teachers_TxBxK.mean(0) / temperature)
    divergences_B = optax.kl_divergence(jax.nn.log_softmax(logits_BxK / temperature), targets_BxK)
    return (1 - weight) * losses_B + weight * jnp.square(temperature) * divergences_B
