"""Detections in COCO's format are those that COCO's own program reads."""

import contextlib
import io
import json
from typing import Any, NamedTuple

import numpy as np
import pytest
from pycocotools.coco import COCO

from cnn.exchange.coco import coco_results


class Detections(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


DETECTIONS = Detections(
    np.array([[[10.1, 20, 30.35, 60.5], [0, 0, 96, 96]], [[0, 0, 0, 0]] * 2, [[5, 5, 4, 9], [1, 1, 2, 2]]], np.float32),
    np.array([[0.9, 0.3], [0, 0], [0.25, 0]], np.float32),
    np.array([[1, 0], [0, 0], [2, 0]], np.int32),
)


def test_a_detection_has_the_ids_of_its_image_and_category_and_its_corner_and_sides():
    # The last box has no width.
    assert coco_results(DETECTIONS, [7, 8, 9], [1, 5, 90]) == [
        {"image_id": 7, "category_id": 5, "bbox": [10.1, 20.0, 20.25, 40.5], "score": 0.9},
        {"image_id": 7, "category_id": 1, "bbox": [0.0, 0.0, 96.0, 96.0], "score": 0.3},
        {"image_id": 9, "category_id": 90, "bbox": [5.0, 5.0, 0.0, 4.0], "score": 0.25},
    ]


def test_results_are_json_as_they_are():
    results = coco_results(DETECTIONS, ["a.png", "b.png", "c.png"], range(1, 4), threshold=0.5)
    assert json.dumps(results) == (
        '[{"image_id": "a.png", "category_id": 2, "bbox": [10.1, 20.0, 20.25, 40.5], "score": 0.9}]'
    )


def test_nothing_is_an_empty_list():
    assert coco_results(Detections(*(field[1:2] for field in DETECTIONS)), [3], [1]) == []


def test_the_program_of_coco_reads_the_boxes():
    truth: Any = COCO()
    truth.dataset = {"images": [{"id": 7}, {"id": 8}, {"id": 9}], "categories": [{"id": 1}, {"id": 5}, {"id": 90}]}
    truth.dataset["annotations"] = []
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        read = truth.loadRes(coco_results(DETECTIONS, [7, 8, 9], [1, 5, 90]))
    first, whole, _ = read.loadAnns(read.getAnnIds())
    assert (first["image_id"], first["category_id"], first["score"]) == (7, 5, 0.9)
    assert whole["bbox"] == [0, 0, 96, 96] and whole["area"] == 96 * 96


@pytest.mark.parametrize(
    ("detections", "ids", "categories", "message"),
    [
        (DETECTIONS, [1, 2], [1, 2, 3], "must be those of 3 images, not of 2"),
        (DETECTIONS, [1, 2, 3], [1, 2], "has 2 ids, but must have one for class 2"),
        (DETECTIONS._replace(classes=DETECTIONS.classes - 1), [1, 2, 3], [1, 2, 3], "one for class -1"),
        (DETECTIONS._replace(boxes=DETECTIONS.boxes * np.nan), [1, 2, 3], [1, 2, 3], "must be finite"),
    ],
    ids=["images", "categories", "negative class", "non-finite"],
)
def test_what_has_no_id_or_is_not_finite_is_refused(detections, ids, categories, message):
    with pytest.raises(ValueError, match=message):
        coco_results(detections, ids, categories)
