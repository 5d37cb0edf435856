"""The loss of a detector: which cells are assigned to which object, and how far off they are."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cnn.detection.boxes import centres, overlap

BOX_WEIGHT = 2.0
"""Of the box overlap beside objectness and class."""


class Assigned(NamedTuple):
    """What the cells of a grid should predict."""

    is_object: Array
    """Whether a cell is assigned to an object, bool [B, R, C]."""
    boxes: Array
    """Of its object, float32 [B, R, C, 4]."""
    classes: Array
    """Of its object, int32 [B, R, C]."""
    objects: Array
    """Which of the M objects it is, bool [B, R, C, M]."""
    exists: Array
    """Which of them are not padding, bool [B, M]."""


def assign(outputs_BxRxCxO: Array, labels_BxMx5: Array) -> Assigned:
    """Returns what the cells of a grid should predict: those nearer than a cell to its centre belong to an object.

    These are four of them, or fewer at the border. A cell that is near to several objects is assigned to the nearest.

    Args:
      outputs_BxRxCxO: of a detector, whose cells these are.
      labels_BxMx5: boxes as fractions of the image's sides, and class; class -1 is padding.
    """
    rows, columns = outputs_BxRxCxO.shape[1:3]
    centre_BxMx2 = (labels_BxMx5[..., :2] + labels_BxMx5[..., 2:4]) / 2
    between = jnp.abs(centres(rows, columns)[:, :, None] - centre_BxMx2[:, None, None]) * jnp.array([columns, rows])
    exists_BxM = labels_BxMx5[..., 4] >= 0
    is_near_BxRxCxM = (between < 1).all(-1) & exists_BxM[:, None, None]
    distance_BxRxCxM = jnp.where(is_near_BxRxCxM, jnp.square(between).sum(-1), jnp.inf)
    # As a product: a gather of few columns is slow.
    nearest_BxRxCxM = jax.nn.one_hot(jnp.argmin(distance_BxRxCxM, -1), labels_BxMx5.shape[1])
    labels_BxRxCx5 = (nearest_BxRxCxM[..., None] * labels_BxMx5[:, None, None]).sum(-2)
    return Assigned(
        is_object=is_near_BxRxCxM.any(-1),
        boxes=labels_BxRxCx5[..., :4],
        classes=labels_BxRxCx5[..., 4].astype(jnp.int32),
        objects=is_near_BxRxCxM & (nearest_BxRxCxM > 0),
        exists=exists_BxM,
    )


def detection_losses(outputs_BxRxCxO: Array, assigned: Assigned) -> Array:
    """Returns the losses [B] of images, each the sum over its cells.

    J. Redmon et al., arXiv:1506.02640, section 2.2, in its three parts, with today's terms: the generalized overlap of
    the boxes; the cross-entropies of the class, and of the objectness, whose target is the overlap that was reached, as
    a box is worth what it covers; 0 for a cell without object.

    Args:
      outputs_BxRxCxO: box, objectness logit and class logits, O = 5 + K, of each cell.
      assigned: what they should predict.
    """
    boxes, objectness, logits = (outputs_BxRxCxO[..., a:b] for a, b in ((0, 4), (4, 5), (5, None)))
    iou, generalized = overlap(boxes, assigned.boxes)
    reached = jnp.where(assigned.is_object, jax.lax.stop_gradient(iou), 0)
    classes = optax.softmax_cross_entropy(logits, jax.nn.one_hot(assigned.classes, logits.shape[-1]))
    of_objects = jnp.where(assigned.is_object, BOX_WEIGHT * (1 - generalized) + classes, 0)
    return (of_objects + optax.sigmoid_binary_cross_entropy(objectness[..., 0], reached)).sum((1, 2))


def is_right(outputs_BxRxCxO: Array, assigned: Assigned) -> Array:
    """Returns whether a detector makes no mistake in an image, bool [B].

    Of the cells with an objectness of at least one half, each is assigned to an object, predicts its class and covers
    it by half at least; and each object has such a cell.
    """
    iou, _ = overlap(outputs_BxRxCxO[..., :4], assigned.boxes)
    is_class = jnp.argmax(outputs_BxRxCxO[..., 5:], -1) == assigned.classes
    is_sure = outputs_BxRxCxO[..., 4] >= 0
    is_hit = is_sure & assigned.is_object & is_class & (iou >= 0.5)
    found_BxM = (is_hit[..., None] & assigned.objects).any((1, 2))
    return (is_hit | ~is_sure).all((1, 2)) & (found_BxM | ~assigned.exists).all(1)


def cell_scores(outputs_BxRxCxO: Array) -> tuple[Array, Array]:
    """Returns the boxes [B, G, 4] of all cells, and their objectness times the probability of each class, [B, G, K]."""
    batch, rows, columns, channels = outputs_BxRxCxO.shape
    outputs = outputs_BxRxCxO.reshape(batch, rows * columns, channels)
    return outputs[..., :4], jax.nn.sigmoid(outputs[..., 4:5]) * jax.nn.softmax(outputs[..., 5:])
