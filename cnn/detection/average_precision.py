"""Average precision as COCO defines it: detections matched to true boxes, merged exactly over batches. Only NumPy."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU from which a detection may match a true box, [T]; COCO's own bits, which np.arange does not give."""

RECALLS = np.linspace(0, 1, 101)
"""Levels of recall over which precision is averaged, [R]."""

AREAS = {"all": (0, 1e5**2), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}
"""Smallest and largest area by range, in pixels, both inclusive: a box of 32 x 32 is small and medium."""

MOST = 100
"""Detections of a class in an image that count, those of the highest scores."""

PARTS: dict[str, tuple[int | slice, int]] = {
    "": (slice(None), 0),
    "_50": (0, 0),
    "_75": (5, 0),
    "_small": (slice(None), 1),
    "_medium": (slice(None), 2),
    "_large": (slice(None), 3),
}
"""Thresholds and area range of each reported mean, by the end of its name."""


class Matches(NamedTuple):
    """F detections and the true boxes of some images, at T thresholds and in A area ranges.

    A detection that is neither a true nor a false positive is ignored: the box that it matches, or it itself if it
    matches none, is outside of the area range.
    """

    scores: np.ndarray
    """Scores of the detections, [F], in the order of images, classes and descending scores."""
    classes: np.ndarray
    """Classes of the detections, integers [F]."""
    true_positives: np.ndarray
    """Whether a detection matches a true box of its class, bool [F, T, A]."""
    false_positives: np.ndarray
    """Whether it matches none, bool [F, T, A]."""
    objects: np.ndarray
    """Number of true boxes by class and area range, int64 [K, A]."""


class AveragePrecision(NamedTuple):
    """Average precision, and the curves that it averages; NaN for a class without true boxes in the area range."""

    ap: np.ndarray
    """Average precision by threshold, class and area range, float64 [T, K, A]."""
    precision: np.ndarray
    """Highest precision at a recall of at least each level, by threshold and class, for all areas, [T, K, R]."""
    objects: np.ndarray
    """Number of true boxes by class and area range, int64 [K, A]."""


def match(detections: Any, truth_NxMx5: np.ndarray, classes: int) -> Matches:
    """Returns which detections match a true box, image by image and class by class.

    As COCO's evaluation does: T.-Y. Lin et al., arXiv:1405.0312. The detections of a class in an image, those with the
    100 highest scores, take one after the other the free true box with the highest IoU of at least the threshold; of
    boxes with equal IoU the last. A box outside of the area range is taken only if none inside of it can be, and is
    ignored with its detection. The area is that of the box; COCO's own files have that of the object's outline.

    Args:
      detections: ``boxes`` [N, D, 4], ``scores`` [N, D], 0 for padding, and ``classes`` [N, D] of N images.
      truth_NxMx5: true boxes and their class, -1 for padding.
      classes: number of classes.
    """
    truth_NxMx5 = np.asarray(truth_NxMx5, np.float64)
    image_F, detection_F = np.nonzero(np.asarray(detections.scores) > 0)
    group_F = image_F * classes + np.asarray(detections.classes)[image_F, detection_F]
    order, rank_F = rank(group_F, np.asarray(detections.scores)[image_F, detection_F])
    order, rank_F = order[rank_F < MOST], rank_F[rank_F < MOST]
    image_F, detection_F = image_F[order], detection_F[order]
    fields = detections.boxes, detections.scores, detections.classes
    boxes_Fx4, scores_F, classes_F = (np.asarray(field)[image_F, detection_F] for field in fields)

    labels_NxM, low_high_Ax2 = truth_NxMx5[..., 4], np.array(list(AREAS.values()))
    inside_NxAxM = _inside(truth_NxMx5[..., :4], low_high_Ax2).transpose(0, 2, 1) & (labels_NxM >= 0)[:, None]
    iou_FxM = iou(boxes_Fx4[:, None], truth_NxMx5[image_F, :, :4])
    iou_FxM[labels_NxM[image_F] != classes_F[:, None]] = 0
    matched_FxTxA = match_greedily(iou_FxM, image_F, rank_F, inside_NxAxM, THRESHOLDS)

    true_FxTxA = np.zeros(matched_FxTxA.shape, bool)
    detection, threshold, area = np.nonzero(matched_FxTxA >= 0)
    box = matched_FxTxA[detection, threshold, area]
    true_FxTxA[detection, threshold, area] = inside_NxAxM[image_F[detection], area, box]
    false_FxTxA = (matched_FxTxA < 0) & _inside(boxes_Fx4, low_high_Ax2)[:, None]
    labels = [labels_NxM[inside_NxM].astype(int) for inside_NxM in inside_NxAxM.swapaxes(0, 1)]
    objects_KxA = np.stack([np.bincount(inside, minlength=classes) for inside in labels], axis=1)
    return Matches(scores_F, classes_F, true_FxTxA, false_FxTxA, objects_KxA)


def merge(*parts: Matches) -> Matches:
    """Returns the matches of all images of the parts, whose images follow each other in the given order.

    They are those of ``match`` with all images at once, to the bit.
    """
    scores, classes, true, false, objects = zip(*parts, strict=True)
    return Matches(*map(np.concatenate, (scores, classes, true, false)), objects=np.sum(objects, axis=0))


