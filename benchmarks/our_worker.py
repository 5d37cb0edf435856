"""This package as a measured process that answers the same requests as the peers.

python -m benchmarks.our_worker PRECISION    answers requests, see benchmarks/protocol.py

An epoch is one call of the compiled ``train_epoch`` and one of ``evaluate``, on uint8 images that are scaled in each
step; the metrics are read at the end. ``cnn.fit`` does the same in eight calls, between which it checks for signals.
"""

import dataclasses
import sys
import time
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import cnn
from benchmarks.protocol import CHAPTER, images_per_second, mean_seconds, memory, serve, versions
from benchmarks.weights import CHECKED_IMAGES, drawn
from cnn.cli import enable_compilation_cache, enable_onednn_bfloat16, load_experiment
from cnn.training.steps import batch_outputs


def main(precision: str) -> None:
    """Answers requests until stdin ends."""

    @cache
    def config(rung: str) -> cnn.ExperimentConfig:
        """Returns the network of a rung with the default of all else: Adam, no augmentation, no EMA."""
        model = load_experiment(f"experiments.{rung}").model
        return cnn.ExperimentConfig(model=dataclasses.replace(model, dtype=precision))

    enable_onednn_bfloat16(config(CHAPTER))
    enable_compilation_cache()
    states: dict[tuple[str, int], cnn.TrainState] = {}

    @cache
    def splits() -> cnn.Splits:
        return cnn.load_data(config(CHAPTER).data)

    @cache
    def on_device(name: str, count: int) -> cnn.Split:
        return jax.device_put(jax.tree.map(lambda array: array[:count], getattr(splits(), name)))

    @cache
    def train_program(rung: str, batch_size: int, images: int) -> tuple[Any, float]:
        """Returns the compiled program of an epoch of training, and the seconds to trace and compile it."""
        train, state = on_device("train", images), cnn.create_state(config(rung))
        begin = time.perf_counter()
        program = cnn.train_epoch.lower(state, train, batch_size=batch_size).compile()
        states[rung, batch_size] = state
        return program, time.perf_counter() - begin

    @cache
    def eval_program(rung: str, images: int) -> Any:
        return cnn.evaluate.lower(cnn.create_state(config(rung)), on_device("val", images)).compile()

    def run_epoch(rung: str, batch_size: int, images: int) -> Any:
        """Returns the metrics of an epoch of training, which are not computed yet."""
        program, _ = train_program(rung, batch_size, images)
        states[rung, batch_size], metrics = program(states[rung, batch_size], on_device("train", images))
        return metrics

    def warm_up(batch_size: int, images: int) -> dict[str, float]:
        begin = time.perf_counter()
        train_program(CHAPTER, batch_size, images)
        eval_program(CHAPTER, images // 4)
        return {"seconds": time.perf_counter() - begin}

    def epoch(batch_size: int, images: int) -> dict[str, float]:
        evaluate, val = eval_program(CHAPTER, images // 4), on_device("val", images // 4)
        train_program(CHAPTER, batch_size, images)
        begin = time.perf_counter()
        train_metrics = run_epoch(CHAPTER, batch_size, images)
        _, val_metrics = jax.device_get((train_metrics, evaluate(states[CHAPTER, batch_size], val)))
        return {"seconds": time.perf_counter() - begin, "val_loss": float(val_metrics.loss)}

    def train(rung: str, batch_size: int, images: int, seconds: float) -> dict[str, float]:
        steps = images // batch_size
        return mean_seconds(lambda: {"loss": float(run_epoch(rung, batch_size, images).loss)}, steps, seconds)

    def validate(rung: str, batch_size: int, images: int, seconds: float) -> dict[str, float]:
        evaluate, val = eval_program(rung, images), on_device("val", images)
        return mean_seconds(lambda: {"loss": float(evaluate(states[rung, batch_size], val).loss)}, 1, seconds)

    def predict(batch_size: int, seconds: float, rung: str = CHAPTER) -> dict[str, float]:
        state, images = cnn.create_state(config(rung)), np.asarray(splits().test.images)
        return {
            "cnn.predict": images_per_second(
                lambda batch: np.asarray(cnn.predict(state, batch)), images, batch_size, seconds
            )
        }

    def step() -> dict[str, float]:
        train = splits().train
        _, metrics = cnn.train_step(cnn.create_state(config(CHAPTER)), cnn.Batch(train.images[:32], train.labels[:32]))
        return {"loss": float(metrics.loss)}

    def logits(rung: str, weights: str) -> dict[str, Any]:
        """Writes drawn weights to a file for the peers, and answers with the logits of test images."""
        state = cnn.create_state(config(rung))
        flatten: Any = partial(flatten_dict, sep="/")
        trees: dict[str, Any] = {name: drawn(flatten(getattr(state, name))) for name in ("params", "batch_stats")}
        np.savez(weights, **trees["params"], **trees["batch_stats"])
        state = state.replace(**{name: unflatten_dict(arrays, sep="/") for name, arrays in trees.items()})
        outputs = jax.jit(batch_outputs)(state, splits().test.images[:CHECKED_IMAGES])
        return {"parameters": sum(array.size for array in trees["params"].values()), "logits": outputs.tolist()}

    serve(
        {
            "versions": lambda: versions("jax", "flax"),
            "device": lambda: {"device": jax.devices()[0].platform},
            "warm_up": warm_up,
            "epoch": epoch,
            "compile": lambda rung, batch_size, images: {"seconds": train_program(rung, batch_size, images)[1]},
            "train": train,
            "validate": validate,
            "predict": predict,
            "step": step,
            "logits": logits,
            "memory": memory,
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
