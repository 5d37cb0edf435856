"""The networks of the rungs in Keras, with the layers of ``cnn/models`` under their names. Needs Keras."""

import importlib
from collections.abc import Callable
from typing import Any

keras: Any = importlib.import_module("keras")
layers, ops = keras.layers, keras.ops


def _conv(images: Any, name: str, features: int, size: int = 3, activation: str | None = "relu") -> Any:
    return layers.Conv2D(features, size, padding="same", activation=activation, name=name)(images)


def _dense(inputs: Any, name: str, features: int, activation: Any = None) -> Any:
    return layers.Dense(features, activation=activation, name=name)(inputs)


def _pool(images: Any) -> Any:
    return layers.MaxPooling2D(2)(images)


def _fashion_cnn(x: Any) -> Any:
    for number, features in enumerate((32, 64), 1):
        x = _pool(_conv(x, f"conv{number}", features))
    x = _dense(layers.Flatten()(x), "dense", 100, "relu")
    return layers.Dropout(0.4)(x)


def _lstm(x: Any) -> Any:
    return layers.Dropout(0.3)(layers.LSTM(128, name="recurrent")(layers.Reshape((28, 28))(x)))


def _alexnet(x: Any) -> Any:
    x = _pool(_conv(x, "conv1", 24, size=5))
    x = _pool(_conv(x, "conv2", 64))
    x = _conv(_conv(x, "conv3", 96), "conv4", 96)
    x = layers.Flatten()(_pool(_conv(x, "conv5", 64)))
    for number in (1, 2):
        x = layers.Dropout(0.5)(_dense(x, f"dense{number}", 256, "relu"))
    return x


def _norm(images: Any, name: str, activation: str | None) -> Any:
    outputs = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(images)
    return layers.Activation(activation)(outputs) if activation else outputs


def _plain_conv(images: Any, name: str, features: int, size: int = 3, strides: int = 1) -> Any:
    return layers.Conv2D(features, size, strides, padding="same", use_bias=False, name=name)(images)


def _resnet20(x: Any) -> Any:
    x = _norm(_plain_conv(x, "conv", 16), "norm", "relu")
    for number, features in enumerate([16] * 3 + [32] * 3 + [64] * 3, 1):
        block, shortcut, missing = f"block{number}", x, features - x.shape[-1]
        x = _plain_conv(x, f"{block}_conv1", features, strides=2 if missing else 1)
        x = _norm(x, f"{block}_norm1", "relu")
        x = _norm(_plain_conv(x, f"{block}_conv2", features), f"{block}_norm2", None)
        if missing:
            shortcut = ops.pad(shortcut[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, missing)))
        x = layers.Activation("relu")(layers.Add()([x, shortcut]))
    return layers.GlobalAveragePooling2D()(x)


def _efficientnet(x: Any) -> Any:
    x = _norm(_plain_conv(x, "conv", 16), "norm", "swish")
    blocks = [(16, 1, 1), *((features, 4, strides) for features in (24, 40, 80) for strides in (2, 1))]
    for number, (features, expansion, strides) in enumerate(blocks, 1):
        block, shortcut, channels = f"block{number}", x, x.shape[-1]
        if expansion > 1:
            x = _norm(_plain_conv(x, f"{block}_expand", expansion * channels, 1), f"{block}_norm1", "swish")
        x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=f"{block}_depthwise")(x)
        x = _norm(x, f"{block}_norm2", "swish")
        factors = _dense(layers.GlobalAveragePooling2D()(x), f"{block}_reduce", channels // 4, "swish")
        factors = _dense(factors, f"{block}_excite", x.shape[-1], "sigmoid")
        x = layers.Multiply()([x, layers.Reshape((1, 1, -1))(factors)])
        x = _norm(_plain_conv(x, f"{block}_project", features, 1), f"{block}_norm3", None)
        if x.shape == shortcut.shape:
            x = layers.Add()([x, shortcut])
    x = _norm(_plain_conv(x, "head", 320, 1), "head_norm", "swish")
    return layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))


class _Tokens(layers.Layer):
    """Flattens the pixels to tokens and adds a learned embedding of each position."""

    def build(self, shape: Any) -> None:
        self.position = self.add_weight(
            name="position", shape=(shape[1] * shape[2], shape[3]), initializer=keras.initializers.RandomNormal(0, 0.02)
        )

    def call(self, images: Any) -> Any:
        return ops.reshape(images, (-1, *self.position.shape)) + self.position


def _vit(x: Any) -> Any:
    def norm(tokens: Any, name: str) -> Any:
        return layers.LayerNormalization(epsilon=1e-6, name=name)(tokens)

    def gelu(tokens: Any) -> Any:
        return keras.activations.gelu(tokens, approximate=True)

    def add(tokens: Any, shortcut: Any) -> Any:
        return layers.Add()([layers.Dropout(0.1)(tokens), shortcut])

    x = _Tokens(name="tokens")(layers.Conv2D(64, 4, 4, name="patches")(x))
    for block in (f"block{number}" for number in range(1, 7)):
        heads = _dense(norm(x, f"{block}_norm1"), f"{block}_queries_keys_values", 3 * 64)
        attended = ops.dot_product_attention(*ops.split(ops.reshape(heads, (-1, 49, 12, 16)), 3, axis=2))
        x = add(_dense(ops.reshape(attended, (-1, 49, 64)), f"{block}_project", 64), x)
        hidden = _dense(norm(x, f"{block}_norm2"), f"{block}_dense1", 128, gelu)
        x = add(_dense(hidden, f"{block}_dense2", 64), x)
    return layers.GlobalAveragePooling1D()(norm(x, "norm"))


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "fashion_cnn": _fashion_cnn,
    "lstm": _lstm,
    "alexnet": _alexnet,
    "resnet20": _resnet20,
    "efficientnet": _efficientnet,
    "vit": _vit,
}
"""By the name of the rung, from images [B, 28, 28, 1] to the inputs of the last layer."""


def make_network(rung: str, seed: int = 0) -> Any:
    """Returns a network; its outputs are logits [B, 10], float32."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((28, 28, 1))
    logits = layers.Dense(10, dtype="float32", name="logits")(NETWORKS[rung](images))
    return keras.Model(images, logits)


def load(network: Any, arrays: dict[str, Any]) -> None:
    """Sets all weights and running statistics of a network; raises ValueError for a missing or unknown name."""
    variables = {variable.path: variable for variable in network.variables if "seed_generator" not in variable.path}
    if variables.keys() != arrays.keys():
        raise ValueError(f"names differ: {', '.join(sorted(variables.keys() ^ arrays.keys()))}")
    for name, variable in variables.items():
        variable.assign(arrays[name])
