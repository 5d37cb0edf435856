"""Our weights under the names and in the layouts of the peers, whose networks name their layers as ours do.

| ours, of a layer             | Keras                        | PyTorch, ``block1_conv1`` being ``block1.conv1`` |
|------------------------------|------------------------------|--------------------------------------------------|
| kernel [h, w, C, F]          | kernel                       | weight [F, C, h, w]                              |
| kernel [h, w, 1, C], depthwise | kernel [h, w, C, 1]        | weight [C, 1, h, w]                              |
| kernel [D, F]                | kernel                       | weight [F, D]                                    |
| bias; of a normalization     | bias; beta                   | bias                                             |
| scale                        | gamma                        | weight                                           |
| mean, variance               | moving_mean, moving_variance | running_mean, running_var                        |
| position [T, D]              | position                     | position                                         |
| kernel [D, 4 F] of an LSTM   | lstm_cell/kernel             | weight_ih_l0 [4 F, D]                            |
| recurrent_kernel [F, 4 F]    | lstm_cell/recurrent_kernel   | weight_hh_l0 [4 F, F]                            |
| bias [4 F]                   | lstm_cell/bias               | bias_ih_l0 [4 F]                                 |
"""

import re
from collections.abc import Callable

import numpy as np

Named = dict[str, np.ndarray]
"""Arrays by layer and leaf, such as ``conv1/kernel``."""

CHECKED_IMAGES = 32
"""Of the test images, whose logits are compared."""


def drawn(arrays: Named) -> Named:
    """Returns random values for all that is 0 or 1 before the first step, which would hide a wrong name or layout."""
    rng, values = np.random.default_rng(0), {}
    for name, array in arrays.items():
        noise = rng.uniform(-0.5, 0.5, array.shape).astype(np.float32)
        values[name] = np.asarray(array) + (0 if name.endswith("/kernel") else noise)
    return values


_KERAS = {"scale": "gamma", "mean": "moving_mean", "variance": "moving_variance"}
_TORCH_LSTM = {"kernel": "weight_ih_l0", "recurrent_kernel": "weight_hh_l0", "bias": "bias_ih_l0"}
_TORCH = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "variance": "running_var"}


def to_keras(arrays: Named) -> Named:
    """Returns our arrays by the paths of Keras' variables."""
    mapped = {}
    for name, array in arrays.items():
        layer, leaf = name.split("/")
        if leaf == "bias" and f"{layer}/scale" in arrays:
            leaf = "beta"
        depthwise = layer.endswith("_depthwise")
        layer = "recurrent/lstm_cell" if layer == "recurrent" else layer
        mapped[f"{layer}/{_KERAS.get(leaf, leaf)}"] = array.swapaxes(2, 3) if depthwise else array
    return mapped


def to_torch(arrays: Named) -> Named:
    """Returns our arrays by the names of PyTorch's parameters and buffers."""
    mapped = {}
    for name, array in arrays.items():
        layer, leaf = name.split("/")
        if leaf.endswith("kernel"):
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        layer = re.sub(r"^(block\d+)_", r"\1.", layer)
        names = _TORCH_LSTM if layer == "recurrent" else _TORCH
        mapped[f"{layer}.{names.get(leaf, leaf)}"] = array
    return mapped


def read(path: str, renamed: Callable[[Named], Named]) -> Named:
    """Returns the arrays of a file, renamed for a peer."""
    with np.load(path) as arrays:
        return renamed(dict(arrays))
