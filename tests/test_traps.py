"""What the libraries do that nobody expects, tried on this project; docs/traps.md lists it with other tests."""

import dataclasses
import tomllib
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image

import cnn
from cnn.devices.sharding import replicate, unaliased
from cnn.exchange import exporting
from cnn.models.convolution import max_pool
from cnn.training.task import scale
from tests.helpers import NARROW, ROOT, assert_same, narrow


@pytest.fixture
def _optimized():
    """XLA optimizes as it does for users, in programs that compile fast."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy at an address that is a multiple of 64, of which XLA on a CPU makes no copy of its own."""
    memory = np.zeros(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("use", ["train_epoch", "evaluate", "predict"])
def test_a_later_write_to_the_callers_arrays_changes_no_result(config, small, use):
    """The caller overwrites them as soon as the function has returned, while it may still compute."""

    def result(write):
        state = cnn.create_state(config, len(small.train.labels))
        # 128 are not padded, which would be a copy.
        images, labels = (_aligned(array if use == "train_epoch" else array[:128]) for array in small.train)
        returned: Any = {
            "train_epoch": lambda: cnn.train_epoch(state, cnn.Split(images, labels), batch_size=32)[1],
            "evaluate": lambda: cnn.evaluate(state, cnn.Split(images, labels), batch_size=32),
            "predict": lambda: cnn.predict(state, images),
        }[use]()
        if write:
            images[...], labels[...] = 0, 0
        return jax.device_get(returned)

    expected = result(write=False)
    for _ in range(3):
        assert_same(result(write=True), expected)


def test_a_later_write_to_the_callers_arrays_changes_no_run_under_way(small):
    given = jax.tree.map(_aligned, small)
    on_device = replicate(given, cnn.make_mesh(cnn.MeshConfig(data=1), "cpu"))
    for array in jax.tree.leaves(given):
        array[...] = 0
    assert_same(on_device, small)


@pytest.mark.parametrize(("mode", "copied"), [("r", False), ("r+", True), ("c", True)])
def test_a_file_mapped_for_reading_only_is_not_copied(tmp_path, mode, copied):
    np.save(tmp_path / "images.npy", np.zeros((2, 28, 28, 1), np.uint8))
    images: np.ndarray = np.load(tmp_path / "images.npy", mmap_mode=mode)
    for array in (images, images[1:]):
        assert (unaliased(array) is not array) == copied
    frozen = np.zeros(3)[:]
    frozen.flags.writeable = False
    assert unaliased(frozen) is not frozen, "its owner can still write to it"


@pytest.mark.usefixtures("_optimized")
def test_a_compiled_pixel_is_within_one_ulp_of_numpys():
    pixels = np.arange(256, dtype=np.uint8)
    expected = pixels.astype(np.float32) / np.float32(255)
    compiled = np.asarray(jax.jit(scale)(pixels))
    np.testing.assert_array_max_ulp(compiled, expected, maxulp=1)
    assert (compiled[0], compiled[255]) == (0, 1)


@pytest.mark.usefixtures("_optimized")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_max_pooling_keeps_nan(dtype):
    rng = np.random.default_rng(0)
    images = np.where(rng.random((2, 28, 28, 32)) < 0.05, np.nan, rng.standard_normal((2, 28, 28, 32)))
    expected = np.isnan(images).reshape(2, 14, 2, 14, 2, 32).any((2, 4))
    pooled = jax.jit(max_pool)(jax.numpy.asarray(images, dtype))
    np.testing.assert_array_equal(np.isnan(pooled.astype("float32")), expected)


def test_a_nan_weight_before_every_pooling_makes_the_loss_nan(state, small):
    kernel = state.params["conv1"]["kernel"].at[0, 0, 0, 0].set(np.nan)
    params = {**state.params, "conv1": {**state.params["conv1"], "kernel": kernel}}
    metrics = cnn.evaluate(state.replace(params=params), small.val)
    assert np.isnan(metrics.loss) and np.isnan(metrics.accuracy)


def test_a_save_that_orbax_skips_is_an_error(monkeypatch, config, small, tmp_path):
    with ocp.training.Checkpointer(str(tmp_path / "orbax")) as checkpointer:
        assert checkpointer.save(5, {"a": jax.numpy.ones(3)})
        assert not checkpointer.save(3, {"a": jax.numpy.ones(3)}), "orbax reports it by now"
    monkeypatch.setattr(ocp.training.Checkpointer, "save", lambda *arguments, **named: False)
    with pytest.raises(cnn.RunDirError, match="cannot write the checkpoint of step 16"):
        cnn.fit(narrow(config), tmp_path / "run", small)


def test_a_bfloat16_network_is_exported_in_float32(tmp_path):
    config = cnn.ExperimentConfig(model=dataclasses.replace(NARROW, dtype="bfloat16"))
    state = cnn.create_state(config)
    (tmp_path / "model.safetensors").write_bytes(exporting.to_safetensors(state, config))
    loaded, _ = cnn.load_safetensors(tmp_path / "model.safetensors")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(loaded.params)} == {"float32"}
    assert_same(loaded.params, state.params)


def test_feature_maps_of_a_bfloat16_network_are_rounded_to_bfloat16(small):
    model = cnn.ResNetConfig(blocks=(1,), features=16, dtype="bfloat16")
    maps = cnn.feature_maps(cnn.create_state(cnn.ExperimentConfig(model=model)), small.test.images[:2])
    for name, outputs in maps.items():
        assert (outputs == outputs.astype("bfloat16").astype("float32")).all(), name


def test_shrinking_an_image_averages_its_pixels(tmp_path):
    """Of stripes one pixel wide, nearest or bilinear sampling without a filter keeps black and white ones."""
    Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (280, 140))).save(tmp_path / "stripes.png")
    shrunk = cnn.read_image(tmp_path / "stripes.png", invert=False)[2:-2, 2:-2]
    assert 100 < shrunk.min() and shrunk.max() < 155


def test_a_jaxlib_that_miscomputes_is_excluded():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [Requirement(line) for line in project["dependencies"]]
    (jax_versions,) = (requirement.specifier for requirement in requirements if requirement.name == "jax")
    assert "0.10.1" in jax_versions and "0.12.0.1" in jax_versions and "0.10.2" not in jax_versions
    assert Version(version("jaxlib")) != Version("0.10.2")
