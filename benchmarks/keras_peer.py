"""The chapter's network in Keras, on given images. Runs in the peers' environment, without this package.

python -m benchmarks.keras_peer IMAGES.npz fit SEED         trains as the notebook does, and prints a line of JSON
python -m benchmarks.keras_peer IMAGES.npz notebook SEED    20 epochs without early stopping, a line of JSON for each
python -m benchmarks.keras_peer IMAGES.npz serve PRECISION  answers requests, see benchmarks/protocol.py

KERAS_BACKEND names the backend, tensorflow or jax. fit and notebook run exactly as in the notebook. serve uses the
fastest settings available without writing a training loop: images are float32 in memory, oneDNN is on for
TensorFlow, jit_compile is Keras' own choice ("auto", which on CPU is off for TensorFlow; on, a step takes half as long
again), steps_per_execution is 16 for TensorFlow (a tenth faster than 1), which also gets its batches from a pipeline
without autotuning, and an epoch validates in batches of 1,000, on JAX of 125. PRECISION is float32 or bfloat16, which
is the policy mixed_bfloat16 with a softmax in float32.
"""

import importlib
import json
import os
import sys
import time
from functools import cache
from typing import Any

import numpy as np

from benchmarks.protocol import images_per_second, load_split, memory, serve, versions, warm_up_counts

# TensorFlow uses oneDNN by default on some processors only; it was faster on all that were tried.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH_SIZE = 32


def make_model(keras: Any, seed: int, steps_per_execution: int = 1) -> Any:
    """Returns the notebook's model, compiled."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu", padding="same"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu", padding="same"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(100, activation="relu"),
            layers.Dropout(0.4),
            layers.Dense(10, activation="softmax", dtype="float32"),
        ]
    )
    model.compile(
        optimizer="adam",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    return model


def load_scaled(path: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of a split as float32 from 0 to 1, and their labels."""
    images, labels = load_split(path, split)
    return images.astype(np.float32) / 255, labels


def fit(keras: Any, path: str, seed: str) -> None:
    """Trains with early stopping, and prints the metrics of the best epoch."""
    train, val, test = (load_scaled(path, split) for split in ("train", "val", "test"))
    model = make_model(keras, int(seed))
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    history = model.fit(
        *train, batch_size=BATCH_SIZE, epochs=20, validation_data=val, callbacks=[stop], verbose=0
    ).history
    val_loss, val_accuracy = model.evaluate(*val, verbose=0)
    test_loss, test_accuracy = model.evaluate(*test, verbose=0)
    print(
        json.dumps(
            {
                "best_epoch": 1 + int(np.argmin(history["val_loss"])),
                "stopped_epoch": len(history["val_loss"]),
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "test_loss": test_loss,
                "test_accuracy": test_accuracy,
            }
        )
    )


def notebook(keras: Any, path: str, seed: str, epochs: str = "20") -> None:
    """Trains as the notebook does first, and prints the validation metrics after each epoch."""
    train, val = (load_scaled(path, split) for split in ("train", "val"))

    def report(epoch: int, logs: dict[str, float]) -> None:
        print(json.dumps({"epoch": epoch + 1, **{key: float(value) for key, value in logs.items()}}), flush=True)

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=report)]
    make_model(keras, int(seed)).fit(
        *train, batch_size=BATCH_SIZE, epochs=int(epochs), validation_data=val, callbacks=callbacks, verbose=0
    )


def pipeline(images: np.ndarray, labels: np.ndarray, batch_size: int, shuffled: bool) -> Any:
    """Returns a tf.data.Dataset of batches, without autotuning.

    With autotuning, as in the pipeline that Keras makes from arrays, the end of an epoch mostly waits for a thread that
    sleeps for 10 ms, 20 ms, 40 ms and so on: epochs of 21 seconds take 41.
    """
    tf: Any = importlib.import_module("tensorflow")
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    indices = tf.data.Dataset.range(len(images))
    indices = indices.shuffle(len(images)) if shuffled else indices
    batches = indices.batch(batch_size).map(lambda batch: (tf.gather(images, batch), tf.gather(labels, batch)))
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)


def serve_requests(keras: Any, path: str, precision: str) -> None:
    """Answers requests until stdin ends."""
    keras.config.set_dtype_policy({"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision])
    on_tensorflow = keras.backend.backend() == "tensorflow"

    @cache
    def model(batch_size: int) -> Any:
        # JAX would unroll the steps, and compile time would grow with their number.
        return make_model(keras, 0, steps_per_execution=16 if on_tensorflow else 1)

    @cache
    def splits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        return load_scaled(path, "train"), load_scaled(path, "val")

    @cache
    def test_images() -> np.ndarray:
        return load_split(path, "test")[0]

    @cache
    def batches(batch_size: int, train_images: int, val_images: int) -> dict[str, Any]:
        (x, y), (val_x, val_y) = splits()
        train, val = (x[:train_images], y[:train_images]), (val_x[:val_images], val_y[:val_images])
        if on_tensorflow:
            return {"x": pipeline(*train, batch_size, True), "validation_data": pipeline(*val, 1000, False)}
        arrays = {"x": train[0], "y": train[1], "batch_size": batch_size}
        return {**arrays, "validation_data": val, "validation_batch_size": 125}

    def train_and_validate(batch_size: int, train_images: int, val_images: int) -> dict[str, float]:
        arguments = batches(batch_size, train_images, val_images)
        begin = time.perf_counter()
        history = model(batch_size).fit(**arguments, verbose=0)
        return {"seconds": time.perf_counter() - begin, "val_loss": float(history.history["val_loss"][0])}

    def predict(batch_size: int, seconds: float) -> dict[str, Any]:
        ways = {
            "model.predict": lambda batch: model(0).predict(
                batch.astype(np.float32) / 255, batch_size=batch_size, verbose=0
            ),
            "model.predict_on_batch": lambda batch: model(0).predict_on_batch(batch.astype(np.float32) / 255),
            "model(x)": lambda batch: keras.ops.convert_to_numpy(
                model(0)(batch.astype(np.float32) / 255, training=False)
            ),
        }
        return {name: images_per_second(way, test_images(), batch_size, seconds) for name, way in ways.items()}

    def step() -> dict[str, float]:
        x, y = splits()[0]
        return {"loss": float(model(32).train_on_batch(x[:32], y[:32])[0])}

    serve(
        {
            "versions": lambda: versions("keras", keras.backend.backend()),
            "warm_up": lambda batch_size, images: train_and_validate(batch_size, *warm_up_counts(batch_size, images)),
            "epoch": lambda batch_size, images: train_and_validate(batch_size, images, images // 4),
            "predict": predict,
            "step": step,
            "memory": memory,
        }
    )


def main(path: str, command: str, *arguments: str) -> None:
    """Runs a command of the module's docstring."""
    keras: Any = importlib.import_module("keras")
    {"fit": fit, "notebook": notebook, "serve": serve_requests}[command](keras, path, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
