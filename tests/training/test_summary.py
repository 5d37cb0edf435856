import dataclasses
from typing import Any

import jax
import pytest

import cnn
from cnn.training.state import abstract_state
from cnn.training.steps import apply_model
from cnn.training.summary import first_convolution, format_table, last_hidden_layer
from cnn.training.task import scale


def test_layer_table_equals_keras_summary_of_the_chapters_model(full_config):
    rows = cnn.layer_table(abstract_state(full_config))
    assert [(row.name, row.output_shape, row.parameters) for row in rows] == [
        ("conv1", (None, 28, 28, 32), 320),
        ("pool1", (None, 14, 14, 32), 0),
        ("conv2", (None, 14, 14, 64), 18_496),
        ("pool2", (None, 7, 7, 64), 0),
        ("flatten", (None, 3136), 0),
        ("dense", (None, 100), 313_700),
        ("dropout", (None, 100), 0),
        ("logits", (None, 10), 1_010),
    ]
    assert rows[0].input_shape == (None, 28, 28, 1)
    text = format_table(rows, "fashion_cnn")
    assert "333,526" in text and "conv2 (Conv)" in text


def test_flops_agree_with_xla(full_config, small):
    state = cnn.create_state(full_config)
    ours = sum(row.flops for row in cnn.layer_table(state))
    traced = jax.jit(apply_model).trace(state, state.params, scale(small.val.images[:64]))
    # A TPU gets the plain formulation. XLA also counts scaling, ReLU and the comparisons of pooling, and skips
    # products with the padding.
    costs: Any = traced.lower(lowering_platforms=("tpu",)).cost_analysis()
    assert costs["flops"] / 64 == pytest.approx(ours, rel=0.1)


def test_widths_and_classes_follow_the_configuration(config):
    model = cnn.ModelConfig(conv1_features=8, conv2_features=12, dense_features=20, classes=7)
    rows = cnn.layer_table(cnn.create_state(dataclasses.replace(config, data=cnn.DataConfig(), model=model)))
    assert [row.output_shape[-1] for row in rows if row.parameters] == [8, 12, 20, 7]
    assert sum(row.parameters for row in rows) == (9 + 1) * 8 + (72 + 1) * 12 + (588 + 1) * 20 + (20 + 1) * 7


@pytest.mark.parametrize(
    ("model", "first", "last"),
    [
        (cnn.ModelConfig(), "conv1", "dense"),
        (cnn.ResNetConfig(blocks=(1, 1, 1), features=4), "conv", "pool"),
        (cnn.ViTConfig(blocks=1, features=8), "patches", "pool"),
        (cnn.DenseConfig(features=()), None, "flatten"),
    ],
    ids=["cnn", "resnet", "vit", "softmax"],
)
def test_first_convolution_and_last_hidden_layer_of_each_family(model, first, last, config):
    rows = cnn.layer_table(abstract_state(dataclasses.replace(config, model=model)))
    assert (first_convolution(rows), last_hidden_layer(rows)) == (first, last)


def test_the_last_hidden_layer_of_a_network_with_only_logits_is_those(config):
    rows = cnn.layer_table(abstract_state(dataclasses.replace(config, model=cnn.DenseConfig(features=()))))
    assert last_hidden_layer(rows[-1:]) == last_hidden_layer([rows[0]._replace(kind="Dropout"), rows[-1]]) == "logits"
