"""Networks whose explanations are known."""

import dataclasses

import numpy as np

import cnn
from cnn.models.family import Family


def small_state(model: Family, shape: tuple[int, int, int], classes: int = 2) -> cnn.TrainState:
    """The initial state of a network for images of a shape."""
    names = tuple(f"class {label}" for label in range(classes))
    fields = {"name": "images", "image_size": shape[:2], "channels": shape[2], "class_names": names}
    return cnn.create_state(
        cnn.ExperimentConfig(data=dataclasses.replace(cnn.DataConfig(), **fields), model=model), 100
    )


def linear_state(kernel_HxWxCxK: np.ndarray) -> cnn.TrainState:
    """A softmax regression of these weights, without bias."""
    *shape, classes = kernel_HxWxCxK.shape
    state = small_state(cnn.DenseConfig(features=()), tuple(shape), classes)
    bias, kernel = np.zeros(classes, np.float32), kernel_HxWxCxK.reshape(-1, classes).astype(np.float32)
    return state.replace(params={"logits": {"kernel": kernel, "bias": bias}})


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
