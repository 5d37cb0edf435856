"""Exported files: loaded bitwise, run without this project, refused for another model; the command."""

import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.export import deserialize
from safetensors import numpy as safetensors

import cnn
from cnn.__main__ import main
from cnn.exchange import exporting as export
from tests.exchange.test_onnx_graph import images, random_state
from tests.helpers import NARROW, truncate

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = DOCS / "examples" / "run_stablehlo.py"
EMA_CONFIG = cnn.ExperimentConfig(
    name="ema", model=cnn.EfficientNetConfig(features=(4,)), optim=cnn.OptimConfig(average_decay=0.9)
)


def _run_example(model: Path, images: np.ndarray, directory: Path) -> np.ndarray:
    """The probabilities that the example prints, in a process without this package."""
    np.save(directory / "images.npy", images)
    code = f"import runpy, sys; runpy.run_path({str(SCRIPT)!r}, run_name='__main__'); assert 'cnn' not in sys.modules"
    run = subprocess.run(
        [sys.executable, "-c", code, model, directory / "images.npy"],
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return np.array([[float(value) for value in line.split()] for line in run.stdout.splitlines()])


def test_stablehlo_runs_without_this_project_for_any_batch(tmp_path):
    # Wide enough for Winograd's algorithm, which splits a batch into chunks.
    model = dataclasses.replace(NARROW, conv1_features=32, conv2_features=32)
    config = cnn.ExperimentConfig(model=model)
    state = random_state(config)
    content = export.to_stablehlo(state, config)
    (tmp_path / "model.stablehlo").write_bytes(content)
    expected = np.asarray(cnn.predict(state, images(7)))
    assert np.ptp(expected, 0).max() > 1e-2
    for count in (1, 7):
        probabilities = _run_example(tmp_path / "model.stablehlo", images(7)[:count], tmp_path)
        np.testing.assert_allclose(probabilities, expected[:count], atol=1e-5)
    network = deserialize(bytearray(content))
    assert network.platforms == ("cpu", "cuda", "tpu")
    # Plain convolutions, without the loop over chunks, and no directory of this machine.
    assert "stablehlo.convolution" in network.mlir_module() and "stablehlo.while" not in network.mlir_module()
    assert str(Path(cnn.__file__).parent).encode() not in content


@pytest.mark.parametrize(
    "family", [cnn.EfficientNetConfig(features=(4, 8), blocks=1), cnn.ViTConfig(blocks=1)], ids=["efficientnet", "vit"]
)
def test_other_families_are_exported_to_stablehlo(family):
    config = cnn.ExperimentConfig(model=family)
    state = random_state(config)
    network = deserialize(bytearray(export.to_stablehlo(state, config)))
    np.testing.assert_allclose(network.call(images(3)), cnn.predict(state, images(3)), atol=1e-5)


def _ema_file(path: Path) -> tuple[cnn.TrainState, Path]:
    state = random_state(EMA_CONFIG)
    path.write_bytes(export.to_safetensors(state, EMA_CONFIG))
    return state, path


def test_safetensors_are_loaded_bitwise(tmp_path):
    state, path = _ema_file(tmp_path / "model.safetensors")
    arrays = safetensors.load_file(path)
    assert arrays["params/conv/kernel"].shape == (3, 3, 1, 4) and "batch_stats/norm/mean" in arrays
    np.testing.assert_array_equal(arrays["params/logits/bias"], state.eval_state.params["logits"]["bias"])
    loaded, config = cnn.load_safetensors(path)
    assert config == EMA_CONFIG
    for name in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, getattr(loaded.eval_state, name), getattr(state.eval_state, name))
    # Steps donate a state's buffers, so each must be there once.
    assert loaded.ema["params"]["logits"]["bias"] is not loaded.params["logits"]["bias"]


def test_leaves_of_any_order_are_written_right():
    config = cnn.ExperimentConfig(model=cnn.DenseConfig(features=()))
    state = random_state(config)
    logits = state.params["logits"]
    changed = {"kernel": np.asfortranarray(logits["kernel"]), "bias": np.repeat(logits["bias"], 2)[::2]}
    assert not any(leaf.flags.c_contiguous for leaf in changed.values())
    written = safetensors.load(export.to_safetensors(state.replace(params={"logits": changed}), config))
    for name, leaf in logits.items():
        np.testing.assert_array_equal(written[f"params/logits/{name}"], leaf)


def _rename(arrays):
    arrays["params/logits/extra"] = arrays.pop("params/logits/bias")


def _shrink(arrays):
    arrays["params/conv/kernel"] = arrays["params/conv/kernel"][:2]


