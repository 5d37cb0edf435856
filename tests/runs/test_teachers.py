"""Runs that are trained towards other runs' networks, and that keep the dynamics of their images."""

import dataclasses
import io
import shutil

import numpy as np
import pytest

import cnn
from cnn.look.dynamics import run_dynamics
from cnn.runs import checkpoint
from cnn.runs.derived import read_dynamics
from cnn.runs.teachers import load_teachers
from cnn.runs.verify import damaged, verify
from tests.helpers import Interrupted, assert_same, narrow
from tests.torture import outcome


@pytest.fixture(scope="module")
def taught(config, finished) -> cnn.ExperimentConfig:
    """Two epochs towards the finished run, saved every fifth step, with the dynamics of the images."""
    distill = cnn.DistillConfig(teacher=(str(finished),))
    return dataclasses.replace(narrow(config, epochs=2, seed=1, checkpoint_steps=5, dynamics=True), distill=distill)


@pytest.fixture(scope="module")
def whole(taught, small, tmp_path_factory):
    """The directory of that run, and its result."""
    run_dir = tmp_path_factory.mktemp("taught") / "run"
    return run_dir, cnn.fit(taught, run_dir, small)


def test_a_taught_run_resumes_within_an_epoch_to_the_same_bits(taught, whole, small, tmp_path, monkeypatch):
    def save(checkpoints, state, progress):
        checkpoint.save(checkpoints, state, progress)
        if int(state.step) == 21:
            raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("cnn.runs.fit.save", save)
        cnn.fit(taught, tmp_path / "run", small)
    resumed = cnn.fit(taught, tmp_path / "run", small)
    assert outcome(tmp_path / "run") == outcome(whole[0])
    assert_same(read_dynamics(tmp_path / "run", 2), read_dynamics(whole[0], 2))
    assert resumed.state.teachers == ()
    assert_same(cnn.load_best(tmp_path / "run")[0].params, whole[1].state.params)


def test_teachers_change_the_parameters_and_the_report_names_their_weights(taught, whole, small, tmp_path, finished):
    alone = cnn.fit(dataclasses.replace(taught, distill=cnn.DistillConfig()), tmp_path / "alone", small)
    assert not np.array_equal(alone.state.params["logits"]["kernel"], whole[1].state.params["logits"]["kernel"])
    assert (whole[0] / "teachers.txt").read_text().startswith(f"{finished}: weights ")


def test_dynamics_are_in_zero_to_one_for_every_image_and_epoch(whole, small):
    dynamics_2xExN = read_dynamics(whole[0], 2)
    assert dynamics_2xExN is not None
    probability_ExN, margin_ExN = dynamics_2xExN
    assert probability_ExN.shape == margin_ExN.shape == (2, len(small.train.labels))
    assert 0 < probability_ExN.min() and probability_ExN.max() <= 1
    dynamics = run_dynamics(whole[0])
    assert dynamics
    # Before and after, the network knows more of the images than by chance.
    assert dynamics.mean.mean() > 0.1


@pytest.fixture(scope="module")
def observed(whole, tmp_path_factory):
    """A copy of that run, whose dynamics tests change."""
    return shutil.copytree(whole[0], tmp_path_factory.mktemp("observed") / "run")


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04" + bytes(100),
        npy(np.zeros((2, 500), np.float16))[:-1],
        npy(np.zeros((2, 500), np.float16)).replace(b"(2, 500), }", b"(2, 500), (", 1),
        npy(np.zeros((2, 500))),
        npy(np.zeros((2, 499), np.float16)),
        npy(np.zeros((2, 501), np.float16)),
    ],
    ids=["empty", "archive", "truncated", "header", "dtype", "fewer", "more"],
)
def test_dynamics_that_are_damaged_or_of_other_images_are_one_line_and_verify_names_them(observed, content):
    path = observed / "dynamics" / "000002.npy"
    path.write_bytes(content)
    with pytest.raises(cnn.RunDirError, match="cannot read .*000002.npy: .*; restore a copy, or remove .*dynamics$"):
        run_dynamics(observed)
    assert damaged(verify(observed)) == ["dynamics"]


def test_streamed_images_have_the_same_dynamics(taught, whole, small, tmp_path, monkeypatch):
    # All images on the host, read in windows.
    monkeypatch.setattr("cnn.runs.streaming.place", lambda config, splits, mesh: splits)
    cnn.fit(taught, tmp_path / "run", small)
    assert_same(read_dynamics(tmp_path / "run", 2), read_dynamics(whole[0], 2))


def test_other_weights_of_a_teacher_are_refused_when_a_run_resumes(taught, small, tmp_path, finished, config):
    teacher = tmp_path / "teacher"
    shutil.copytree(finished, teacher)
    own = dataclasses.replace(taught, distill=cnn.DistillConfig(teacher=(str(teacher),)))

    def stop(row):
        raise Interrupted

    with pytest.raises(Interrupted):
        cnn.fit(own, tmp_path / "run", small, stop)
    shutil.rmtree(teacher)
    cnn.fit(narrow(config, epochs=1, seed=5), teacher, small)
    named = tmp_path / "run" / "teachers.txt"

    def refused():
        before = outcome_files(tmp_path / "run")
        with pytest.raises(cnn.RunDirError, match="the teachers have changed since the run was started"):
            cnn.fit(own, tmp_path / "run", small)
        assert outcome_files(tmp_path / "run") == before

    refused()
    # The latest checkpoint has the digest of the file.
    named.unlink()
    refused()
    named.write_text(load_teachers(own)[1])
    refused()


def test_a_run_that_records_its_teachers_nowhere_is_not_resumed(taught, whole, small, tmp_path):
    """Their file was removed while it trained, and so has no digest in the checkpoint."""
    named = tmp_path / "run" / "teachers.txt"

    def stop(row):
        raise Interrupted

    with pytest.raises(Interrupted):
        cnn.fit(taught, tmp_path / "run", small, stop, track=lambda row, state: named.unlink())
    with pytest.raises(cnn.RunDirError, match="teachers.txt, .* is missing; restore a copy, or name another --run-dir"):
        cnn.fit(taught, tmp_path / "run", small)
    shutil.copy(whole[0] / "teachers.txt", named)
    cnn.fit(taught, tmp_path / "run", small)
    assert outcome(tmp_path / "run") == outcome(whole[0])


def outcome_files(run_dir):
    """The names and contents of a run's files, without the lock."""
    return {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"teacher": ("missing",)}, "missing"), ({"temperature": 0.0}, "--distill.temperature is 0.0, but must be")],
)
def test_wrong_teachers_are_refused_before_anything_is_written(config, small, tmp_path, fields, message):
    with pytest.raises(cnn.UserError, match=message):
        cnn.fit(dataclasses.replace(narrow(config), distill=cnn.DistillConfig(**fields)), tmp_path / "run", small)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_teacher_of_other_classes_is_refused(taught, small, tmp_path):
    names = tuple("abcdefghij")
    own = dataclasses.replace(taught, data=dataclasses.replace(taught.data, class_names=names))
    with pytest.raises(cnn.ConfigError, match="whose class_names is .*name a run on the same data"):
        cnn.fit(own, tmp_path / "run", small)
