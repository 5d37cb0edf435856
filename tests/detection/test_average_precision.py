"""Average precision against pycocotools, COCO's own program, and against what is known by hand."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cnn.detection import average_precision as ap
from tests.detection.boxes import Detections, random_scenes, scene


def coco(detections, truth, classes):
    """AP [T, K, A], precision [T, K, R] and mAPs of pycocotools, to which an annotation with the id 0 is missed."""

    def annotations(boxes, labels, real, scores):
        found = []
        for image, row in np.argwhere(real).tolist():
            x_min, y_min, x_max, y_max = boxes[image, row].astype(float).tolist()
            box = [x_min, y_min, x_max - x_min, y_max - y_min]
            one = {"id": len(found) + 1, "image_id": image + 1, "category_id": int(labels[image, row]) + 1}
            found.append(one | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "score": float(scores[image, row])})
        return found

    def index(boxes, labels, real, scores):
        data: Any = COCO()
        data.dataset = {
            "images": [{"id": image + 1} for image in range(len(boxes))],
            "categories": [{"id": label + 1} for label in range(classes)],
            "annotations": annotations(boxes, labels, real, scores),
        }
        data.createIndex()
        return data

    with contextlib.redirect_stdout(io.StringIO()):
        true = index(truth[..., :4], truth[..., 4], truth[..., 4] >= 0, truth[..., 4])
        detected = index(detections.boxes, detections.classes, detections.scores > 0, detections.scores)
        evaluation = COCOeval(true, detected, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][..., -1].transpose(0, 2, 3, 1)
    precision = np.where(precision < 0, np.nan, precision)
    return precision.mean(-1), precision[:, :, 0], evaluation.stats[:6]


def check(detections, truth, classes):
    """Compares with pycocotools, and returns the average precision."""
    average = ap.average_precision(ap.match(detections, truth, classes))
    expected, curves, stats = coco(detections, truth, classes)
    np.testing.assert_allclose(average.ap, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(average.precision, curves, rtol=0, atol=1e-6)
    means = [-1 if mean is None else mean for mean in ap.summary(average).values()]
    np.testing.assert_allclose(means, stats, rtol=0, atol=1e-6)
    return average


@pytest.mark.parametrize("seed", range(12))
def test_random_boxes_have_the_average_precision_of_coco(seed):
    average = check(*random_scenes(seed), 3)
    # Neither all right nor all wrong, so that the order of the detections counts.
    assert 0.01 < np.nanmean(average.ap) < 0.9


@pytest.mark.parametrize("seed", range(12))
def test_integer_boxes_with_ties_of_iou_and_score_have_the_average_precision_of_coco(seed):
    check(*random_scenes(seed, width=8, depth=16, classes=2, size=6, cell=16), 2)


@pytest.mark.parametrize("seed", range(3))
def test_crowds_of_more_than_100_detections_have_the_average_precision_of_coco(seed):
    detections, truth = random_scenes(seed, images=2, depth=300, width=60, classes=2)
    assert np.sum(detections.classes[0] == 0) > 110
    check(detections, truth, 2)


def test_detections_after_the_hundredth_of_a_class_do_not_count():
    wrong, right = [((200, 0, 220, 20), 0.9, 0)], [((0, 0, 20, 20), 0.1, 0)]
    other = [((200, 0, 220, 20), 0.95, 1)]
    for count, expected in (99, 0.01), (100, 0):
        average = check(*scene([(0, 0, 20, 20, 0), (50, 50, 90, 90, 1)], wrong * count + other + right), 2)
        np.testing.assert_allclose(average.ap[:, 0, 0], expected)


def test_one_of_two_found_and_all_found():
    true = [(0, 0, 20, 20, 0), (50, 50, 90, 90, 0)]
    one, two = ((0, 0, 20, 20), 0.8, 0), ((50, 50, 90, 90), 0.3, 0)
    half = check(*scene(true, [one]), 1)
    # Recall 0 to 0.5 in steps of 0.01.
    np.testing.assert_allclose(half.ap[:, 0, 0], 51 / 101)
    np.testing.assert_allclose(half.precision[:, 0], [[1.0] * 51 + [0.0] * 50] * 10)
    means = {"map": 1.0, "map_50": 1.0, "map_75": 1.0, "map_small": 1.0, "map_medium": 1.0, "map_large": None}
    assert ap.summary(check(*scene(true, [one, two]), 1)) == means


def test_a_second_detection_of_a_box_is_false():
    box = (0, 0, 20, 20)
    matches = ap.match(*scene([(*box, 0)], [(box, 0.9, 0), (box, 0.8, 0)]), 1)
    np.testing.assert_array_equal(matches.true_positives[:, 0, 0], [True, False])
    np.testing.assert_array_equal(matches.false_positives[:, 0, 0], [False, True])


def test_of_two_boxes_with_equal_iou_the_last_is_matched():
    true = [(0, 0, 10, 10, 0), (0, 4, 10, 14, 0)]
    # The first detection lies between both; the second can only match the last one.
    average = check(*scene(true, [((0, 2, 10, 12), 0.9, 0), ((0, 6, 10, 16), 0.8, 0)]), 1)
    assert average.ap[0, 0, 0] == pytest.approx(51 / 101)


@pytest.mark.parametrize("percent", range(50, 100, 5))
def test_an_iou_exactly_at_a_threshold_is_a_match(percent):
    average = check(*scene([(0, 0, 100, 8, 0)], [((0, 0, percent, 8), 0.9, 0)]), 1)
    assert average.ap[:, 0, 0].tolist() == [threshold <= percent for threshold in range(50, 100, 5)]


def test_areas_at_the_limits_are_in_both_ranges():
    sides = [(32, 32), (16, 64), (96, 96), (31, 33), (48, 192), (97, 95)]
    true = [(300 * place, 0, 300 * place + w, h, 0) for place, (w, h) in enumerate(sides)]
    detected = [((*box[:3], box[3] - 1), 0.9 - 0.1 * place, 0) for place, box in enumerate(true)]
    average = check(*scene(true, detected), 1)
    assert average.objects.tolist() == [[6, 3, 5, 2]]


def test_boxes_outside_of_the_range_are_matched_last_and_ignored():
    # The detection overlaps the medium box more; for the range of small boxes it takes the small one.
    true = [(0, 0, 32, 33, 0), (0, 0, 30, 32, 0)]
    average = check(*scene(true, [((0, 0, 32, 33), 0.9, 0)]), 1)
    assert average.ap[0, 0].tolist() == pytest.approx([51 / 101, 1, 1, np.nan], nan_ok=True)
    ignored = ap.match(*scene(true[:1], [((0, 0, 32, 33), 0.9, 0)]), 1)
    assert not ignored.true_positives[0, 0, 1] and not ignored.false_positives[0, 0, 1]


def test_scenes_without_boxes_detections_or_both():
    detections, truth = random_scenes(1, images=6)
    truth[:2, :, 4] = -1
    detections.scores[1:4] = 0
    check(detections, truth, 3)
    truth[..., 4] = -1
    average = check(detections, truth, 3)
    assert np.isnan(average.ap).all() and set(ap.summary(average).values()) == {None}
    for empty in scene([], []), scene([], [((0, 0, 9, 9), 0.5, 0)]), scene([(0, 0, 9, 9, 0)], []):
        check(*empty, 2)


def test_a_class_without_true_boxes_is_left_out_of_the_mean_and_none_by_class():
    true, wrong = [(0, 0, 20, 20, 1)], ((50, 50, 90, 90), 0.9, 0)
    average = check(*scene(true, [((0, 0, 20, 20), 0.8, 1), wrong]), 2)
    assert ap.summary(average)["map"] == 1
    values = ap.class_summary(average, ["bag", "shirt"])
    assert values["bag"] == dict.fromkeys(("ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large"))
    assert values["shirt"] == values["bag"] | {"ap": 1.0, "ap_50": 1.0, "ap_75": 1.0, "ap_small": 1.0}


def test_rows_of_padding_lie_anywhere_and_may_hold_anything():
    detections, truth = random_scenes(2)
    truth[..., :4][truth[..., 4] < 0] = np.nan
    detections.boxes[::2, 3] = np.nan
    detections.scores[::2, 3] = 0
    check(detections, truth, 3)


@settings(max_examples=25)
@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 8), max_size=4))
def test_matches_of_batches_merge_to_those_of_all_images(seed, cuts):
    detections, truth = random_scenes(seed, depth=6)
    ends = [0, *sorted(cuts), 8]
    parts = [
        ap.match(Detections(*(field[start:end] for field in detections)), truth[start:end], 3)
        for start, end in zip(ends, ends[1:], strict=False)
    ]
    merged, whole = ap.merge(*parts), ap.match(detections, truth, 3)
    results = [(*matches, *ap.average_precision(matches)) for matches in (merged, whole)]
    for part, expected in zip(*results, strict=True):
        assert part.dtype == expected.dtype
        np.testing.assert_array_equal(part, expected)
