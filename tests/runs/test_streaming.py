"""Images that are read from disk while the device trains: the same bits as with all images on the device."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn
from cnn.data.splits import data_digest
from cnn.runs import fit as loop
from cnn.runs import streaming
from cnn.runs.monitor import scores
from tests.helpers import Interrupted, assert_same, interrupt_after, shrink, without_times


def _streamed(config: cnn.ExperimentConfig, **train_fields) -> cnn.ExperimentConfig:
    """With room for 1 MiB of images."""
    data = dataclasses.replace(config.data, device_memory=1)
    return dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, **train_fields))


@pytest.fixture(scope="module")
def images(splits, tmp_path_factory) -> cnn.Splits:
    """1.4 MiB, memory-mapped; the last batch of training images and of validation images is not full."""
    directory = tmp_path_factory.mktemp("images")
    few = shrink(splits, 1490, 210, 190)
    for name, split in few._asdict().items():
        np.save(directory / f"{name}.npy", split.images)
    mapped = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in few._fields}
    return cnn.Splits(*(cnn.Split(mapped[name], split.labels) for name, split in few._asdict().items()))


@pytest.fixture(scope="module")
def in_memory(config, images, tmp_path_factory) -> cnn.Result:
    return cnn.fit(config, tmp_path_factory.mktemp("whole") / "run", images)


def _assert_equal(actual: cnn.Result, expected: cnn.Result) -> None:
    assert without_times(actual.history) == without_times(expected.history)
    numbers = [{**without_times(each.summary), "config_sha256": "", "sha256": ""} for each in (actual, expected)]
    assert numbers[0] == numbers[1]
    assert_same(actual.state.params, expected.state.params)
    assert_same(actual.state.opt_state, expected.state.opt_state)


def test_streamed_images_give_the_same_bits(config, images, in_memory, tmp_path, monkeypatch):
    placed, place = [], streaming.place
    monkeypatch.setattr(streaming, "place", lambda *args: placed.append(place(*args)) or placed[-1])
    _assert_equal(cnn.fit(_streamed(config), tmp_path / "run", images), in_memory)
    assert placed[0].train.images is images.train.images


def test_a_streamed_run_resumes_within_an_epoch(config, images, in_memory, tmp_path, monkeypatch):
    streamed = _streamed(config, checkpoint_steps=5)
    saved, save = [], loop.save

    def stop_within_the_second_epoch(checkpoints, state, progress):
        save(checkpoints, state, progress)
        saved.append(int(state.step))
        if saved[-1] == 47 + 20:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", stop_within_the_second_epoch)
        with pytest.raises(Interrupted):
            cnn.fit(streamed, tmp_path / "run", images)
    _assert_equal(cnn.fit(streamed, tmp_path / "run", images), in_memory)


def test_a_run_may_go_on_with_more_memory(config, images, in_memory, tmp_path):
    with pytest.raises(Interrupted):
        cnn.fit(_streamed(config), tmp_path / "run", images, report=interrupt_after(1))
    _assert_equal(cnn.fit(config, tmp_path / "run", images), in_memory)


def test_scores_of_classes_are_summed_over_windows(config, images, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "EVALUATION_BYTES", 3 * 128 * 784)
    state = cnn.create_state(config)
    assert len(list(streaming.evaluation_windows(images.val))) == 2
    placed = jax.tree.map(jnp.asarray, images.val)
    assert scores("val", state, images.val, "val_macro_f1") == scores("val", state, placed, "val_macro_f1")
    assert_same(streaming.evaluate_split(state, images.val), streaming.evaluate_split(state, placed))


def test_windows_fit_into_the_least_memory_of_all_processes(config, monkeypatch):
    mesh = cnn.make_mesh(config.mesh, config.train.device)
    for other, expected in ((3, 1), (0, 0)):
        monkeypatch.setattr(streaming, "allreduce_max", lambda number, other=other: max(number, -other))
        assert streaming._memory(_streamed(config), mesh) == expected << 20


def test_a_fused_run_needs_all_images_on_the_device(config, images, tmp_path):
    with pytest.raises(cnn.ConfigError, match="^--train.fused needs all images on the device"):
        cnn.fit(_streamed(config, fused=True), tmp_path / "run", images)


def test_pages_that_were_read_are_given_back(images):
    def resident() -> int:
        """Bytes of the mapping that are in memory, as Linux counts them for this process."""
        name, size = str(images.train.images.filename), 0
        for block in Path("/proc/self/smaps").read_text().split("VmFlags"):
            if name in block:
                size += 1024 * int(block.partition("\nRss:")[2].split()[0])
        return size

    images.train.images.sum()
    assert resident() > images.train.images.nbytes // 2
    digest = data_digest(images)
    assert resident() < 2**16
    assert data_digest(cnn.Splits(*(cnn.Split(np.array(one.images), one.labels) for one in images))) == digest
