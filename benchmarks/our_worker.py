"""This package as a measured process that answers the same requests as the peers.

python -m benchmarks.our_worker PRECISION    answers requests, see benchmarks/protocol.py

An epoch is one call of the compiled ``train_epoch`` and one of ``evaluate``, on uint8 images that are scaled in each
step; the metrics are read at the end. ``cnn.fit`` does the same in eight calls, between which it checks for signals.
"""

import dataclasses
import sys
import time
from functools import cache
from typing import Any

import jax
import numpy as np

import cnn
from benchmarks.protocol import images_per_second, memory, serve, versions
from cnn.cli import enable_compilation_cache, enable_onednn_bfloat16
from experiments.fashion_cnn import CONFIG


def main(precision: str) -> None:
    """Answers requests until stdin ends."""
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, dtype=precision))
    enable_onednn_bfloat16(config)
    enable_compilation_cache()
    states: dict[int, cnn.TrainState] = {}

    @cache
    def splits() -> cnn.Splits:
        return cnn.load_data(config.data)

    @cache
    def on_device(name: str, count: int) -> cnn.Split:
        return jax.device_put(jax.tree.map(lambda array: array[:count], getattr(splits(), name)))

    @cache
    def programs(batch_size: int, images: int) -> tuple[Any, Any]:
        """Returns the compiled programs of an epoch of training and of its validation."""
        train, val = on_device("train", images), on_device("val", images // 4)
        state = states[batch_size] = cnn.create_state(config)
        return (
            cnn.train_epoch.lower(state, train, batch_size=batch_size).compile(),
            cnn.evaluate.lower(state, val).compile(),
        )

    def warm_up(batch_size: int, images: int) -> dict[str, float]:
        begin = time.perf_counter()
        programs(batch_size, images)
        return {"seconds": time.perf_counter() - begin}

    def epoch(batch_size: int, images: int) -> dict[str, float]:
        train_epoch, evaluate = programs(batch_size, images)
        train, val = on_device("train", images), on_device("val", images // 4)
        begin = time.perf_counter()
        states[batch_size], train_metrics = train_epoch(states[batch_size], train)
        _, val_metrics = jax.device_get((train_metrics, evaluate(states[batch_size], val)))
        return {"seconds": time.perf_counter() - begin, "val_loss": float(val_metrics.loss)}

    def compile_seconds(batch_size: int, images: int) -> dict[str, float]:
        train, state = on_device("train", images), cnn.create_state(config)
        begin = time.perf_counter()
        cnn.train_epoch.lower(state, train, batch_size=batch_size).compile()
        return {"seconds": time.perf_counter() - begin}

    def predict(batch_size: int, seconds: float) -> dict[str, float]:
        state, images = cnn.create_state(config), np.asarray(splits().test.images)
        return {
            "cnn.predict": images_per_second(
                lambda batch: np.asarray(cnn.predict(state, batch)), images, batch_size, seconds
            )
        }

    def step() -> dict[str, float]:
        train = splits().train
        _, metrics = cnn.train_step(cnn.create_state(config), cnn.Batch(train.images[:32], train.labels[:32]))
        return {"loss": float(metrics.loss)}

    serve(
        {
            "versions": lambda: versions("jax", "flax"),
            "warm_up": warm_up,
            "epoch": epoch,
            "compile": compile_seconds,
            "predict": predict,
            "step": step,
            "memory": memory,
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
