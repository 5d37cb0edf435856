"""The same functions on 1, 4 and 8 devices: in a process of its own, as JAX creates its devices once."""

import json

import numpy as np
import pytest

import cnn
from cnn.devices import sharding
from tests.forked import Forked


@pytest.fixture(scope="module")
def results():
    worker = Forked("tests.workers.sharded")
    output, errors = worker.communicate(timeout=400)
    assert worker.returncode == 0, errors
    return json.loads(output)


MESHES = ["8 x 1", "2 x 4"]
"""Of each function, and of whole runs."""


@pytest.mark.parametrize("mesh", MESHES)
def test_losses_match_one_device(results, mesh):
    one, many = results["1 x 1"], results[mesh]
    assert many["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert many["step"] == pytest.approx(one["step"], rel=1e-5)
    np.testing.assert_allclose(many["probabilities"], one["probabilities"], rtol=1e-4, atol=1e-6)


def test_float64_losses_of_100_steps_match_one_device(results):
    one, many = results["float64"]
    assert many.pop("devices") == 8 and one.pop("devices") == 1
    # The losses are returned in float32.
    assert many == {
        **one,
        "train_loss": pytest.approx(one["train_loss"], rel=1e-6),
        "val_loss": pytest.approx(one["val_loss"], rel=1e-6),
    }
    assert one["train_correct"] > 500


def test_augmentation_batch_statistics_and_ema_match_one_device(results):
    assert results["normalized 4"] == pytest.approx(results["normalized 1"], rel=1e-4)


def test_a_detector_of_composed_scenes_matches_one_device(results):
    assert results["detector 2"] == pytest.approx(results["detector 1"], rel=1e-4)


@pytest.mark.parametrize("mesh", MESHES)
def test_evaluation_counts_match_exactly(results, mesh):
    one, many = results["1 x 1"], results[mesh]
    assert many["val"][1:] == one["val"][1:] and many["val"][2] == 131
    assert many["val"][0] == pytest.approx(one["val"][0], rel=1e-5)


@pytest.mark.parametrize("mesh", ["1 x 1", *MESHES])
def test_features_stay_sharded_over_the_model_axis(results, mesh):
    data, model = map(int, mesh.split(" x "))
    shards = results[mesh]["shards"]
    assert len(shards) == data * model
    assert {tuple(shape) for _, shape in shards} == {(3, 3, 4, 4 // model)}
    assert results[mesh]["placed"]


def test_checkpoint_of_many_devices_loads_on_one(results):
    """The best epoch is of the first or of the second mesh; each mesh is one of both."""
    assert all(run["loaded"] and run["loaded_devices"] == 1 for run in results["resumed"])


def test_run_resumes_on_another_number_of_devices(results):
    expected, *others = results["resumed"]
    assert len(others) == 3
    for run in others:
        np.testing.assert_allclose(run["rows"], expected["rows"], rtol=1e-5)
        assert run["test"] == expected["test"]


@pytest.mark.parametrize(("data", "model"), [(2, 1), (1, 2), (0, 3)])
def test_mesh_larger_than_the_devices_is_rejected(data, model):
    with pytest.raises(cnn.ConfigError, match=f"--mesh.data {data} and --mesh.model {model} do not fit 1 devices"):
        sharding.make_mesh(cnn.MeshConfig(data, model))
