"""Boxes in image files, on the command line: in the files' own pixels, as lines, in COCO's format, as pictures."""

import io
import json
import shutil
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from pycocotools.coco import COCO

import cnn
from cnn.__main__ import main
from cnn.data.box_files import place_boxes
from cnn.detection.boxes import Detections
from cnn.figures import scene_plots
from cnn.runs import rundir
from cnn.trust import detections as module


@pytest.fixture(scope="module")
def names(detector):
    return cnn.class_names(detector.config.data)


@pytest.fixture(scope="module")
def files(detector, tmp_path_factory):
    """Two test scenes as files: 7.png as it is, and a wide one, three times as large with a margin at both sides."""
    folder = tmp_path_factory.mktemp("files")
    scenes = detector.splits.test.images[:2, :, :, 0]
    Image.fromarray(scenes[0]).save(folder / "7.png")
    wide = np.pad(np.kron(scenes[1], np.ones((3, 3), np.uint8)), ((0, 0), (72, 72)), constant_values=99)
    Image.fromarray(wide).save(folder / "wide.png")
    return [folder / "7.png", folder / "wide.png"]


def _predict(detector, *arguments):
    main(["predict", str(detector.run_dir), *map(str, arguments)])


def test_the_boxes_of_a_scene_are_those_of_detect_and_pycocotools_reads_them(detector, files, names, capsys):
    _predict(detector, *files, "--json", "--threshold", "0.02")
    rows = json.loads(capsys.readouterr().out)
    found = cnn.detect(detector.result.state, detector.splits.test.images[:1])
    expected = [at for at in range(found.scores.shape[1]) if found.scores[0, at] >= 0.02]
    first = [row for row in rows if row["image_id"] == 7]
    assert len(first) == len(expected) > 3
    for row, at in zip(first, expected, strict=True):
        x, y, right, bottom = map(float, found.boxes[0, at])
        assert row["bbox"] == pytest.approx([x, y, right - x, bottom - y], abs=1e-3)
        assert row["score"] == pytest.approx(float(found.scores[0, at]), abs=1e-6)
        assert row["category_id"] == found.classes[0, at] + 1 and row["category"] == names[found.classes[0, at]]
    assert {row["image_id"] for row in rows} == {7, "wide"}
    truth: Any = COCO()
    truth.dataset = {"images": [{"id": 7}, {"id": "wide"}], "categories": [{"id": k} for k in range(1, 11)]}
    with redirect_stdout(io.StringIO()):
        truth.createIndex()
        assert len(truth.loadRes(rows).getAnnIds()) == len(rows)


def test_files_of_the_same_name_have_ids_of_their_own(detector, files, tmp_path, capsys):
    (tmp_path / "07.png").write_bytes(files[0].read_bytes())
    _predict(detector, *files, tmp_path / "07.png", "--json", "--threshold", "0.02")
    out, err = capsys.readouterr()
    first, other, again = ([r for r in json.loads(out) if r["image_id"] == number] for number in (1, 2, 3))
    assert first and other and len(first + other + again) == len(json.loads(out))
    assert [row["bbox"] for row in first] == [row["bbox"] for row in again]
    assert "files have the same name, so image_id is the number of the file" in err


