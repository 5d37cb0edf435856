"""The card of a network: its head in YAML, its numbers, its code; where it is written, and where not."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any, get_type_hints

import jax
import numpy as np
import pytest
import yaml

import cnn
from cnn import rules
from cnn.__main__ import main
from cnn.exchange import int8
from cnn.exchange.exporting import to_safetensors
from cnn.look.scores import evaluation
from cnn.trust.exports import write_card
from cnn.trust.model_card import PATHS, model_card
from tests.helpers import NARROW
from tests.trust.examples import robustness_values

CONFIG = cnn.ExperimentConfig(model=NARROW)
LABELS = np.repeat(np.arange(10), 10)
PREDICTED = np.where(np.arange(100) < 93, LABELS, 0)
"""Seven of the last class, Ankle boot, are predicted as the first."""

EVALUATION = evaluation(np.eye(10)[PREDICTED] * 0.9 + 0.01, LABELS, cnn.class_names(CONFIG.data), 1.0)


def _head(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_the_head_has_the_hubs_fields_with_the_result():
    assert _head(model_card(CONFIG, 1234, 48_000, {}, EVALUATION, license="apache-2.0")) == {
        "license": "apache-2.0",
        "library_name": "fashion-cnn",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "jax", "flax"],
        "datasets": ["zalando-datasets/fashion_mnist"],
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": "fashion_cnn",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {
                            "type": "zalando-datasets/fashion_mnist",
                            "name": "fashion_mnist",
                            "split": "test",
                        },
                        "metrics": [{"type": "accuracy", "value": 0.93}],
                    }
                ],
            }
        ],
    }


@pytest.mark.parametrize("text", ["no", "1.0", "null", "2026-11-30", "a: b", "- a", "#", '"', "\\", "바지", "🥾", "~"])
def test_whatever_a_text_is_it_is_read_as_a_text(text):
    assert _head(model_card(CONFIG, 1, 1, {}, None, license=text))["license"] == text


def test_numpys_numbers_are_read_as_numbers():
    head = _head(model_card(CONFIG, 1, 1, {}, {**EVALUATION, "accuracy": np.float32(0.93)}))
    (metric,) = head["model-index"][0]["results"][0]["metrics"]
    assert type(metric["value"]) is float and metric["value"] == 0.93


def test_ones_own_images_are_of_no_data_set_of_the_hub():
    data = cnn.DataConfig(name="images", image_size=(32,), channels=3, class_names=("no", "yes"), class_counts=(5, 5))
    config = cnn.ExperimentConfig(data=data, model=dataclasses.replace(NARROW, classes=2))
    card = model_card(config, 1, 10, {"safetensors": "model.safetensors"}, None)
    assert "datasets" not in _head(card) and "huggingface" not in card and "model-index" not in _head(card)
    assert 'cnn.read_image("image.png", (32, 32, 3), invert=False, resize="crop")' in card
    assert "trained on 10 images" in card and "Not measured when this card was written" in card


def test_the_numbers_are_those_of_the_evaluation():
    config = dataclasses.replace(CONFIG, optim=cnn.OptimConfig(name="muon"), augment=cnn.AugmentConfig(flip=True))
    card = model_card(config, 1234, 48_000, {}, EVALUATION, command="python -m mine")
    low, high = EVALUATION["accuracy_interval"]
    assert f"**0.9300**, 95 % interval {low:.4f} to {high:.4f}, on 100 images" in card
    assert "- Ankle boot: recall 0.3000\n" in card and "- 7 of 10 Ankle boot predicted as T-shirt/top\n" in card
    assert card.index("- Ankle boot: recall") < card.index("- T-shirt/top: recall 1.0000")
    assert "1,234 parameters" in card and "48,000 images" in card and "`python -m mine`" in card
    assert "`--optim.name muon`, `--augment.flip`." in card and "`--model.dense_features 8`" in card
    assert "In 8 bits" not in card and "| severity" not in card


def test_what_changed_images_cost_is_a_table_the_worst_first():
    accuracies = {"blur": (0.9, 0.8), "noise": (0.8, 0.1), "mirror": (0.5,)}
    corruptions = {name: [{"accuracy": value} for value in values] for name, values in accuracies.items()}
    card = model_card(CONFIG, 1, 1, {}, EVALUATION, {"corruptions": corruptions})
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert rows[0] == "| changed images, by severity | 1 | 2 |"
    assert rows[2:] == ["| noise | 0.8000 | 0.1000 |", "| mirror | 0.5000 |  |", "| blur | 0.9000 | 0.8000 |"]


def test_paths_of_ones_own_machine_are_not_published():
    paths = {
        f"{group.name}.{name}"
        for group in dataclasses.fields(CONFIG)[1:]
        for name, kind in get_type_hints(type(getattr(CONFIG, group.name)), include_extras=True).items()
        for rule in getattr(kind, "__metadata__", ())
        if isinstance(rule, rules.Rule) and rule.holds in (rules.PATH.holds, rules.PATHS.holds)
    }
    # What the images are is said without their path.
    assert paths == {*PATHS, "data.source"}
    config = dataclasses.replace(
        CONFIG,
        data=cnn.DataConfig(source="/home/me/images", labels="/home/me/fixed.csv"),
        transfer=cnn.TransferConfig(source="/home/me/before"),
        distill=cnn.DistillConfig(teacher=("/home/me/one", "/home/me/two")),
    )
    card = model_card(config, 1, 1, {}, None)
    assert "/home" not in card and "data.source" not in card
    for option in ("--data.labels PATH`", "--transfer.source PATH`", "--distill.teacher PATH PATH`"):
        assert option in card


def test_a_fraction_was_held_out_only_where_the_source_has_no_validation_images():
    assert "after a fraction of 0.2 was held out" in model_card(CONFIG, 1, 1, {}, None)
    data = cnn.DataConfig(name="images", image_size=(32,), channels=3, class_names=("no", "yes"), class_counts=(5, 5))
    own = cnn.ExperimentConfig(data=data, model=dataclasses.replace(NARROW, classes=2))
    card = model_card(own, 1, 10, {}, None)
    assert "held out" not in card and "10 images, the best epoch was chosen on validation images." in card


@pytest.fixture
def run_dir(config, small, tmp_path_factory, monkeypatch) -> Path:
    """A run of which the images are known to be the few that it was trained on."""
    directory = tmp_path_factory.getbasetemp() / "card"
    if not directory.exists():
        cnn.fit(config, directory, small)
    monkeypatch.setattr("cnn.runs.result.load_images", lambda run_dir: small)
    monkeypatch.setattr(int8, "load_images", lambda run_dir: small)
    monkeypatch.setattr(int8, "CALLS", {1: 1, 100: 1})
    return Path(shutil.copytree(directory, tmp_path_factory.mktemp("run") / "run"))


def test_exports_of_both_kinds_and_their_card_agree(run_dir, small, monkeypatch, capsys):
    main(["export", str(run_dir), "--format", "onnx", "--int8"])
    main(["export", str(run_dir), "--format", "safetensors"])
    export = run_dir / "export"
    assert capsys.readouterr().out.splitlines()[-2:] == [f"{export}/model.safetensors", f"{export}/README.md"]
    card = (export / "README.md").read_text()
    result = cnn.load_result(run_dir)[1].summary
    values = json.loads((export / "model-int8.onnx.json").read_text())
    assert int8.format_comparison(values) in card
    assert f"**{result['test_accuracy']:.4f}**" in card and "on 110 images" in card and "trained on 500 images" in card

    # Its code runs, on any image.
    from PIL import Image

    Image.fromarray(small.test.images[0, :, :, 0]).save(export / "image.png")
    monkeypatch.chdir(export)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 2 and "Ankle boot" in capsys.readouterr().out and names["probabilities"].shape == (1, 10)

    def again() -> tuple[str, list[str]]:
        said: list[str] = []
        write_card(run_dir, export / "README.md", warn=said.append)
        return (export / "README.md").read_text(), said

    assert again() == (card, [])

    # A robustness.json that is damaged is no reason to write no card, but one to say so.
    (run_dir / "robustness.json").write_text("{}")
    written, (line,) = again()
    assert written == card and line.startswith("the card has no accuracy on changed images: cannot read ")
    (run_dir / "robustness.json").write_text(
        json.dumps({**robustness_values(), "best_epoch": result["best_epoch"] + 1})
    )
    written, (line,) = again()
    assert written == card and "robustness.json is not of the best epoch" in line
    (run_dir / "robustness.json").unlink()

    # A file of an earlier state of the run, or of none that is known, is left out with what was measured of it.
    measured = export / "model-int8.onnx.json"
    for text, words in (
        (json.dumps({**values, "step": values["step"] - 1}), "it is of another state of the run"),
        ("{}", "model-int8.onnx.json is damaged ('float32')"),
        ("[]", "model-int8.onnx.json is damaged"),
        ("{", "model-int8.onnx.json is damaged (not JSON)"),
    ):
        measured.write_text(text)
        written, (line,) = again()
        assert "In 8 bits" not in written and "InferenceSession" not in written and "load_safetensors" in written
        assert line.startswith(f"the card leaves out {export / 'model-int8.onnx'}: ") and words in line
    measured.unlink()
    assert "model-int8.onnx.json is missing" in again()[1][0]


def test_weights_of_another_state_are_left_out_of_the_card(run_dir):
    state, config = cnn.load_best(run_dir)
    changed = state.replace(params=jax.tree.map(lambda leaf: leaf + 1, state.params))
    file, said = run_dir / "export" / "model.safetensors", []
    file.parent.mkdir()
    for content, words in (
        (to_safetensors(changed, config), "it is of another state of the run"),
        (b"damaged", "is damaged or not a safetensors file"),
    ):
        file.write_bytes(content)
        write_card(run_dir, file.with_name("README.md"), warn=said.append)
        line = said.pop()
        assert line.startswith(f"the card leaves out {file}: ") and words in line and not said
        assert "load_safetensors" not in file.with_name("README.md").read_text()
    file.write_bytes(to_safetensors(state, config))
    write_card(run_dir, file.with_name("README.md"), warn=said.append)
    assert "load_safetensors" in file.with_name("README.md").read_text() and not said


def test_a_card_lies_beside_its_file_and_is_written_again(run_dir, tmp_path):
    for _ in range(2):
        main(["export", str(run_dir), "--format", "safetensors", "--output", str(tmp_path / "mine")])
    card = (tmp_path / "mine.md").read_text()
    assert 'load_safetensors("mine")' in card
    assert not (run_dir / "export").exists()


@pytest.mark.parametrize("name", ["run/export/README.md", "mine.md"])
def test_a_users_file_is_never_replaced_by_a_card(run_dir, name, monkeypatch):
    monkeypatch.setattr("cnn.exchange.exporting.load_best", lambda run_dir: pytest.fail("computes"))
    monkeypatch.chdir(run_dir.parent)
    Path("run/export").mkdir()
    Path(name).write_text("mine")
    output = [] if name.startswith("run") else ["--output", "mine"]
    with pytest.raises(cnn.ConfigError, match="which this command has not written; name another file"):
        main(["export", "run", "--format", "safetensors", *output])
    assert Path(name).read_text() == "mine" and not Path("mine").exists()


def test_without_its_images_a_run_has_a_card_without_a_result(run_dir, monkeypatch, capsys):
    def missing(run_dir):
        raise cnn.DataError("the images are missing")

    monkeypatch.setattr("cnn.runs.result.load_images", missing)
    main(["export", str(run_dir), "--format", "safetensors"])
    assert "warning: the card gives no result: the images are missing\n" == capsys.readouterr().err
    assert "model-index" not in _head((run_dir / "export" / "README.md").read_text())
