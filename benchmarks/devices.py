"""Losses and correct counts of an epoch on one device and on several, in float32 and with the layers in float64.

python -m benchmarks.devices [--devices 1 2 8] [--images 48000] [--results DIR]

The devices are JAX's virtual devices of a CPU. They add in another order than one device, and training amplifies
rounding errors: in float64, where these are a billion times smaller at first, a remaining difference would be a bug.
"""

import dataclasses
from pathlib import Path
from typing import Any, cast

import jax

import cnn
from benchmarks.measure import RESULTS, run_main, write_result
from cnn.devices import sharding
from experiments.fashion_cnn import CONFIG


def epoch(config: cnn.ExperimentConfig, splits: cnn.Splits, devices: int, dtype: str) -> dict[str, Any]:
    """Returns the metrics of an epoch of training and validation on a number of devices, with the layers in a dtype."""
    with jax.enable_x64(dtype == "float64"):
        mesh = cnn.make_mesh(cnn.MeshConfig(devices))
        state = cnn.create_state(config, len(splits.train.labels), mesh)
        model = dataclasses.replace(cast(Any, state.spec.model).config)
        # Not an option of runs, which would have to enable JAX's 64-bit types for it.
        object.__setattr__(model, "dtype", dtype)
        state = state.replace(spec=state.spec._replace(model=model.module()))
        images = sharding.replicate(splits, mesh)
        state, train = cnn.train_epoch(state, images.train, batch_size=config.optim.batch_size)
        val = cnn.evaluate(state, images.val)
        return {
            "devices": devices,
            "dtype": dtype,
            "train_loss": float(train.loss),
            "train_correct": int(train.correct),
            "val_loss": float(val.loss),
            "val_correct": int(val.correct),
        }


def main(devices: tuple[int, ...] = (1, 2, 8), images: int = 48_000, results: Path = RESULTS) -> None:
    """Train and validate for an epoch, print the metrics, and write devices.json.

    Args:
        devices: Numbers of devices.
        images: Number of training images; a fourth of this number validates.
        results: Directory for devices.json.
    """
    jax.config.update("jax_num_cpu_devices", max(devices))
    splits = cnn.load_data(CONFIG.data)
    train, val = (
        cnn.Split(split.images[:count], split.labels[:count])
        for split, count in ((splits.train, images), (splits.val, images // 4))
    )
    rows = []
    for dtype in ("float32", "float64"):
        for number in devices:
            rows.append(epoch(CONFIG, splits._replace(train=train, val=val), number, dtype))
            print(rows[-1], flush=True)
    write_result(
        "devices",
        {
            "what": "losses and correct images of an epoch on one device and on several",
            "images": {"train": len(train.labels), "val": len(val.labels)},
            "batch_size": CONFIG.optim.batch_size,
            "rows": rows,
        },
        results,
    )


if __name__ == "__main__":
    run_main(main)
