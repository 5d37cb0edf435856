"""Scores that count all classes alike, from the confusion matrix: balanced accuracy and macro F1."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cnn.data.splits import Split
from cnn.training.state import TrainState
from cnn.training.steps import check_input, predict


@partial(jax.jit, static_argnames="batch_size")
def confusion_matrix(state: TrainState, split: Split, *, batch_size: int = 128) -> Array:
    """Returns the number of images by label and predicted class, int32 [K, K]."""
    check_input(state, split, batch_size)
    probabilities_NxK = predict(state, split.images, batch_size=batch_size)
    counts_KxK = jnp.zeros((probabilities_NxK.shape[1],) * 2, jnp.int32)
    return counts_KxK.at[split.labels, jnp.argmax(probabilities_NxK, axis=1)].add(1)


def balanced_accuracy(counts_KxK: np.ndarray) -> float:
    """Returns the mean recall of the classes that have images."""
    images_K = counts_KxK.sum(1)
    return float(np.mean(np.diag(counts_KxK)[images_K > 0] / images_K[images_K > 0]))


def macro_f1(counts_KxK: np.ndarray) -> float:
    """Returns the mean F1 score of the classes that have images, or are predicted."""
    twice_K = counts_KxK.sum(1) + counts_KxK.sum(0)
    return float(np.mean(2 * np.diag(counts_KxK)[twice_K > 0] / twice_K[twice_K > 0]))
