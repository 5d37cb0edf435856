"""How a recurrent network reads an image: its hidden state, and how sure it is, after each row."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from cnn.look.features import feature_maps
from cnn.text import shortened
from cnn.training.state import TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def read_rows(state: TrainState, images_BxHxWxC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the hidden states after each row [B, H, F], and the class probabilities if it were the last [B, H, K].

    Args:
      state: of a network of the family ``recurrent``.
      images_BxHxWxC: uint8.
    """
    hidden_BxHxF = feature_maps(state, images_BxHxWxC)["recurrent"]
    head = state.eval_state.params["logits"]
    probabilities_BxHxK = jax.nn.softmax(hidden_BxHxF @ head["kernel"] + head["bias"])
    return np.asarray(hidden_BxHxF), np.asarray(probabilities_BxHxK)


def reading_figure(state: TrainState, image_HxWxC: np.ndarray, names: Sequence[str], subject: str) -> "Figure":
    """Draws the hidden states and the probabilities of the likeliest classes after each row, beside the image."""
    from cnn.figures.recurrent_plots import reading

    hidden_1xHxF, probabilities_1xHxK = read_rows(state, image_HxWxC[None])
    last_K = probabilities_1xHxK[0, -1]
    title = f"{subject}, row by row: {shortened(names[int(last_K.argmax())], 40)}, probability {last_K.max():.3f}"
    return reading(image_HxWxC, hidden_1xHxF[0], probabilities_1xHxK[0], names, title)
