"""The same functions on 1, 2, 4 and 8 devices: a process of its own, as JAX makes its devices once."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import cnn
from cnn.devices import sharding
from tests.helpers import ROOT

WORKER = """
import dataclasses, json, sys, tempfile
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
import cnn
from benchmarks.devices import epoch
from cnn.devices import sharding
from cnn.config import MeshConfig
from tests.helpers import NARROW

real = cnn.load_data(cnn.DataConfig())
# Neither divides by 8, nor do the batches of 50.
small = cnn.Splits(*(cnn.Split(s.images[:n], s.labels[:n]) for s, n in zip(real, (330, 131, 110))))

def config(data, model=1):
    return cnn.ExperimentConfig(
        model=dataclasses.replace(NARROW, dropout_rate=0.4),
        optim=cnn.OptimConfig(batch_size=50), train=cnn.TrainConfig(epochs=2), mesh=MeshConfig(data, model))

results = {}
for data, model in [(1, 1), (2, 1), (4, 1), (8, 1), (2, 4)]:
    mesh = cnn.make_mesh(MeshConfig(data, model))
    state = cnn.create_state(config(data, model), 330, mesh)
    kernel = state.params["conv2"]["kernel"]
    shards = sorted({(shard.device.id, shard.data.shape) for shard in kernel.addressable_shards})
    images = sharding.replicate(small, mesh)
    losses = []
    for _ in range(2):
        state, metrics = cnn.train_epoch(state, images.train, batch_size=50)
        losses.append(float(metrics.loss))
    placed = state.params["conv2"]["kernel"].sharding.is_equivalent_to(kernel.sharding, 4)
    val = cnn.evaluate(state, images.val)
    state, step = cnn.train_step(state, cnn.Batch(small.train.images[:13], small.train.labels[:13]))
    with tempfile.TemporaryDirectory() as run_dir:
        fitted = cnn.fit(config(data, model), run_dir, small)
        best, _ = cnn.load_best(run_dir)
        pairs = zip(jax.tree.leaves(best.params), jax.tree.leaves(fitted.state.params))
        loaded = all(np.array_equal(a, b) for a, b in pairs)
        one = len(best.params["conv2"]["kernel"].devices())
    results[f"{data} x {model}"] = {
        "shards": shards, "placed": placed, "losses": losses, "step": float(step.loss),
        "val": [float(val.loss), int(val.correct), int(val.count)],
        "fit": [row["val_loss"] for row in fitted.history], "test": fitted.summary["test_accuracy"],
        "loaded": loaded, "one": one,
        "probabilities": np.asarray(cnn.predict(state, small.test.images[:7])).tolist(),
    }

# Augmentation draws for each image, and statistics and averages are those of the whole batch.
for data in (1, 4):
    normalized = dataclasses.replace(
        config(data), model=cnn.ResNetConfig(blocks=(1,), features=4),
        augment=cnn.AugmentConfig(shift=2, mixup=0.5),
        optim=cnn.OptimConfig(name="sgd", batch_size=50, average_decay=0.9))
    mesh = cnn.make_mesh(normalized.mesh)
    state = cnn.create_state(normalized, 330, mesh)
    state, metrics = cnn.train_epoch(state, sharding.replicate(small, mesh).train, batch_size=50)
    variances = state.eval_state.batch_stats["block1_norm2"]["variance"]
    results[f"normalized {data}"] = [float(metrics.loss), *map(float, variances)]

# What eight have begun, one goes on with, and the other way round.
class Interrupted(Exception):
    pass

def after_one(row):
    raise Interrupted

def interrupted(first, second):
    with tempfile.TemporaryDirectory() as run_dir:
        try:
            cnn.fit(config(*first), run_dir, small, report=after_one)
        except Interrupted:
            pass
        return [row["val_loss"] for row in cnn.fit(config(*second), run_dir, small).history]

results["restarts"] = [interrupted((8, 1), (1, 1)), interrupted((1, 1), (2, 4)), interrupted((2, 4), (8, 1))]

# A hundred steps, over which float32's rounding errors grow.
longer = real._replace(train=cnn.Split(real.train.images[:3_199], real.train.labels[:3_199]), val=small.val)
batches = dataclasses.replace(config(1), optim=cnn.OptimConfig(batch_size=32))
results["float64"] = [epoch(batches, longer, devices, "float64") for devices in (1, 8)]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results():
    # jaxlib fails to serialize some of what it compiles for many devices, and warns.
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    worker = subprocess.run(
        [sys.executable, "-W", "error", "-c", WORKER],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert worker.returncode == 0, worker.stderr
    return json.loads(worker.stdout)


MESHES = ["2 x 1", "4 x 1", "8 x 1", "2 x 4"]


@pytest.mark.parametrize("mesh", MESHES)
def test_losses_are_those_of_one_device(results, mesh):
    one, many = results["1 x 1"], results[mesh]
    assert many["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert many["step"] == pytest.approx(one["step"], rel=1e-5)
    assert many["fit"] == pytest.approx(one["fit"], rel=1e-5)
    np.testing.assert_allclose(many["probabilities"], one["probabilities"], rtol=1e-4, atol=1e-6)


def test_in_float64_the_losses_of_a_hundred_steps_are_those_of_one_device(results):
    one, many = results["float64"]
    assert many.pop("devices") == 8 and one.pop("devices") == 1
    # What the losses are put out in is float32.
    assert many == {
        **one,
        "train_loss": pytest.approx(one["train_loss"], rel=1e-6),
        "val_loss": pytest.approx(one["val_loss"], rel=1e-6),
    }
    assert one["train_correct"] > 500


def test_augmentation_statistics_and_averages_are_those_of_one_device(results):
    assert results["normalized 4"] == pytest.approx(results["normalized 1"], rel=1e-4)


@pytest.mark.parametrize("mesh", MESHES)
def test_evaluation_counts_exactly_the_same(results, mesh):
    one, many = results["1 x 1"], results[mesh]
    assert many["val"][1:] == one["val"][1:] and many["val"][2] == 131
    assert many["val"][0] == pytest.approx(one["val"][0], rel=1e-5)
    assert many["test"] == one["test"]


@pytest.mark.parametrize("mesh", ["1 x 1", *MESHES])
def test_features_are_shared_out_over_the_model_axis_and_stay_there(results, mesh):
    data, model = map(int, mesh.split(" x "))
    shards = results[mesh]["shards"]
    assert len(shards) == data * model
    assert {tuple(shape) for _, shape in shards} == {(3, 3, 4, 4 // model)}
    assert results[mesh]["placed"]


@pytest.mark.parametrize("mesh", ["1 x 1", *MESHES])
def test_one_device_loads_what_many_have_saved(results, mesh):
    assert results[mesh]["loaded"] and results[mesh]["one"] == 1


def test_a_run_goes_on_with_another_number_of_devices(results):
    for losses in results["restarts"]:
        assert losses == pytest.approx(results["1 x 1"]["fit"], rel=1e-5)


@pytest.mark.parametrize(("data", "model"), [(2, 1), (1, 2), (0, 3)])
def test_more_devices_than_there_are_are_refused(data, model):
    with pytest.raises(
        cnn.ConfigError, match=f"--mesh.data {data} and --mesh.model {model} do not share out 1 devices"
    ):
        sharding.make_mesh(cnn.MeshConfig(data, model))
