"""The notebook and the networks of the rungs in Keras. Runs in the peers' environment, without this package.

python -m benchmarks.keras_peer IMAGES.npz fit SEED         trains as the notebook does, and prints a line of JSON
python -m benchmarks.keras_peer IMAGES.npz notebook SEED    20 epochs without early stopping, a line of JSON for each
python -m benchmarks.keras_peer IMAGES.npz serve PRECISION  answers requests, see benchmarks/protocol.py

KERAS_BACKEND names the backend, tensorflow or jax. fit and notebook run exactly as in the notebook. serve uses the
fastest settings available without writing a training loop: images are float32 in memory, oneDNN is on for
TensorFlow, jit_compile is Keras' own choice ("auto", which on CPU is off for TensorFlow; on, a step takes half as long
again), steps_per_execution is 16 for TensorFlow (a tenth faster than 1), which also gets its batches from a pipeline
without autotuning, and an epoch validates in batches of 1,000, on JAX of 125. PRECISION is float32 or bfloat16, which
is the policy mixed_bfloat16 with a softmax in float32. Steps of a rung are timed without ``fit``, whose start and end
would count in a few steps.
"""

import importlib
import json
import os
import sys
import time
from functools import cache
from typing import Any

import numpy as np

from benchmarks.protocol import images_per_second, load_split, mean_seconds, memory, serve, versions, warm_up_counts
from benchmarks.weights import CHECKED_IMAGES, read, to_keras

# TensorFlow uses oneDNN by default on some processors only; it was faster on all that were tried.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH_SIZE = 32
VAL_BATCH = 250


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


def scaled(images: np.ndarray) -> np.ndarray:
    """Returns uint8 images as float32 from 0 to 1."""
    return images.astype(np.float32) / 255


def load_scaled(path: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of a split as float32 from 0 to 1, and their labels."""
    images, labels = load_split(path, split)
    return scaled(images), labels


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

    def ways(network: Any) -> dict[str, Any]:
        """Returns the calls that give the probabilities of a batch."""
        return {
            "model.predict": lambda batch: network.predict(scaled(batch), batch_size=len(batch), verbose=0),
            "model.predict_on_batch": lambda batch: network.predict_on_batch(scaled(batch)),
            "model(x)": lambda batch: keras.ops.convert_to_numpy(network(scaled(batch), training=False)),
        }

    def predict(batch_size: int, seconds: float, rung: str = "") -> dict[str, Any]:
        called = ways(model(0))
        if rung:
            # For the chapter's network, the fastest at every batch size.
            called = {"model.predict_on_batch": ways(classifier(rung))["model.predict_on_batch"]}
        return {name: images_per_second(way, test_images(), batch_size, seconds) for name, way in called.items()}

    def step() -> dict[str, float]:
        x, y = splits()[0]
        return {"loss": float(model(32).train_on_batch(x[:32], y[:32])[0])}

    def make_network(rung: str) -> Any:
        return importlib.import_module("benchmarks.keras_networks").make_network(rung)

    def compiled(network: Any, steps_per_execution: int) -> Any:
        """Returns the network with what training needs; a call of its function then runs a number of steps."""
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.Adam(1e-3)
        network.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=steps_per_execution)
        return network

    def device() -> dict[str, str]:
        tf: Any = importlib.import_module("tensorflow")
        return {"device": "gpu" if tf.config.list_physical_devices("GPU") else "cpu"}

    @cache
    def trainer(rung: str, batch_size: int, images: int) -> tuple[Any, Any, float]:
        """Returns a network, the iterator that its training function takes, and the seconds of a first pass."""
        steps = images // batch_size
        network = compiled(make_network(rung), steps)
        x, y = splits()[0]
        batches = pipeline(x[:images], y[:images], batch_size, True).repeat()
        begin = time.perf_counter()
        network.fit(batches, steps_per_epoch=steps, verbose=0)
        return network, iter(batches), time.perf_counter() - begin

    @cache
    def evaluator(rung: str, images: int) -> tuple[Any, Any]:
        """Returns a network, and the iterator that its evaluation function takes."""
        network = compiled(make_network(rung), images // VAL_BATCH)
        x, y = splits()[1]
        batches = pipeline(x[:images], y[:images], VAL_BATCH, False)
        network.evaluate(batches, verbose=0)
        return network, iter(batches.repeat())

    def one_pass(network: Any, function: Any, batches: Any) -> dict[str, float]:
        network.reset_metrics()
        return {name: float(value) for name, value in function(batches).items()}

    def train(rung: str, batch_size: int, images: int, seconds: float) -> dict[str, float]:
        network, batches, _ = trainer(rung, batch_size, images)
        steps = images // batch_size
        return mean_seconds(lambda: one_pass(network, network.train_function, batches), steps, seconds)

    def validate(rung: str, batch_size: int, images: int, seconds: float) -> dict[str, float]:
        network, batches = evaluator(rung, images)
        return mean_seconds(lambda: one_pass(network, network.test_function, batches), 1, seconds)

    @cache
    def classifier(rung: str) -> Any:
        network = make_network(rung)
        return keras.Model(network.input, keras.layers.Softmax(dtype="float32")(network.output))

    def logits(rung: str, weights: str) -> dict[str, Any]:
        """Answers with the logits of test images from our weights."""
        network = make_network(rung)
        importlib.import_module("benchmarks.keras_networks").load(network, read(weights, to_keras))
        outputs = network.predict_on_batch(scaled(test_images()[:CHECKED_IMAGES]))
        parameters = sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)
        return {"parameters": parameters, "logits": outputs.tolist()}

    serve(
        {
            "versions": lambda: versions("keras", keras.backend.backend()),
            "warm_up": lambda batch_size, images: train_and_validate(batch_size, *warm_up_counts(batch_size, images)),
            "epoch": lambda batch_size, images: train_and_validate(batch_size, images, images // 4),
            "device": device,
            "compile": lambda rung, batch_size, images: {"seconds": trainer(rung, batch_size, images)[2]},
            "train": train,
            "validate": validate,
            "predict": predict,
            "logits": logits,
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