def _widen(arrays):
    arrays["batch_stats/norm/mean"] = arrays["batch_stats/norm/mean"].astype(np.float64)


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        (_rename, ["params/logits/bias missing -> float32 [10]", "params/logits/extra float32 [10] -> missing"]),
        (_shrink, ["params/conv/kernel float32 [2, 3, 1, 4] -> float32 [3, 3, 1, 4]"]),
        (_widen, ["batch_stats/norm/mean float64 [4] -> float32 [4]"]),
    ],
)
def test_a_leaf_that_does_not_match_is_named(tmp_path, monkeypatch, change, listed):
    monkeypatch.chdir(tmp_path)
    path = Path("model.safetensors")
    _ema_file(path)
    arrays = safetensors.load_file(path)
    change(arrays)
    metadata = {"config": json.dumps(dataclasses.asdict(EMA_CONFIG))}
    safetensors.save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, metadata)
    with pytest.raises(cnn.UserError) as refusal:
        cnn.load_safetensors(path)
    assert all(line in str(refusal.value) for line in listed) and str(refusal.value).count("->") == len(listed)


def test_a_damaged_or_foreign_file_is_one_line(tmp_path):
    _, path = _ema_file(tmp_path / "model.safetensors")
    truncate(path)
    safetensors.save_file({"weight": np.ones(3)}, tmp_path / "other.safetensors")
    safetensors.save_file({"weight": np.ones(3)}, tmp_path / "config.safetensors", {"config": '{"model": 3}'})
    for name, message in (
        ("model", "is damaged or not a safetensors file"),
        ("other", "has no configuration in its metadata"),
        ("config", "has a configuration that cannot be used"),
        ("missing", "is not a file"),
    ):
        with pytest.raises(cnn.UserError, match=message) as refusal:
            cnn.load_safetensors(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(refusal.value)


@pytest.fixture
def run_dir(tmp_path, monkeypatch) -> Path:
    """A run directory whose best network has random weights; no card is written."""
    config = cnn.ExperimentConfig(model=NARROW)
    monkeypatch.setattr("cnn.exchange.exporting.load_best", lambda run_dir: (random_state(config), config))
    monkeypatch.setattr("cnn.runs.rundir.read_description", lambda run_dir: {"config": config})
    monkeypatch.setattr("cnn.trust.exports.write_card", lambda *arguments, **named: None)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.mark.parametrize("format", export.FORMATS)
def test_the_command_writes_into_the_run_and_prints_the_path(format, run_dir, tmp_path, capsys):
    main(["export", str(run_dir), "--format", format])
    path = run_dir / "export" / f"model.{format}"
    assert capsys.readouterr().out.splitlines()[0] == str(path)
    # Also over what it has written before.
    for output in (tmp_path / "mine", tmp_path / "mine", path):
        main(["export", str(run_dir), "--format", format, "--output", str(output)])
        assert output.read_bytes() == path.read_bytes()


def test_the_examples_of_the_documentation_run(run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for format in ("onnx", "safetensors"):
        main(["export", str(run_dir), "--format", format, "--output", f"model.{format}"])
    detector = cnn.ExperimentConfig(data=cnn.DataConfig(scenes=48), model=cnn.YoloConfig(features=2, blocks=(0, 0)))
    Path("detector.onnx").write_bytes(export.to_onnx(random_state(detector), detector))
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "exporting.md").read_text(), flags=re.DOTALL):
        exec(block, names)
    np.testing.assert_allclose(names["probabilities"], cnn.predict(names["state"], names["images"]), atol=1e-4)


def test_the_suppression_of_a_classifier_or_of_weights_alone_is_refused(run_dir):
    for format, message in (
        ("onnx", "export --no-suppression is for detection, but .* is for classification"),
        ("safetensors", "--no-suppression has an effect only with --format onnx or stablehlo; name one, not safetens"),
        ("web", "--no-suppression has an effect only with --format onnx or stablehlo; name one, not web"),
    ):
        with pytest.raises(cnn.ConfigError, match=message):
            main(["export", str(run_dir), "--format", format, "--no-suppression"])
    assert list(run_dir.iterdir()) == []


def test_an_unwritable_path_is_one_line_and_leaves_no_file(run_dir, tmp_path, monkeypatch):
    with pytest.raises(cnn.ConfigError, match="is in .*missing, which is not a directory; name another file"):
        export.export_run(run_dir, "safetensors", tmp_path / "missing" / "model")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for output in (None, tmp_path / "model"):
        with pytest.raises(cnn.RunDirError, match="No space left on device; fix that, or name another path"):
            export.export_run(run_dir, "safetensors", output)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_link_as_the_export_directory_is_refused(run_dir, tmp_path):
    (run_dir / "export").symlink_to(tmp_path)
    with pytest.raises(cnn.RunDirError, match="export is a symbolic link"):
        export.export_run(run_dir, "safetensors")


@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_a_missing_package_names_the_extra_and_loads_nothing(format, tmp_path, monkeypatch):
    package = export.FORMATS[format].package
    assert package is not None
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(cnn.UserError, match=rf"the package {package} is not installed; run pip .*\[exchange\]"):
        export.export_run(tmp_path, format)
