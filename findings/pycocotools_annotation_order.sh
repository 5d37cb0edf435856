#!/bin/sh
# Guess: average precision depends on boxes, classes and scores, not on the order in which a JSON file lists its boxes.
# Instead: of two true boxes that a detection overlaps equally, the one that is listed later is matched, as a later box
# with the same IoU replaces the match so far. If the detection that follows fits only that one, it is a false positive:
# the same boxes and detections have an AP of 1.00 at IoU 0.5 in one order of the file, and of 0.505 in the other.
# Versions: pycocotools 2.0.11; faster-coco-eval 1.8.0 gives the same numbers; CPU (Linux, x86-64).
# Source: evaluateImg in pycocotools/cocoeval.py goes on to the next box at an IoU below the best, not at an equal one.
# Consequence: sorting, merging or converting annotation files moves AP on crowded images with boxes on a grid, such as
# those of tiled, synthetic or quantized data; a metric written from the definition differs by more than rounding.
# Avoid: keep the files' order between the evaluations that are compared; let your own metric prefer the last box, too.
#
# sh findings/pycocotools_annotation_order.sh runs the pinned versions; packages given as arguments replace them.
set -eu
[ $# -gt 0 ] || set -- pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile "$@"
cat > evaluate.py <<'PY'
import contextlib
import io
from importlib import metadata

from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# x, y, width, height. The first detection lies in the middle of two true boxes, the second one on the left box alone.
LEFT, RIGHT = [0, 0, 10, 10], [4, 0, 10, 10]
FOUND = [([2, 0, 10, 10], 0.9), ([-1, 0, 10, 10], 0.8)]


def average_precision(boxes, load, evaluate):
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": 100, "iscrowd": 0}
        for number, box in enumerate(boxes, 1)
    ]
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "one"}], "annotations": annotations, "info": {}}
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": score} for box, score in FOUND]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = load()
        coco.dataset = truth
        coco.createIndex()
        evaluation = evaluate(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])


for package in ("pycocotools", "faster-coco-eval", "numpy"):
    print(package, metadata.version(package))
seen = {}
for name, functions in {"pycocotools": (COCO, COCOeval), "faster-coco-eval": (FasterCOCO, COCOeval_faster)}.items():
    seen[name] = [average_precision(boxes, *functions) for boxes in ([LEFT, RIGHT], [RIGHT, LEFT])]
    print(f"seen: {name}, AP at IoU 0.5, left box listed first {seen[name][0]:.3f}, listed last {seen[name][1]:.3f}")
print("expected: the same number twice")
# 1, and precision 1 up to a recall of a half: at 51 of 101 levels.
expected = [1, 51 / 101]
raise SystemExit(max(abs(a - b) for both in seen.values() for a, b in zip(both, expected, strict=True)) > 1e-6)
PY
venv/bin/python evaluate.py
