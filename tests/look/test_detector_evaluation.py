"""A detector's run: its evaluation and figures, by the commands."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import cnn
from cnn.__main__ import main
from cnn.detection import average_precision as precision
from cnn.look import detection, scene_figures, tracking
from cnn.look.subject import subject
from cnn.runs import outputs, rundir
from cnn.runs.teachers import load_teachers
from cnn.text import columns


@pytest.fixture
def images(detector, monkeypatch):
    """The detector's images are those of its configuration; figures are made, but not rendered, which takes longer."""
    monkeypatch.setattr("cnn.runs.result.load_data", lambda config: detector.splits)
    monkeypatch.setattr("cnn.figures.plots.png", lambda figure: b"\x89PNG" if figure.axes else pytest.fail("empty"))


@pytest.fixture
def names(detector):
    return cnn.class_names(detector.config.data)


def test_evaluate_prints_and_writes_the_numbers_of_what_detect_finds(detector, images, names, tmp_path, capsys):
    output = tmp_path / "there"
    main(["evaluate", str(detector.run_dir), "--output", str(output)])
    printed, values = capsys.readouterr().out, json.loads((output / "evaluation.json").read_text())
    test, state = detector.splits.test, detector.result.state
    matches = precision.match(cnn.detect(state, test.images), test.labels, len(names))
    average = precision.average_precision(matches)
    assert {name: values[name] for name in precision.summary(average)} == precision.summary(average)
    for name, scores in precision.class_summary(average, names).items():
        assert {key: values["classes"][name][key] for key in scores} == scores
    assert values["accuracy"] == pytest.approx(float(cnn.evaluate(state, test).accuracy))
    assert values["accuracy"] == detector.result.summary["test_accuracy"]
    # Every true box is detected as some class, or missed.
    present = test.labels[test.labels[..., 4] >= 0, 4].astype(int)
    counts = np.array(values["confusion_matrix"])
    assert counts[:-1].sum(1).tolist() == np.bincount(present, minlength=10).tolist()
    for text in ("most confused", "most missed", "seen where no object is", f"mAP             {values['map']:.4f}"):
        assert text in printed
    assert max(map(columns, printed.splitlines()[:30])) <= 100
    assert sorted(path.name for path in output.iterdir()) == sorted(["evaluation.json", *detection.FIGURES])
    # It names its run and state, and may be written again.
    run = rundir.read_identity(detector.run_dir).digest
    assert (values["run_sha256"], values["step"]) == (run, int(state.step))
    assert outputs.check_file(output / "evaluation.json", "evaluation", [detector.run_dir])


def test_evaluations_of_classifiers_are_refused_in_one_line(detector):
    for option in ("--robust", "--unknown"):
        with pytest.raises(cnn.ConfigError, match=f"^evaluate {option} is for classification, but .*yolo, is for dete"):
            main(["evaluate", str(detector.run_dir), option])


def test_what_else_is_of_classification_only_is_refused_in_one_line(detector, config):
    with pytest.raises(cnn.ConfigError, match="^labels is for classification, but .*yolo, is for detection"):
        main(["labels", str(detector.run_dir)])
    taught = dataclasses.replace(config, distill=cnn.DistillConfig(teacher=(str(detector.run_dir),)))
    with pytest.raises(cnn.ConfigError, match="^distilling from .*run' is for classification, but .*yolo"):
        load_teachers(taught)
    assert sorted(path.name for path in detector.run_dir.parent.iterdir()) == ["run"]


def test_a_tracker_gets_the_maps_of_a_scene(detector):
    row, (image, description) = detector.result.history[0], subject("detection", detector.splits)
    epoch = tracking._epoch(row, detector.result.state, image[None], description)
    assert sorted(epoch.images) == ["kernels/conv1", "maps/conv1"] and epoch.metrics["val_map"] == row["val_map"]


def test_look_draws_scenes_and_no_class_of_an_image(detector, images, tmp_path, capsys):
    main(["look", str(detector.run_dir), "--output", str(tmp_path / "figures")])
    drawn = [Path(path).stem for path in capsys.readouterr().out.split()]
    assert {"learning_curves", "sample", "scenes", "objectness", "model", "kernels_conv1_trained"} <= set(drawn)
    assert {"feature_maps_conv3", "feature_maps_classes"} <= set(drawn)
    assert not {"first_image", "probabilities", "feature_maps_boxes"} & set(drawn)


def test_look_draws_the_boxes_and_a_layer_of_a_scene_or_a_file(detector, images, tmp_path, capsys):
    from PIL import Image

    Image.fromarray(detector.splits.test.images[0, :, :, 0]).save(tmp_path / "my.png")
    for layer, options in (("conv2", ["--layer", "conv2"]), ("classes", ["--image", str(tmp_path / "my.png")])):
        (tmp_path / layer).mkdir()
        main(["look", str(detector.run_dir), *options, "--output", str(tmp_path / layer)])
        drawn = [Path(path).stem for path in capsys.readouterr().out.split()]
        kernels = [f"look_{layer}_kernels", f"look_{layer}_weights"]
        assert drawn == [f"look_{layer}_maps", "look_scene", "look_objectness", *kernels]


def test_objectness_is_the_sigmoid_of_its_layer(detector):
    scenes, state = detector.splits.test.images[:2], detector.result.state
    logits = np.asarray(cnn.feature_maps(state, scenes)["objectness"])[..., 0]
    np.testing.assert_allclose(scene_figures.objectness(state, scenes), 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_the_last_of_the_chosen_scenes_is_empty_if_any_is():
    full, empty = np.zeros((6, 5)), np.full((6, 5), -1)
    assert scene_figures.chosen_scenes(np.stack([full] * 12)).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert scene_figures.chosen_scenes(np.stack([*[full] * 9, empty, full])).tolist() == [0, 1, 2, 3, 4, 5, 6, 9]
    assert scene_figures.chosen_scenes(np.stack([full, empty, *[full] * 9])).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert scene_figures.chosen_scenes(np.stack([full, empty])).tolist() == [0, 1]


def test_of_many_classes_the_worst_are_printed():
    """60 classes, of which the last has no object, and class k of the others an average precision of k / 100."""
    names = [f"class {label}" for label in range(60)]
    ap = np.tile(np.arange(60)[:, None] / 100, (10, 1, 4))
    ap[:, -1] = np.nan
    objects, counts = np.full((60, 4), 5), np.zeros((61, 61), int)
    objects[-1] = 0
    counts[0, 1], counts[2, -1], counts[-1, 3] = 2, 4, 7
    average = precision.AveragePrecision(ap, np.zeros((10, 60, 101)), objects)
    values = detection.evaluation(average, counts, 3, 10, 0.4, names)
    assert values["most_confused"] == [["class 0", "class 1", 2]]
    assert values["most_missed"] == [["class 2", 4, 4]] and values["most_unfounded"] == [["class 3", 7]]
    assert values["map"] == pytest.approx(0.29) and values["classes"]["class 59"]["ap"] is None
    lines = detection.format_evaluation(values).splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("class  "))
    assert [line.split()[1] for line in lines[head + 1 : head + 21]] == [str(label) for label in range(20)]
    assert lines[head + 21].startswith("and 40 other classes")
