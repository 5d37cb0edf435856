"""A detector as ONNX and StableHLO, with suppression and without, against ``cnn.detect``; the command."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from jax.export import deserialize
from onnx.reference import ReferenceEvaluator

import cnn
from cnn.__main__ import main
from cnn.detection.boxes import CANDIDATES, DETECTIONS, suppress
from cnn.exchange import exporting
from cnn.exchange.onnx_detection import suppressed
from cnn.exchange.onnx_graph import make_add
from cnn.exchange.onnx_layers import Output
from cnn.training.detecting import pixel_boxes
from cnn.training.steps import image_outputs
from tests.exchange.test_onnx_graph import random_state
from tests.helpers import assert_same

DATA = dataclasses.replace(
    cnn.DataConfig(), name="images", image_size=(24, 40), channels=3, class_names=("a", "b", "c")
)
CONFIG = cnn.ExperimentConfig(data=DATA, model=cnn.YoloConfig(blocks=(0, 1), features=4))
CELLS, CLASSES = 6 * 10, 3

IMAGES = np.random.default_rng(1).integers(0, 256, (5, 6, 10, 3), np.uint8).repeat(4, 1).repeat(4, 2)


@pytest.fixture(scope="module")
def state() -> cnn.TrainState:
    """A detector whose boxes overlap, and are of all sizes, also beyond the bounds of the network."""
    state = random_state(CONFIG)
    box = {"kernel": 12 * state.params["box"]["kernel"], "bias": state.params["box"]["bias"] + [0, 0, 3, 3]}
    return state.replace(params={**state.params, "box": jax.tree.map(np.float32, box)})


@pytest.fixture(scope="module")
def cells(state) -> tuple[np.ndarray, ...]:
    """Boxes and scores of the cells of ``IMAGES``, by JAX."""

    @jax.jit
    def boxes_and_scores(state, images):
        return pixel_boxes(image_outputs(state, images, len(images)), state.spec)

    return tuple(map(np.asarray, boxes_and_scores(state, IMAGES)))


def _session(content: bytes) -> Any:
    return onnxruntime.InferenceSession(content)


def _outputs(session: Any, images: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(session.run(None, {"images": images}))


def test_onnxruntime_finds_what_detect_finds_for_any_batch(state):
    session = _session(exporting.to_onnx(state, CONFIG))
    assert [output.name for output in session.get_outputs()] == ["boxes", "scores", "classes"]
    expected = cnn.detect(state, IMAGES)
    found = (np.asarray(expected.scores) > 0).sum(1)
    assert found.min() > 5 and found.min() < DETECTIONS, "nothing is suppressed, or all"
    for count in (1, len(IMAGES)):
        boxes, scores, classes = _outputs(session, IMAGES[:count])
        np.testing.assert_allclose(boxes, expected.boxes[:count], atol=1e-3)
        np.testing.assert_allclose(scores, expected.scores[:count], atol=1e-5)
        assert_same((classes, classes.dtype), (np.asarray(expected.classes[:count]), np.dtype(np.int32)))


def test_without_suppression_the_file_gives_every_cell_and_its_suppression_is_ours_to_the_bit(state, cells):
    raw = _session(exporting.to_onnx(state, CONFIG, suppression=False))
    assert [output.shape for output in raw.get_outputs()] == [["batch", CELLS, 4], ["batch", CELLS, CLASSES]]
    boxes, scores = _outputs(raw, IMAGES)
    np.testing.assert_allclose(boxes, cells[0], atol=1e-3)
    np.testing.assert_allclose(scores, cells[1], atol=1e-5)
    assert_same(_outputs(_session(exporting.to_onnx(state, CONFIG)), IMAGES), tuple(suppress(boxes, scores)))


def _suppression(cells: int, classes: int) -> Any:
    """The nodes of suppression alone, as a model of boxes and scores."""
    nodes, constants = [], {}
    helper, kinds = onnx.helper, onnx.TensorProto
    shapes = {"boxes": ("batch", cells, 4), "scores": ("batch", cells, classes)}
    outputs = suppressed(make_add(nodes, constants), *(Output(name, shape) for name, shape in shapes.items()))
    graph = helper.make_graph(
        nodes,
        "suppression",
        [helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, getattr(kinds, type), shape) for name, shape, type in outputs.values()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def test_suppression_in_onnxruntime_is_ours_to_the_bit_with_ties():
    # On grids of 1 to 5 pixels and of few scores: equal boxes, empty ones, overlaps of exactly the limit, equal scores.
    rng, count, cells, classes = np.random.default_rng(2), 400, 50, 3
    assert cells * classes > CANDIDATES
    corners = rng.integers(0, 1 + np.arange(count)[:, None, None] % 5, (count, cells, 2))
    sides = rng.choice([0, 3, 6, 10], corners.shape, p=[0.01, 0.04, 0.25, 0.7])
    boxes = np.concatenate([corners, corners + sides], -1).astype(np.float32)
    scores = rng.choice(np.array([0.25, 0.5, 1], np.float32), (count, cells, classes))
    # Of every fourth image, most are 0.
    scores[::4] *= rng.random((count // 4, cells, classes)) < 0.1
    session = _session(_suppression(cells, classes).SerializeToString())
    expected = tuple(suppress(boxes, scores))
    assert_same(tuple(session.run(None, {"boxes": boxes, "scores": scores})), expected)
    found = (np.asarray(expected[1]) > 0).sum(1)
    assert found.min() < 5 and found.max() == DETECTIONS and len(np.unique(found)) > 20


def test_boxes_of_a_class_are_suppressed_from_above_the_limit_and_the_rest_is_padding():
    boxes = np.array([[[0, 0, 10, 6], [0, 0, 10, 10], [0, 0, 10, 6.0005], [20, 0, 30, 10]]], np.float32)
    # The second box of the first class overlaps the first by 0.6, the third one by more; of the other class none.
    scores = np.array([[[0.7, 0], [0.9, 0], [0.8, 0.6], [0, 0.5]]], np.float32)
    model = _suppression(4, 2)
    runs: Any = _session(model.SerializeToString()).run, ReferenceEvaluator(model).run
    for run in runs:
        actual_boxes, actual_scores, classes = run(None, {"boxes": boxes, "scores": scores})
        np.testing.assert_array_equal(actual_scores[0], np.array([0.9, 0.7, 0.6, 0.5, 0, 0, 0, 0], np.float32))
        np.testing.assert_array_equal(classes[0, :4], [0, 0, 1, 1])
        np.testing.assert_array_equal(actual_boxes[0, :4], boxes[0, [1, 0, 2, 3]])


def test_a_network_that_finds_nothing_gives_padding_alone(state):
    objectness = {**state.params["objectness"], "bias": np.array([-200], np.float32)}
    silent = state.replace(params={**state.params, "objectness": objectness})
    _, scores, _ = _outputs(_session(exporting.to_onnx(silent, CONFIG)), IMAGES)
    assert scores.shape == (len(IMAGES), DETECTIONS) and not scores.any()


def test_the_opset_is_the_lowest_that_has_the_operators(state):
    for suppression in (True, False):
        model = onnx.load_from_string(exporting.to_onnx(state, CONFIG, suppression))
        assert (model.opset_import[0].version, model.ir_version) == ((11, 6) if suppression else (10, 5))
        onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("suppression", [True, False])
def test_stablehlo_finds_what_detect_finds(suppression, state, cells):
    network = deserialize(bytearray(exporting.to_stablehlo(state, CONFIG, suppression)))
    expected = (
        cnn.detect(state, IMAGES)._asdict() if suppression else dict(zip(("boxes", "scores"), cells, strict=True))
    )
    actual: Any = network.call(IMAGES)
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=1e-3 if name == "boxes" else 1e-5)


def test_safetensors_are_loaded_bitwise(state, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(exporting.to_safetensors(state, CONFIG))
    loaded, config = cnn.load_safetensors(path)
    assert config == CONFIG
    assert_same((loaded.params, loaded.batch_stats), jax.tree.map(np.asarray, (state.params, state.batch_stats)))


@pytest.fixture
def run_dir(state, tmp_path, monkeypatch) -> Path:
    """A run directory whose best network is the detector."""
    monkeypatch.setattr("cnn.exchange.exporting.load_best", lambda run_dir: (state, CONFIG))
    monkeypatch.setattr("cnn.runs.rundir.read_description", lambda run_dir: {"config": CONFIG})
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_the_command_writes_every_format_and_no_card(run_dir, capsys):
    files = run_dir / "export"
    for name, *options in (
        ("model.onnx", "onnx"),
        ("model-cells.onnx", "onnx", "--no-suppression"),
        ("model.stablehlo", "stablehlo"),
        # Over what it has written before.
        ("model.stablehlo", "stablehlo", "--no-suppression", "--output", str(files / "model.stablehlo")),
        ("model.safetensors", "safetensors"),
    ):
        main(["export", str(run_dir), "--format", *options])
        assert capsys.readouterr().out.splitlines() == [str(files / name)]
    assert {path.name for path in files.iterdir()} == {
        *("model.onnx", "model-cells.onnx", "model.stablehlo", "model.safetensors")
    }


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["export", "--format", "onnx", "--int8"], "export --int8 is for classification, but .* is for detection"),
        (["export", "--format", "web"], "export --format web is for classification, but .* is for detection"),
        (["play", "--no-open"], "play is for classification, but .* is for detection"),
    ],
)
def test_what_a_detector_does_not_have_is_refused_before_anything_is_loaded(command, message, run_dir, monkeypatch):
    for module in ("exchange.exporting", "exchange.int8", "web.contents"):
        monkeypatch.setattr(f"cnn.{module}.load_best", lambda run_dir: pytest.fail("computes"))
    verb, *options = command
    with pytest.raises(cnn.ConfigError, match=message):
        main([verb, str(run_dir), *options])
    assert list(run_dir.iterdir()) == []
