"""What a detector confuses, misses and sees where nothing is, at an IoU of at least 0.5. Only NumPy."""

from typing import Any, NamedTuple

import numpy as np

from cnn.detection.average_precision import THRESHOLDS, Matches, iou, match_greedily, rank


class Confusion(NamedTuple):
    """Detections compared with true boxes; K classes, and one more index for the background."""

    counts: np.ndarray
    """Number of boxes of each true class (row) detected as each class (column), int64 [K + 1, K + 1].

    The last row counts the detections where nothing is, the last column the missed boxes.
    """
    missed: np.ndarray
    """Image and row in the truth of each missed box, int64 [X, 2], the largest first."""
    background: np.ndarray
    """Image and index of each detection that is on no true box, int64 [X, 2], the highest score first."""


def confusion(detections: Any, truth_NxMx5: np.ndarray, classes: int, score: float) -> Confusion:
    """Returns the classes as which true boxes are detected, the boxes that are missed, and detections on no box.

    The detections of an image take, the highest score first, the free true box with the highest IoU of at least 0.5,
    whatever its class. Counts of several batches may be added.

    Args:
      detections: ``boxes`` [N, D, 4], ``scores`` [N, D], 0 for padding, and ``classes`` [N, D] of N images.
      truth_NxMx5: true boxes and their class, -1 for padding.
      classes: number of classes, K.
      score: least score of a detection that counts.
    """
    fields = detections.boxes, detections.scores, detections.classes
    boxes_NxDx4, scores_NxD, classes_NxD = map(np.asarray, fields)
    truth_NxMx5 = np.asarray(truth_NxMx5)
    labels_NxM = truth_NxMx5[..., 4].astype(int)
    image_F, detection_F = np.nonzero((scores_NxD > 0) & (scores_NxD >= score))
    order, rank_F = rank(image_F, scores_NxD[image_F, detection_F])
    image_F, detection_F = image_F[order], detection_F[order]
    iou_FxM = iou(boxes_NxDx4[image_F, detection_F][:, None], truth_NxMx5[image_F, :, :4])
    iou_FxM[labels_NxM[image_F] < 0] = 0
    matched_F = match_greedily(iou_FxM, image_F, rank_F, np.ones_like(labels_NxM, bool)[:, None], THRESHOLDS[:1])[
        :, 0, 0
    ]

    on = matched_F >= 0
    missed_NxM = labels_NxM >= 0
    missed_NxM[image_F[on], matched_F[on]] = False
    detected_F = classes_NxD[image_F, detection_F]
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(counts, (labels_NxM[image_F[on], matched_F[on]], detected_F[on]), 1)
    counts[-1, :-1] = np.bincount(detected_F[~on], minlength=classes)
    counts[:-1, -1] = np.bincount(labels_NxM[missed_NxM], minlength=classes)

    missed, background = np.argwhere(missed_NxM), np.stack([image_F, detection_F], axis=1)[~on]
    sides_NxMx2 = truth_NxMx5[..., 2:4] - truth_NxMx5[..., :2]
    largest = np.argsort(-sides_NxMx2[missed_NxM].prod(-1), kind="stable")
    highest = np.argsort(-scores_NxD[tuple(background.T)], kind="stable")
    return Confusion(counts, missed[largest], background[highest])


def best_score(matches: Matches) -> float:
    """Returns the least score with which detections have the highest F1 at an IoU of 0.5, over all classes.

    F1 is 2 TP / (2 TP + FP + FN). Of equal values the highest score; 0.5 if no detection matches a true box.
    """
    order = np.argsort(-matches.scores, kind="stable")
    scores_F = matches.scores[order]
    true_F = np.cumsum(matches.true_positives[order, 0, 0])
    false_F = np.cumsum(matches.false_positives[order, 0, 0])
    f1_F = 2 * true_F / np.maximum(true_F + false_F + matches.objects[:, 0].sum(), 1)
    # Detections of equal scores are above or below a threshold together: their last one has the counts of all.
    f1_F[np.flatnonzero(scores_F[1:] == scores_F[:-1])] = 0
    return float(scores_F[f1_F.argmax()]) if f1_F.any() else 0.5
