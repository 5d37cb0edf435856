"""What a detector finds, as nodes of an ONNX graph: every cell's box, and the suppression of those that overlap."""

import numpy as np

from cnn.detection.boxes import CANDIDATES, DETECTIONS, OVERLAP
from cnn.exchange.onnx_layers import Add, Output, Value, array
from cnn.training.state import Spec

INT32 = 6
"""``onnx.TensorProto.INT32``, without the package."""


def every_cell(add: Add, outputs: Value, spec: Spec) -> dict[str, Output]:
    """Adds the nodes of ``cnn.training.detecting.pixel_boxes``: ``boxes`` [B, G, 4] and ``scores`` [B, G, K]."""
    _, rows, columns, channels = outputs.shape
    height, width, _ = spec.image_shape
    cells, size = rows * columns, np.array([width, height, width, height], np.float32)
    channels_first = add("Reshape", outputs.name, array(0, channels, cells))
    x_BxGxO = add("Transpose", channels_first, perm=(0, 2, 1))
    boxes, objectness, logits = (
        add("Slice", x_BxGxO, array(start), array(end), array(2)) for start, end in ((0, 4), (4, 5), (5, channels))
    )
    within = add("Min", add("Max", boxes, np.float32(0)), np.float32(1))
    scores = add("Mul", add("Sigmoid", objectness), add("Softmax", logits, axis=2))
    return {
        "boxes": Output(add("Mul", within, size), ("batch", cells, 4)),
        "scores": Output(scores, ("batch", cells, channels - 5)),
    }


def detections(add: Add, outputs: Value, spec: Spec) -> dict[str, Output]:
    """Adds the nodes of ``cnn.detect``: ``boxes`` [B, D, 4], ``scores`` and ``classes`` [B, D]."""
    boxes, scores = every_cell(add, outputs, spec).values()
    return suppressed(add, boxes, scores)


def suppressed(add: Add, boxes: Output, scores: Output) -> dict[str, Output]:
    """Adds the nodes of ``cnn.detection.boxes.suppress``, in which equal scores remain in order, as here.

    Args:
      add: adds a node.
      boxes: [B, G, 4] in pixels.
      scores: [B, G, K].
    """
    _, cells, classes = scores.shape
    candidates = min(CANDIDATES, cells * classes)
    kept = min(DETECTIONS, candidates)
    scores_BxC, at_BxC = _highest(add, add("Reshape", scores.name, array(0, -1)), candidates)
    classes_BxC = add("Mod", at_BxC, np.int64(classes))
    boxes_BxCx4 = _boxes_at(add, boxes.name, add("Div", at_BxC, np.int64(classes)), candidates)
    # The operator wants a row of scores for each class; below its threshold where a candidate is of another one.
    classes_Bx1xC, scores_Bx1xC = (add("Reshape", name, array(0, 1, candidates)) for name in (classes_BxC, scores_BxC))
    scores_BxKxC = add("Where", add("Equal", classes_Bx1xC, np.arange(classes)[:, None]), scores_Bx1xC, np.float32(-1))
    limits = array(kept), np.array([OVERLAP], np.float32), np.array([0], np.float32)
    # Of image, class and candidate: a row for each that is kept.
    selected_Sx3 = add("NonMaxSuppression", boxes_BxCx4, scores_BxKxC, *limits)
    at_Sx2 = add("Gather", selected_Sx3, array(0, 2), axis=1)
    zeros_BxC, kept_S = add("Mul", scores_BxC, np.float32(0)), add("GatherND", scores_BxC, at_Sx2)
    scores_BxD, order_BxD = _highest(add, add("ScatterND", zeros_BxC, at_Sx2, kept_S), kept)
    classes_BxD = add("Cast", add("GatherElements", classes_BxC, order_BxD, axis=1), to=INT32)
    return {
        "boxes": Output(_boxes_at(add, boxes_BxCx4, order_BxD, kept), ("batch", kept, 4)),
        "scores": Output(scores_BxD, ("batch", kept)),
        "classes": Output(classes_BxD, ("batch", kept), "INT32"),
    }


def _highest(add: Add, values_BxX: str, count: int) -> tuple[str, str]:
    """The highest values of each image, [B, count], and where they are."""
    values = add("TopK", values_BxX, array(count), axis=1)
    return values, f"{values}:1"


def _boxes_at(add: Add, boxes_BxXx4: str, at_BxC: str, count: int) -> str:
    """The boxes [B, count, 4] at these places of each image."""
    indices = add("Tile", add("Reshape", at_BxC, array(0, count, 1)), array(1, 1, 4))
    return add("GatherElements", boxes_BxXx4, indices, axis=1)
