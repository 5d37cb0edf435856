"""The chapter's notebook in Keras, on given images. Runs in the environment of the peers, without this package.

python benchmarks/keras_peer.py IMAGES.npz fit SEED    trains as the notebook does, and prints a line of JSON
python benchmarks/keras_peer.py IMAGES.npz epochs      trains and validates for an epoch for each line on stdin
"""

import importlib
import json
import os
import sys
import time
from typing import Any

import numpy as np

# TensorFlow takes oneDNN by itself on some processors only; it is the faster one on all that were tried.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH_SIZE = 32


def make_model(keras: Any, seed: int) -> Any:
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
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(images_path: str, command: str, seed: str = "0") -> None:
    """Runs a command of the module's docstring."""
    keras: Any = importlib.import_module("keras")
    arrays = np.load(images_path)
    (x, y), val, test = (
        (arrays[f"{split}_images"].astype(np.float32) / 255, arrays[f"{split}_labels"])
        for split in ("train", "val", "test")
    )
    model = make_model(keras, int(seed))
    if command == "epochs":
        print(json.dumps({"keras": keras.__version__, "backend": keras.backend.backend()}), flush=True)
        for _ in sys.stdin:
            begin = time.perf_counter()
            history = model.fit(x, y, batch_size=BATCH_SIZE, epochs=1, validation_data=val, verbose=0)
            seconds = time.perf_counter() - begin
            print(json.dumps({"seconds": seconds, "val_loss": history.history["val_loss"][0]}), flush=True)
        return
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    history = model.fit(
        x, y, batch_size=BATCH_SIZE, epochs=20, validation_data=val, callbacks=[stop], verbose=0
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


if __name__ == "__main__":
    main(*sys.argv[1:])
