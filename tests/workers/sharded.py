"""The same functions on 1, 4 and 8 devices, in a process of its own, as JAX creates its devices once; in JSON."""

import dataclasses
import json
import tempfile
import warnings
from typing import Any

import jax
import numpy as np

import cnn
from benchmarks.devices import epoch
from cnn.config import MeshConfig
from cnn.devices import sharding
from cnn.training.metrics import zero_metrics
from tests.helpers import NARROW, Interrupted, interrupt_after, shrink

MESHES = [(1, 1), (8, 1), (2, 4)]
RESUMED = [((1, 1), (1, 1)), ((8, 1), (1, 1)), ((1, 1), (2, 4)), ((2, 4), (8, 1))]
"""The meshes of a run's first and second epoch: each is one of both."""


def mesh_config(data: int, model: int = 1) -> cnn.ExperimentConfig:
    return cnn.ExperimentConfig(
        model=dataclasses.replace(NARROW, dropout_rate=0.4),
        optim=cnn.OptimConfig(batch_size=50),
        train=cnn.TrainConfig(epochs=2),
        mesh=MeshConfig(data, model),
    )


def on_mesh(config: cnn.ExperimentConfig, small: cnn.Splits) -> dict[str, Any]:
    """Losses, evaluation, and where the arrays lie."""
    mesh = cnn.make_mesh(config.mesh)
    state = cnn.create_state(config, 330, mesh)
    kernel = state.params["conv2"]["kernel"]
    shards = sorted({(shard.device.id, shard.data.shape) for shard in kernel.addressable_shards})
    images = sharding.replicate(small, mesh)
    losses = []
    for _ in range(2):
        # The program that fit runs; an epoch takes 7 steps.
        state, metrics = cnn.train_steps(state, zero_metrics(), images.train, np.int32(7), batch_size=50)
        losses.append(float(metrics.loss))
    placed = state.params["conv2"]["kernel"].sharding.is_equivalent_to(kernel.sharding, 4)
    val = cnn.evaluate(state, images.val)
    state, step = cnn.train_step(state, cnn.Batch(small.train.images[:13], small.train.labels[:13]))
    return {
        "shards": shards,
        "placed": placed,
        "losses": losses,
        "step": float(step.loss),
        "val": [float(val.loss), int(val.correct), int(val.count)],
        "probabilities": np.asarray(cnn.predict(state, small.test.images[:7])).tolist(),
    }


def normalized(data: int, small: cnn.Splits) -> list[float]:
    """Augmentation draws for each image; statistics and EMA are those of the entire batch."""
    config = dataclasses.replace(
        mesh_config(data),
        model=cnn.ResNetConfig(blocks=(1,), features=4),
        augment=cnn.AugmentConfig(shift=2, mixup=0.5),
        optim=cnn.OptimConfig(name="sgd", batch_size=50, average_decay=0.9),
    )
    mesh = cnn.make_mesh(config.mesh)
    state = cnn.create_state(config, 330, mesh)
    state, metrics = cnn.train_epoch(state, sharding.replicate(small, mesh).train, batch_size=50)
    variances = state.eval_state.batch_stats["block1_norm2"]["variance"]
    return [float(metrics.loss), *map(float, variances)]


def detector(data: int, small: cnn.Splits) -> list[float]:
    """Scenes are composed for the entire batch, before it is sharded."""
    config = cnn.ExperimentConfig(
        data=cnn.DataConfig(scenes=48),
        model=cnn.YoloConfig(blocks=(0, 1, 0), features=4),
        optim=cnn.OptimConfig(name="sgd", learning_rate=1e-4, batch_size=50),
        mesh=MeshConfig(data),
    )
    mesh = cnn.make_mesh(config.mesh)
    state = cnn.create_state(config, 330, mesh)
    state, metrics = cnn.train_epoch(state, sharding.replicate(small, mesh).train, batch_size=50)
    return [float(metrics.loss), *map(float, state.params["box"]["bias"])]


def resumed(first: tuple[int, int], second: tuple[int, int], small: cnn.Splits) -> dict[str, Any]:
    """A run that is interrupted on one mesh and resumes on another, and its checkpoint."""
    with tempfile.TemporaryDirectory() as run_dir:
        try:
            cnn.fit(mesh_config(*first), run_dir, small, interrupt_after(1))
        except Interrupted:
            pass
        fitted = cnn.fit(mesh_config(*second), run_dir, small)
        best, _ = cnn.load_best(run_dir)
    pairs = zip(jax.tree.leaves(best.params), jax.tree.leaves(fitted.state.params), strict=True)
    return {
        "rows": [[row[name] for name in ("train_loss", "val_loss", "val_accuracy")] for row in fitted.history],
        "test": fitted.summary["test_accuracy"],
        "loaded": all(np.array_equal(a, b) for a, b in pairs),
        "loaded_devices": len(best.params["conv2"]["kernel"].devices()),
    }


def main() -> None:
    warnings.simplefilter("error")
    # jaxlib cannot serialize some of the programs for several devices, and warns.
    warnings.filterwarnings("ignore", "Error (writing|reading) persistent compilation cache entry")
    jax.config.update("jax_num_cpu_devices", 8)
    real = cnn.load_data(cnn.DataConfig())
    # Neither size is divisible by 8, nor are the batches of 50; those of one size share a program.
    small = shrink(real, 330, 131, 131)
    results: dict[str, Any] = {f"{data} x {model}": on_mesh(mesh_config(data, model), small) for data, model in MESHES}
    results |= {f"normalized {data}": normalized(data, small) for data in (1, 4)}
    results |= {f"detector {data}": detector(data, small) for data in (1, 2)}
    results["resumed"] = [resumed(first, second, small) for first, second in RESUMED]
    # A hundred steps, over which float32's rounding errors grow.
    longer = shrink(real, 3_199, 131, 110)
    batches = dataclasses.replace(mesh_config(1), optim=cnn.OptimConfig(batch_size=32))
    results["float64"] = [epoch(batches, longer, devices, "float64") for devices in (1, 8)]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
