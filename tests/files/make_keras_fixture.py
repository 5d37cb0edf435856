"""Makes keras2_narrow.tar.xz and keras2_narrow.npz, which the tests compare imported weights with.

Run by hand, twice, each time in an environment with one version of Keras 2; the second run adds its files:

    pip install tensorflow-cpu==2.13.1                  # Keras 2.13.1, Python 3.8 to 3.11
    pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0

    python tests/files/make_keras_fixture.py

The network is the chapter's, narrow, with random weights: as a Sequential; as a functional model with names by hand;
and with an inner Sequential. Each is saved in four ways. The .npz holds images, logits, and the layers' activations.
"""

import importlib
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def make_models(keras: Any) -> dict[str, Any]:
    """The three models, whose layers with weights are the same."""
    layers = keras.layers

    def conv(name: str | None) -> Any:
        return layers.Conv2D(4, 3, activation="relu", padding="same", name=name)

    def head(dense: str | None = None, logits: str | None = None) -> list[Any]:
        return [
            layers.Flatten(),
            layers.Dense(8, activation="relu", name=dense),
            layers.Dropout(0.4),
            layers.Dense(10, activation="softmax", name=logits),
        ]

    def body(first: str | None = None, second: str | None = None) -> list[Any]:
        return [conv(first), layers.MaxPooling2D(2), conv(second), layers.MaxPooling2D(2)]

    inputs = x = keras.Input((28, 28, 1))
    for layer in [*body("stem", "block"), *head("hidden", "classes")]:
        x = layer(x)
    inner = keras.Sequential([keras.Input((28, 28, 1)), *body()], name="features")
    return {
        "sequential": keras.Sequential([keras.Input((28, 28, 1)), *body(), *head()]),
        "functional": keras.Model(inputs, x),
        "inner": keras.Sequential([keras.Input((28, 28, 1)), inner, *head()]),
    }


def make_weights(model: Any) -> list[np.ndarray]:
    """Random weights, with which the classes differ."""
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.3, weight.shape).astype(np.float32) for weight in model.get_weights()]


def main(directory: Path) -> None:
    """Writes both files, or adds to the archive."""
    try:
        keras: Any = importlib.import_module("tf_keras")
    except ImportError:
        keras = importlib.import_module("keras")
    archive, models = directory / "keras2_narrow.tar.xz", make_models(keras)
    with tempfile.TemporaryDirectory() as temporary:
        if archive.exists():
            with tarfile.open(archive) as tar:
                tar.extractall(temporary)
        for name, model in models.items():
            model.compile("adam", "sparse_categorical_crossentropy")
            model.optimizer.build(model.trainable_variables)
            model.set_weights(make_weights(model))
            stem = f"{temporary}/{name}-{keras.__version__}"
            model.save(f"{stem}.h5")
            model.save(f"{stem}.keras")
            model.save_weights(f"{stem}.weights.h5")
            model.save_weights(f"{stem}-weights.h5")
        with tarfile.open(archive, "w:xz", preset=9) as tar:
            for path in sorted(Path(temporary).iterdir()):
                tar.add(path, path.name, filter=_without_owner)

    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1), np.uint8).repeat(7, 1).repeat(7, 2)
    model = models["sequential"]
    # Read when the layer is called.
    model.layers[-1].activation = keras.activations.linear
    used = {"conv1": 0, "conv2": 2, "dense": 5, "logits": 7}
    outputs = keras.Model(model.inputs, {name: model.layers[index].output for name, index in used.items()})
    arrays = outputs.predict(images.astype(np.float32) / 255)
    np.savez_compressed(directory / "keras2_narrow.npz", images=images, version=keras.__version__, **arrays)


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(Path(__file__).parent)
