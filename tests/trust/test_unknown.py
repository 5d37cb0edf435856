"""The evaluation of the unknown: as a command on a run, and of classes that were left out of the training."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest

import cnn
from cnn.__main__ import main
from cnn.runs import outputs
from cnn.trust import unknown
from cnn.trust.novelty import BEST, SCORES
from cnn.trust.reference import make_reference, read_reference
from tests.helpers import narrow


@pytest.fixture(scope="module")
def finished(config, small, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("unknown") / "run"
    cnn.fit(narrow(config, epochs=1), run_dir, small)
    return run_dir


@pytest.fixture
def run_dir(finished, small, tmp_path, monkeypatch):
    """A copy of a run on the images that its configuration names."""
    monkeypatch.setattr("cnn.runs.result.load_data", lambda config: small)
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((20, 30), 3)])
def test_the_kinds_of_images_have_the_runs_shape(config, size, channels):
    data = cnn.DataConfig(name="images", source=".", image_size=size, channels=channels, class_names=("a", "b"))
    own = dataclasses.replace(config, data=data)
    digits, noise, flat = (make(own) for make in unknown.UNKNOWN.values())
    assert digits is not None
    for images in (digits, noise, flat):
        assert images.shape[1:] == (*size, channels) and images.dtype == np.uint8
    assert len(digits) == 1_797 and len(noise) == unknown.IMAGES and len(flat) == 256
    assert {image.std() for image in flat} == {0} and flat[:, 0, 0, 0].tolist() == list(range(256))
    assert noise.mean() == pytest.approx(127.5, abs=0.5) and noise.std() == pytest.approx(73.9, abs=0.5)


def test_digits_are_light_on_dark_and_centred(config):
    images = unknown.digits(config)
    assert images is not None
    rows, columns = np.indices((28, 28))
    mean = images[..., 0].mean(0, dtype=float)
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.median(corners) == 0 and images.max() == 255
    for places in (rows, columns):
        assert (mean * places).sum() / mean.sum() == pytest.approx(13.5, abs=1)


def test_large_images_are_fewer(config):
    data = cnn.DataConfig(name="images", source=".", image_size=(512, 512), channels=3, class_names=("a", "b"))
    assert unknown._count(dataclasses.replace(config, data=data)) == 170


def test_evaluate_prints_and_writes_the_unknown_and_keeps_the_reference(run_dir, small, capsys):
    main(["evaluate", str(run_dir), "--unknown"])
    printed = capsys.readouterr().out
    values = json.loads((run_dir / "unknown.json").read_text())
    assert values["best_score"] == BEST and values["images"] == 110 and values["training_images"] == 500
    assert list(values["scores"]) == list(SCORES)
    for score in values["scores"].values():
        assert list(score["unknown"]) == ["digits", "noise", "flat"] and score["name"] in printed
        for row in score["unknown"].values():
            assert row["auroc_interval"][0] <= row["auroc"] <= row["auroc_interval"][1]
            assert f"{row['auroc']:.4f}  {row['auroc_interval'][0]:.4f} to" in printed
    assert read_reference(run_dir, cnn.load_best(run_dir)[0]) is not None
    assert outputs.check_file(run_dir / "unknown.json", "unknown", [run_dir])
    assert unknown.read_unknown(run_dir) == values
    assert not (run_dir / "evaluation.json").exists()


def test_without_scikit_learn_the_digits_are_left_out_with_a_line(run_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    main(["evaluate", str(run_dir), "--unknown", "--output", str(tmp_path / "there")])
    assert "scikit-learn, which has the digits, is not installed" in capsys.readouterr().out
    values = json.loads((tmp_path / "there" / "unknown.json").read_text())
    assert list(values["scores"][BEST]["unknown"]) == ["noise", "flat"]
    assert not (run_dir / "unknown.json").exists()


def test_classes_that_were_left_out_of_the_training_are_more_unknown(config, splits, tmp_path):
    """Trained on eight classes, for four epochs of 1,000 images; bags and ankle boots are the ninth and tenth."""

    def first(split, count, classes):
        chosen = np.flatnonzero(np.isin(split.labels, classes))[:count]
        return cnn.Split(split.images[chosen], split.labels[chosen])

    known = range(8)
    data = cnn.Splits(first(splits.train, 1000, known), first(splits.val, 300, known), first(splits.test, 300, known))
    names = cnn.class_names(cnn.DataConfig())[:8]
    eight = dataclasses.replace(
        narrow(config, epochs=4),
        data=dataclasses.replace(config.data, class_names=names),
        model=cnn.ModelConfig(conv1_features=8, conv2_features=16, dense_features=32),
    )
    state = cnn.fit(eight, tmp_path / "run", data).state
    held_out = first(splits.test, 300, (8, 9)).images
    values = unknown.separations(state, make_reference(state, data), data.test.images, {"held out": held_out})
    areas = {name: score["unknown"]["held out"]["auroc"] for name, score in values["scores"].items()}
    # Half would be a guess; the 95 % interval of 300 against 300 images is some 0.04 to each side. A network of which
    # one test image in four is misclassified is unsure of those, too: its highest probability tells little.
    assert areas[BEST] > 0.7 and areas["nearest_hidden"] > 0.7 > areas["max_probability"]


def test_the_network_that_ships_tells_digits_and_noise_from_garments(splits):
    state, config = cnn.load_pretrained()
    reference = read_reference(None, state)
    assert reference is not None
    digits = unknown.digits(config)
    assert digits is not None
    others = {"digits": digits, "noise": unknown.noise(config)[:500]}
    found = unknown.separations(state, reference, splits.test.images[:2000], others)["scores"][BEST]["unknown"]
    assert found["digits"]["auroc"] >= 0.99
    assert found["noise"]["auroc"] >= 0.98
