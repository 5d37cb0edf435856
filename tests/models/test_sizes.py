"""Every shipped family takes images of any size and colour, or refuses them before anything compiles."""

import dataclasses

import jax
import numpy as np
import pytest

import cnn
from cnn.models.family import families
from cnn.training.state import abstract_state
from cnn.training.steps import train_loss

# Few blocks trace faster, and the others are alike.
FAMILIES = {
    "cnn": cnn.ModelConfig(),
    "dense": cnn.DenseConfig(),
    "alexnet": cnn.AlexNetConfig(),
    "resnet": cnn.ResNetConfig(blocks=(1, 1, 1)),
    "efficientnet": cnn.EfficientNetConfig(features=(16, 24, 40), blocks=1),
    "vit": cnn.ViTConfig(blocks=1),
    "recurrent": cnn.RecurrentConfig(features=8),
    "yolo": cnn.YoloConfig(blocks=(1,), features=4),
}
SIZES = [(8, 8, 1), (13, 11, 3), (28, 28, 1), (32, 32, 3), (96, 96, 3), (8, 96, 3)]


def _config(model: cnn.ModelConfig, shape: tuple[int, int, int]) -> cnn.ExperimentConfig:
    data = dataclasses.replace(
        cnn.DataConfig(), name="images", image_size=shape[:2], channels=shape[2], class_names=("a", "b", "c")
    )
    return cnn.ExperimentConfig(data=data, model=model)


def test_every_shipped_family_is_here():
    shipped = {name for name, family in families().items() if family.__module__.startswith("cnn.models.")}
    assert shipped == FAMILIES.keys()


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("model", FAMILIES.values(), ids=FAMILIES)
def test_a_family_traces_a_gradient_and_has_no_empty_layer(model, shape):
    state = abstract_state(_config(model, shape), 100)
    labels, outputs = (np.zeros((4, 2, 5), np.float32), 5 + 3) if model.task == "detection" else (np.zeros(4, int), 3)
    batch = cnn.Batch(np.zeros((4, *shape), np.uint8), labels)
    gradients, _ = jax.eval_shape(jax.grad(train_loss, has_aux=True), state.params, state, batch)
    assert jax.tree.map(lambda leaf: leaf.shape, gradients) == jax.tree.map(lambda leaf: leaf.shape, state.params)
    rows = cnn.layer_table(state)
    sizes = [size for row in rows for size in (*row.input_shape[1:], *row.output_shape[1:])]
    assert sizes and all(isinstance(size, int) and size > 0 for size in sizes)
    assert rows[-1].output_shape[-1] == outputs


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (FAMILIES["cnn"], (3, 96, 1), "--data.image_size is '3 x 96', but must be at least 4 x 4 with cnn"),
        (FAMILIES["alexnet"], (96, 7, 3), "--data.image_size is '96 x 7', but must be at least 8 x 8 with alexnet"),
        (FAMILIES["vit"], (8, 3, 1), "--model.patch_size is 4, but must be at most 3, the images' side"),
    ],
    ids=["cnn", "alexnet", "vit"],
)
def test_too_small_images_are_refused_in_one_line(model, shape, message):
    with pytest.raises(cnn.ConfigError) as raised:
        _config(model, shape)
    assert str(raised.value) == message
