"""Detections in COCO's result format: T.-Y. Lin et al., arXiv:1405.0312, and cocodataset.org/#format-results."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def coco_results(
    detections: Any, image_ids: Sequence[int | str], category_ids: Sequence[int], threshold: float = 0.0
) -> list[dict[str, Any]]:
    """Returns an object for each detection, as JSON has them: image_id, category_id, bbox and score.

    The bbox is [x, y, width, height] in pixels, x and y those of the upper left corner, 0 at the image's edge, rounded
    to 3 decimal places; no side is below 0. The score is rounded to 6.

    Args:
      detections: ``boxes`` [N, D, 4], x_min, y_min, x_max and y_max in pixels of the image that the id names,
        ``scores`` [N, D], 0 for padding, and ``classes`` [N, D].
      image_ids: of the N images, as Python objects; COCO's own program needs integers.
      category_ids: by class; those of COCO start from 1.
      threshold: minimum score of a detection that is returned.

    Raises:
      ValueError: the number of images and of their ids differ, a class has no id, or a number is not finite.
    """
    boxes, scores, classes = map(np.asarray, (detections.boxes, detections.scores, detections.classes))
    if len(image_ids) != len(scores):
        raise ValueError(f"image_ids must be those of {len(scores)} images, not of {len(image_ids)}")
    real = (scores > 0) & (scores >= threshold)
    if not (np.isfinite(boxes[real]).all() and np.isfinite(scores).all()):
        raise ValueError("boxes and scores must be finite, as JSON has no other numbers")
    if (wrong := classes[real][(classes[real] < 0) | (classes[real] >= len(category_ids))]).size:
        raise ValueError(f"category_ids has {len(category_ids)} ids, but must have one for class {wrong[0]}")
    # In float64, so that the rounded numbers are as short as they can be.
    corners = boxes.astype(np.float64)
    sides = np.maximum(corners[..., 2:] - corners[..., :2], 0)
    return [
        {
            "image_id": image_ids[image],
            "category_id": category_ids[classes[image, index]],
            "bbox": [round(value, 3) for value in (*corners[image, index, :2].tolist(), *sides[image, index].tolist())],
            "score": round(float(scores[image, index]), 6),
        }
        for image, index in np.argwhere(real).tolist()
    ]
