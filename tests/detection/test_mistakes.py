"""What is confused, missed and seen where nothing is: known answers, sums, and agreement with the matches."""

import numpy as np
import pytest

from cnn.detection import average_precision, mistakes
from tests.detection.boxes import random_scenes, scene

TRUE = [(0, 0, 20, 20, 0), (40, 40, 60, 60, 1), (80, 0, 90, 10, 1), (0, 60, 30, 90, 0)]
FOUND = [
    ((0, 0, 20, 20), 0.75, 0),
    ((40, 40, 60, 58), 0.5, 0),
    ((40, 40, 60, 60), 0.25, 1),
    ((70, 70, 80, 80), 0.375, 1),
]


def test_confused_missed_and_detected_where_nothing_is():
    confusion = mistakes.confusion(*scene(TRUE, FOUND), 2, 0.25)
    # The detection with the higher score takes the box of another class, which leaves none to that of its class.
    assert confusion.counts.tolist() == [[1, 0, 1], [1, 0, 1], [0, 2, 0]]
    assert confusion.missed.tolist() == [[0, 3], [0, 2]]
    assert confusion.background.tolist() == [[0, 3], [0, 2]]


def test_detections_below_the_score_do_not_count():
    confusion = mistakes.confusion(*scene(TRUE, FOUND), 2, 0.75)
    assert confusion.counts.tolist() == [[1, 0, 1], [0, 0, 2], [0, 0, 0]]
    assert confusion.background.shape == (0, 2)


@pytest.mark.parametrize(("width", "on"), [(10, True), (9.99, False)])
def test_an_iou_of_half_is_on_the_box(width, on):
    confusion = mistakes.confusion(*scene(TRUE[:1], [((0, 0, width, 20), 0.9, 0)]), 2, 0.5)
    assert confusion.counts.tolist() == [[on, 0, not on], [0, 0, 0], [not on, 0, 0]]


def test_each_true_box_and_each_detection_is_counted_once():
    detections, truth = random_scenes(3)
    confusion = mistakes.confusion(detections, truth, 3, 0.5)
    labels = truth[..., 4].astype(int)
    counted = detections.scores >= 0.5
    assert confusion.counts[:3].sum(1).tolist() == np.bincount(labels[labels >= 0], minlength=3).tolist()
    assert confusion.counts[:, :3].sum(0).tolist() == np.bincount(detections.classes[counted], minlength=3).tolist()
    missed, background = confusion.missed.T, confusion.background.T
    assert confusion.counts[:3, 3].tolist() == np.bincount(labels[tuple(missed)], minlength=3).tolist()
    in_background = np.bincount(detections.classes[tuple(background)], minlength=3)
    assert confusion.counts[3, :3].tolist() == in_background.tolist() and confusion.counts[3, 3] == 0
    assert np.all(np.diff(detections.scores[tuple(background)]) <= 0)
    areas = np.prod(truth[..., 2:4] - truth[..., :2], axis=-1)[tuple(missed)]
    assert len(areas) > 3 and np.all(np.diff(areas) <= 0)


def test_with_one_class_it_agrees_with_the_matches_of_average_precision():
    detections, truth = random_scenes(4, classes=1)
    matches = average_precision.match(detections, truth, 1)
    true, false = (int(kind[:, 0, 0].sum()) for kind in (matches.true_positives, matches.false_positives))
    expected = [[true, matches.objects[0, 0] - true], [false, 0]]
    assert mistakes.confusion(detections, truth, 1, 0.0).counts.tolist() == expected


@pytest.mark.parametrize(("true", "found"), [([], []), (TRUE, []), ([], FOUND)])
def test_scenes_without_boxes_or_detections(true, found):
    confusion = mistakes.confusion(*scene(true, found), 2, 0.0)
    assert confusion.counts.sum() == len(confusion.missed) + len(confusion.background) == len(true) + len(found)
    assert mistakes.best_score(average_precision.match(*scene(true, found), 2)) == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_the_best_score_has_the_highest_f1_of_all_scores(seed):
    detections, truth = random_scenes(seed)

    def f1(score):
        kept = detections._replace(scores=np.where(detections.scores >= score, detections.scores, 0))
        matches = average_precision.match(kept, truth, 3)
        return 2 * matches.true_positives[:, 0, 0].sum() / (len(matches.scores) + matches.objects[:, 0].sum())

    values = {float(score): f1(score) for score in np.unique(detections.scores[detections.scores > 0])}
    best = mistakes.best_score(average_precision.match(detections, truth, 3))
    assert best == max(score for score, value in values.items() if value == max(values.values()))
    assert min(values) < best < max(values)


def test_detections_with_equal_scores_are_above_the_best_score_together():
    wrong = [((200, 0, 220, 20), 0.5, 1)] * 3
    matches = average_precision.match(*scene(TRUE[:2], [FOUND[0], (TRUE[1][:4], 0.5, 1), *wrong]), 2)
    # F1 is 2 / 3 at 0.75 and 4 / 7 at 0.5, but would be 1 without the wrong ones.
    assert mistakes.best_score(matches) == 0.75
