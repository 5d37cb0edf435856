"""The network that ships: its size, its accuracy on the real test images, its card, and that it travels with cnn."""

import fnmatch
import json
import sys
import tomllib

import numpy as np
import pytest
import yaml

import cnn
from cnn.__main__ import main
from cnn.exchange.exporting import PRETRAINED
from cnn.exchange.tensor_file import read_tensors
from tests.data.image_bytes import png
from tests.helpers import ROOT

CARD = PRETRAINED.with_name("README.md")


@pytest.fixture(scope="module")
def result() -> dict:
    return json.loads(read_tensors(PRETRAINED)[0]["result"])


@pytest.fixture(scope="module")
def network() -> tuple[cnn.TrainState, cnn.ExperimentConfig]:
    # As the plain installation is: without the packages of any extra.
    with pytest.MonkeyPatch.context() as monkeypatch:
        for package in ("safetensors", "onnx", "flatbuffers"):
            monkeypatch.setitem(sys.modules, package, None)
        return cnn.load_pretrained()


def test_its_accuracy_on_all_test_images_is_that_of_its_file(network, splits, result):
    metrics = cnn.evaluate(network[0], splits.test)
    assert metrics.count == 10_000
    # Another processor or compiler rounds otherwise. onnxruntime differs by 2e-5 in log-probabilities; two of the
    # images have their first two classes within 2e-3.
    assert abs(int(metrics.correct) - 10_000 * result["test_accuracy"]) <= 2
    assert float(metrics.loss) == pytest.approx(result["test_loss"], rel=1e-4)
    assert result["test_accuracy"] > 0.93


def test_it_is_small_and_names_the_classes(network, result):
    assert PRETRAINED.stat().st_size <= 1_500_000
    assert cnn.class_names(network[1].data)[9] == "Ankle boot"
    assert sum(row.parameters for row in cnn.layer_table(network[0])) == result["params"]


def test_the_numbers_of_its_card_are_those_of_its_file(result):
    card = CARD.read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "apache-2.0"
    (metric,) = head["model-index"][0]["results"][0]["metrics"]
    assert metric == {"type": "accuracy", "value": result["test_accuracy"]}
    for text in (f"**{result['test_accuracy']:.4f}**", f"{result['test_loss']:.4f} nats", f"{result['params']:,} para"):
        assert text in card
    assert "`python -m benchmarks.pretrained --experiment experiments." in card


def test_it_is_part_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["cnn"]
    for path in (PRETRAINED, CARD):
        assert any(fnmatch.fnmatch(str(path.relative_to(ROOT / "cnn")), pattern) for pattern in patterns)


def test_files_are_classified_before_anything_is_trained(network, splits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files = [f"{index}.png" for index in range(3)]
    for file, image in zip(files, splits.test.images, strict=False):
        (tmp_path / file).write_bytes(png(image[:, :, 0]))
    main(["predict", "--pretrained", *files])
    labels = np.asarray(cnn.predict(network[0], splits.test.images[:3])).argmax(1)
    names = cnn.class_names(network[1].data)
    for line, file, label in zip(capsys.readouterr().out.splitlines(), files, labels, strict=True):
        assert line.startswith(f"{file}: {names[label]} ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither a run nor --pretrained is named; python -m cnn predict RUN_DIR FILE..., or predict --pretrained"),
        (["--pretrained"], "no file is named"),
        (["boot.png"], "no file is named"),
        (["--pretrained", "{run}", "boot.png"], "run is a run, but --pretrained takes the network that ships"),
        (
            ["--pretrained", "boot.png", "--experiment", "experiments.vit"],
            "--experiment has no effect with --pretrained",
        ),
    ],
)
def test_both_a_run_and_the_shipped_network_or_neither_are_refused(arguments, message, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_bytes(b"process 1")
    with pytest.raises(cnn.UserError, match=message):
        main(["predict", *(argument.format(run=tmp_path / "run") for argument in arguments)])
