"""Boxes: their overlap, the cells of a grid, and the suppression of those that predict the same object twice."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

CANDIDATES = 128
"""Boxes of an image, of the highest scores, that suppression compares."""

DETECTIONS = 32
"""Boxes of an image that are left at most."""

OVERLAP = 0.6
"""Intersection over union above which the lower of two boxes of a class is suppressed."""


class Detections(NamedTuple):
    """What is found in images, by falling score."""

    boxes: Array
    """x_min, y_min, x_max, y_max in pixels, float32 [N, D, 4]."""
    scores: Array
    """From 0 to 1, float32 [N, D]; 0 is padding."""
    classes: Array
    """int32 [N, D]."""


def area(boxes_Xx4: Array) -> Array:
    """Returns the areas [X] of boxes; 0 of empty ones."""
    return jnp.prod(jnp.maximum(boxes_Xx4[..., 2:] - boxes_Xx4[..., :2], 0), -1)


def overlap(a_Xx4: Array, b_Xx4: Array) -> tuple[Array, Array]:
    """Returns the intersection over union [X] of pairs of boxes, and its generalization, for distances.

    Source: H. Rezatofighi et al., Generalized Intersection over Union, arXiv:1902.09630, algorithm 1.
    """
    highest, lowest = jnp.maximum(a_Xx4, b_Xx4), jnp.minimum(a_Xx4, b_Xx4)
    shared = area(jnp.concatenate([highest[..., :2], lowest[..., 2:]], -1))
    hull = area(jnp.concatenate([lowest[..., :2], highest[..., 2:]], -1))
    union = area(a_Xx4) + area(b_Xx4) - shared
    iou = shared / jnp.maximum(union, 1e-9)
    return iou, iou - (hull - union) / jnp.maximum(hull, 1e-9)


def centres(rows: int, columns: int) -> Array:
    """Returns x and y of the centres of a grid's cells, as fractions of the image's sides, float32 [R, C, 2]."""
    y, x = ((jnp.arange(count) + 0.5) / count for count in (rows, columns))
    return jnp.stack(jnp.meshgrid(x, y), -1)


@partial(jax.jit, static_argnames=("candidates", "kept"))
def suppress(
    boxes_BxGx4: Array, scores_BxGxK: Array, *, candidates: int = CANDIDATES, kept: int = DETECTIONS
) -> Detections:
    """Returns the detections of images: of boxes of a class that overlap, the one with the highest score.

    Non-maximum suppression class by class, of fixed size: what is not filled has score 0.

    Args:
      boxes_BxGx4: in pixels.
      scores_BxGxK: of each class, from 0 to 1.
      candidates: boxes of an image that are compared.
      kept: boxes of an image that are returned.
    """
    classes = scores_BxGxK.shape[-1]
    candidates = min(candidates, scores_BxGxK[0].size)

    def one(boxes_Gx4, scores_GxK):
        scores_C, at_C = lax.top_k(scores_GxK.ravel(), candidates)
        boxes_Cx4, classes_C = boxes_Gx4[at_C // classes], at_C % classes
        iou_CxC, _ = overlap(boxes_Cx4[:, None], boxes_Cx4[None])
        # Whether a box, if it is kept, suppresses another that comes after it.
        suppresses_CxC = (iou_CxC > OVERLAP) & (classes_C[:, None] == classes_C)
        suppresses_CxC &= jnp.arange(candidates)[:, None] < jnp.arange(candidates)

        def next_box(c, kept_C):
            return kept_C & ~(suppresses_CxC[c] & kept_C[c])

        kept_C = lax.fori_loop(0, candidates, next_box, scores_C > 0)
        scores_D, order_D = lax.top_k(jnp.where(kept_C, scores_C, 0), min(kept, candidates))
        return Detections(boxes_Cx4[order_D], scores_D, classes_C[order_D].astype(jnp.int32))

    return jax.vmap(one)(boxes_BxGx4, scores_BxGxK)