def test_lines_have_the_boxes_and_pictures_do_not_replace_other_files(detector, files, tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(scene_plots, "scenes", lambda images, *rest: drawn.append(images.shape) or Figure())
    monkeypatch.setattr("cnn.figures.plots.png", lambda figure: b"\x89PNG")
    (tmp_path / "bad.png").write_bytes(b"no image")
    output = tmp_path / "pictures"
    with pytest.raises(cnn.DataError, match="1 of the 4 could not be read"):
        _predict(detector, files[0], tmp_path / "bad.png", *files[::-1], "--threshold", "0.02", "--output", output)
    out, err = capsys.readouterr()
    heads = [line for line in out.splitlines() if not line.startswith("  ")]
    assert heads[1].startswith(f"error: {tmp_path / 'bad.png'}: ")
    assert heads[0].startswith(f"{files[0]}: ") and heads[2].startswith(f"{files[1]}: ") and heads[3] == heads[0]
    rows = [line.split() for line in out.splitlines() if line.startswith("  ")]
    assert all(len(row) >= 6 and float(row[-5]) >= 0.02 for row in rows)
    assert sum(int(head.split(": ")[1].split()[0]) for head in (heads[0], *heads[2:])) == len(rows)
    # In colour, and in the files' own size.
    assert drawn == [(1, 48, 48, 3), (1, 144, 288, 3), (1, 48, 48, 3)]
    assert sorted(path.name for path in output.iterdir()) == ["boxes_7-2.png", "boxes_7.png", "boxes_wide.png"]
    assert err.count("wrote ") == 3 and "at least 0.02, as --threshold says" in err
    with pytest.raises(cnn.ConfigError, match="has a boxes_7-2.png that this command has not written"):
        _predict(detector, files[0], "--output", output)


def test_the_threshold_is_that_of_the_evaluation_of_this_network_or_is_0_3(detector, tmp_path):
    state, step = detector.result.state, int(detector.result.state.step)
    shutil.copy(detector.run_dir / "config.json", tmp_path)
    run = rundir.read_identity(tmp_path).digest
    assert module._best_threshold(tmp_path, state)[0] == 0.3
    for values, expected in (
        ({"run_sha256": run, "step": step, "threshold": 0.45}, 0.45),
        ({"run_sha256": run, "step": step + 1, "threshold": 0.45}, 0.3),
        # Two runs of one configuration have the same number of steps.
        ({"run_sha256": "of another run", "step": step, "threshold": 0.45}, 0.3),
        ({"step": step, "threshold": 0.45}, 0.3),
        ({"accuracy": 0.9}, 0.3),
        ([], 0.3),
    ):
        (tmp_path / "evaluation.json").write_text(json.dumps(values))
        threshold, why = module._best_threshold(tmp_path, state)
        assert threshold == expected and "evaluation.json" in why
    # A run that is older than the names of runs has files that name none.
    config = json.loads((tmp_path / "config.json").read_text())
    del config["run"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evaluation.json").write_text(json.dumps({"step": step, "threshold": 0.45}))
    assert module._best_threshold(tmp_path, state)[0] == 0.45


def test_no_box_is_an_empty_array(detector, files, capsys):
    _predict(detector, *files, "--json", "--threshold", "1")
    assert json.loads(capsys.readouterr().out) == []


def test_wrong_options_are_one_line(detector, files, tmp_path):
    with pytest.raises(cnn.ConfigError, match="threshold is 7.0, but must be from 0 to 1"):
        _predict(detector, files[0], "--threshold", "7")
    (tmp_path / "file").write_text("")
    with pytest.raises(cnn.ConfigError, match="--output is .*file', which is a file; name a directory"):
        _predict(detector, files[0], "--output", tmp_path / "file")
    for option in (["--threshold", "0.5"], ["--output", str(tmp_path / "new")]):
        with pytest.raises(cnn.ConfigError, match=f"predict {option[0]} is for detection, but "):
            main(["predict", "--pretrained", str(files[0]), *option])


sides = st.integers(24, 240)


def _moved(boxes: Any, scores: Any, size, fitted, resize) -> Detections:
    classes: Any = np.zeros_like(scores, int)
    return module._in_file(Detections(boxes, scores, classes), size, {"shape": (*fitted, 1), "resize": resize})


@given(
    size=st.tuples(sides, sides),
    fitted=st.tuples(sides, sides),
    resize=st.sampled_from(["pad", "stretch", "crop"]),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_box_of_a_file_that_is_resized_with_it_is_found_again(size, fitted, resize, corners):
    x0, x1, y0, y1 = *sorted(corners[:2]), *sorted(corners[2:])
    box = np.array([[x0 * size[1], y0 * size[0], x1 * size[1], y1 * size[0], 3]])
    placed = place_boxes(box, size, fitted, resize)
    inside = np.zeros((1, max(len(placed), 1), 4))
    inside[0, : len(placed)] = placed[:, :4]
    scores = np.full((1, inside.shape[1]), 0.9)
    found = _moved(inside, scores, size, fitted, resize)
    boxes, (height, width) = np.asarray(found.boxes)[0], size
    assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
    # What was cut off does not come back; all else is where it was, within the rounding of float32.
    if len(placed) and resize != "crop":
        np.testing.assert_allclose(boxes[0], box[0, :4], atol=1e-4 * max(size))
    if len(placed):
        assert (boxes[0, :2] >= box[0, :2] - 1e-4 * max(size)).all()


def test_a_detection_in_the_margin_alone_is_left_out():
    """A file of 100 x 50 in 48 x 48 has margins of 12 pixels above and below."""
    boxes = np.array([[[0, 0, 20, 10], [0, 6, 48, 36.0]]])
    moved = _moved(boxes, np.array([[0.9, 0.8]]), (50, 100), (48, 48), "pad")
    assert np.asarray(moved.scores).tolist() == [[0, 0.8]]
    np.testing.assert_allclose(np.asarray(moved.boxes)[0, 1], [0, 0, 100, 50])