def average_precision(matches: Matches) -> AveragePrecision:
    """Returns the average precision: the mean, over 101 levels of recall, of the highest precision at that recall.

    The interpolated average precision of M. Everingham et al., doi:10.1007/s11263-009-0275-4, section 4.2, at the
    levels and thresholds of COCO, arXiv:1405.0312. Detections with equal scores are in the order of their images.
    """
    kinds, classes = matches.true_positives.shape[1:], len(matches.objects)
    precision_TxKxAxR = np.full((kinds[0], classes, kinds[1], len(RECALLS)), np.nan)
    for label in range(classes):
        order = np.flatnonzero(matches.classes == label)
        order = order[np.argsort(-matches.scores[order], kind="stable")]
        true_FxTxA = np.cumsum(matches.true_positives[order], axis=0)
        false_FxTxA = np.cumsum(matches.false_positives[order], axis=0)
        # Before the first detection that is not ignored, both counts are 0.
        precision_FxTxA = true_FxTxA / np.maximum(true_FxTxA + false_FxTxA, 1)
        highest_FxTxA = np.maximum.accumulate(precision_FxTxA[::-1])[::-1]
        for threshold, area in np.ndindex(kinds):
            if objects := matches.objects[label, area]:
                first_R = np.searchsorted(true_FxTxA[:, threshold, area] / objects, RECALLS)
                reached = np.append(highest_FxTxA[:, threshold, area], 0)
                precision_TxKxAxR[threshold, label, area] = reached[first_R]
    return AveragePrecision(precision_TxKxAxR.mean(-1), precision_TxKxAxR[:, :, 0], matches.objects)


def summary(average: AveragePrecision) -> dict[str, float | None]:
    """Returns the means over classes with true boxes: map (over all IoU), map_50, map_75, map_small, ...; else None."""
    return {f"map{end}": _mean(average.ap[threshold, :, area]) for end, (threshold, area) in PARTS.items()}


def class_summary(average: AveragePrecision, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Returns the same means for each class, by its name: ap, ap_50, ap_75, ap_small, ap_medium, ap_large."""
    return {
        name: {f"ap{end}": _mean(average.ap[threshold, label, area]) for end, (threshold, area) in PARTS.items()}
        for label, name in enumerate(names)
    }


def rank(group_F: np.ndarray, scores_F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns detections in the order of groups and descending scores, and their places in their group from 0 on."""
    order = np.lexsort((-scores_F, group_F))
    return order, np.arange(len(order)) - np.searchsorted(group_F[order], group_F[order])


def iou(boxes_Xx4: np.ndarray, others_Xx4: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of pairs of boxes, float64 [X]; 0 for boxes without area."""
    boxes_Xx4, others_Xx4 = np.asarray(boxes_Xx4, np.float64), np.asarray(others_Xx4, np.float64)
    low_Xx2 = np.maximum(boxes_Xx4[..., :2], others_Xx4[..., :2])
    sides_Xx2 = np.minimum(boxes_Xx4[..., 2:], others_Xx4[..., 2:]) - low_Xx2
    shared_X = np.where((sides_Xx2 > 0).all(-1), sides_Xx2.prod(-1), 0)
    union_X = _area(boxes_Xx4) + _area(others_Xx4) - shared_X
    return np.divide(shared_X, union_X, out=np.zeros(union_X.shape), where=shared_X > 0)


def match_greedily(
    iou_FxM: np.ndarray, image_F: np.ndarray, rank_F: np.ndarray, preferred_NxAxM: np.ndarray, thresholds_T: np.ndarray
) -> np.ndarray:
    """Returns the index of the true box that each detection matches, -1 for none, int64 [F, T, A].

    Detections choose in the order of their rank. Two of the same image and rank must not overlap the same true box.

    Args:
      iou_FxM: of each detection with each true box of its image.
      image_F: index of each detection's image.
      rank_F: place of each detection.
      preferred_NxAxM: true boxes of an image that are chosen before all others.
      thresholds_T: least IoU of a match, above 0.
    """
    kinds, boxes = (len(thresholds_T), preferred_NxAxM.shape[1]), iou_FxM.shape[1]
    matched_FxTxA = np.full((len(iou_FxM), *kinds), -1)
    free_NxTxAxM = np.ones((len(preferred_NxAxM), *kinds, boxes), bool)
    # The place of each IoU in ascending order: unlike the IoU itself, it has no ties, of which COCO takes the last.
    place_FxM = np.argsort(np.argsort(iou_FxM, axis=1, kind="stable"), axis=1)
    candidates = np.flatnonzero((iou_FxM >= thresholds_T.min()).any(1))
    for place in np.unique(rank_F[candidates]):
        rows = candidates[rank_F[candidates] == place]
        preference_XxAxM = place_FxM[rows][:, None] + boxes * preferred_NxAxM[image_F[rows]]
        open_XxTxAxM = free_NxTxAxM[image_F[rows]] & (iou_FxM[rows][:, None] >= thresholds_T[:, None])[:, :, None]
        best_XxTxA = np.where(open_XxTxAxM, preference_XxAxM[:, None], -1).argmax(-1)
        row, threshold, area = np.nonzero(open_XxTxAxM.any(-1))
        box = best_XxTxA[row, threshold, area]
        matched_FxTxA[rows[row], threshold, area] = box
        free_NxTxAxM[image_F[rows[row]], threshold, area, box] = False
    return matched_FxTxA


def _area(boxes_Xx4: np.ndarray) -> np.ndarray:
    return (boxes_Xx4[..., 2] - boxes_Xx4[..., 0]) * (boxes_Xx4[..., 3] - boxes_Xx4[..., 1])


def _inside(boxes_Xx4: np.ndarray, low_high_Ax2: np.ndarray) -> np.ndarray:
    """Whether the area of each box is in each range, bool [X, A]."""
    area_Xx1 = _area(np.asarray(boxes_Xx4, np.float64))[..., None]
    return (low_high_Ax2[:, 0] <= area_Xx1) & (area_Xx1 <= low_high_Ax2[:, 1])


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None
