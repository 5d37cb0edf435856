"""What a detector finds in images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cnn.detection.boxes import Detections, suppress
from cnn.detection.loss import cell_scores
from cnn.errors import UserError
from cnn.training.state import Spec, TrainState
from cnn.training.steps import image_outputs
from cnn.training.task import check_images


@partial(jax.jit, static_argnames="batch_size")
def detect(state: TrainState, images: Array | np.ndarray, *, batch_size: int = 128) -> Detections:
    """Returns what a detector finds in uint8 images [N, H, W, C]: boxes in pixels [N, D, 4], scores and classes [N, D].

    Raises:
      UserError: the state is that of a classifier.
    """
    if state.spec.task.name != "detection":
        raise UserError(f"the network's task is {state.spec.task.name}; cnn.predict gives its probabilities")
    check_images(state.spec, images)
    return suppress(*pixel_boxes(image_outputs(state, images, batch_size), state.spec))


def pixel_boxes(outputs_BxRxCxO: Array, spec: Spec) -> tuple[Array, Array]:
    """Returns the boxes [B, G, 4] of all cells, in pixels and within the image, and their scores [B, G, K]."""
    boxes_BxGx4, scores_BxGxK = cell_scores(outputs_BxRxCxO)
    height, width, _ = spec.image_shape
    return jnp.clip(boxes_BxGx4, 0, 1) * jnp.array([width, height, width, height]), scores_BxGxK
