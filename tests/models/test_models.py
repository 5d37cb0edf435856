"""All shipped experiments: known numbers of parameters, output shapes, and that they learn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn
from cnn.cli import load_experiment
from cnn.training.metrics import merge, zero_metrics
from cnn.training.state import abstract_state
from tests.helpers import assert_same, shrink

PARAMETERS = {
    # 784 * 10 weights and 10 biases.
    "softmax": 7_850,
    # 784 * 100 + 100 + 100 * 10 + 10.
    "dense": 79_510,
    # Keras' count of the chapter's network.
    "fashion_cnn": 333_526,
    "fashion_fast": 333_526,
    "fashion_full": 333_526,
    # 600 + 24, 9 * 24 * 64 + 64, 9 * 64 * 96 + 96, 9 * 96 * 96 + 96, 9 * 96 * 64 + 64; then 576, 256, 256 and 10 units.
    "alexnet": 624 + 13_888 + 55_392 + 83_040 + 55_360 + 147_712 + 65_792 + 2_570,
    # The paper's 0.27 million: 9 * 16, three stages of six convolutions, 10 * 65, and 2 values for each of the 688
    # normalized channels.
    "resnet20": 144 + 6 * 2_304 + (4_608 + 5 * 9_216) + (18_432 + 5 * 36_864) + 650 + 2 * 688,
    # One more block in the last stage.
    "fashion_best": 269_434 + 2 * 36_864 + 2 * 2 * 64,
    "efficientnet": 161_942,
    # 17 * 64 and 49 * 64 of the tokens, six blocks of 33,472, 2 * 64 of the last normalization, 10 * 65.
    "vit": 1_088 + 3_136 + 6 * (2 * 128 + 64 * 192 + 192 + 64 * 64 + 64 + 2 * 64 * 128 + 192) + 128 + 650,
    # 28 + 128 inputs of four gates of 128 units and their biases, 129 * 10.
    "lstm": (28 + 128 + 1) * 4 * 128 + 1_290,
}


SHRUNK = {
    "alexnet": {"features": 12, "dense_features": 64},
    "fashion_full": {"conv1_features": 8, "conv2_features": 16, "dense_features": 32},
    "resnet20": {"blocks": (1, 1, 1), "features": 4},
    "efficientnet": {"blocks": 1, "features": (8, 16)},
    "vit": {"blocks": 1, "features": 16},
    "lstm": {"features": 32},
}
"""Deep networks compile slowly, wide ones train slowly, and more of the same blocks test nothing new."""


def _shrunk(experiment):
    """The shipped experiment, with a smaller network, smaller batches and fewer epochs."""
    config = load_experiment(f"experiments.{experiment}")
    model = dataclasses.replace(config.model, **SHRUNK.get(experiment, {}))
    optim, train = dataclasses.replace(config.optim, batch_size=8), dataclasses.replace(config.train, epochs=14)
    return dataclasses.replace(config, model=model, optim=optim, train=train)


# The step alone compiles faster than the loop of an epoch.
def _train_epoch(state, split, batch_size):
    """Returns the state and the mean loss of the images; the last batch is padded and masked, as in train_epoch."""
    total = zero_metrics()
    for start in range(0, len(split.labels), batch_size):
        indices = np.arange(start, start + batch_size)
        mask, indices = indices < len(split.labels), indices % len(split.labels)
        state, metrics = cnn.train_step(state, cnn.Batch(split.images[indices], split.labels[indices], mask))
        total = merge(total, metrics)
    return state, float(total.loss)


@pytest.mark.parametrize(("experiment", "parameters"), PARAMETERS.items())
def test_experiments_have_the_known_number_of_parameters(experiment, parameters):
    state = abstract_state(load_experiment(f"experiments.{experiment}"), 500)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == parameters
    assert sum(row.parameters for row in cnn.layer_table(state)) == parameters


# fashion_best is resnet20 with one more block; fashion_cnn and fashion_fast have the network of fashion_full.
@pytest.mark.parametrize("experiment", sorted(PARAMETERS.keys() - {"fashion_best", "fashion_cnn", "fashion_fast"}))
def test_loss_decreases_and_every_layer_is_captured(experiment, small):
    config, few = _shrunk(experiment), shrink(small, 20).train
    state, losses = cnn.create_state(config, 20), []
    for _ in range(config.train.epochs):
        state, loss = _train_epoch(state, few, batch_size=8)
        losses.append(loss)
    assert losses[-1] < 0.9 * losses[0]
    maps = cnn.feature_maps(state, small.test.images[:2])
    assert [row.name for row in cnn.layer_table(state)] == list(maps) and list(maps)[-1] == "logits"
    assert maps["logits"].shape == (2, 10)
    probabilities = cnn.predict(state, small.test.images[:2])
    np.testing.assert_allclose(jax.nn.softmax(maps["logits"]), probabilities, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [cnn.ResNetConfig(blocks=(1, 1)), cnn.EfficientNetConfig(features=(16, 24), blocks=1), cnn.ViTConfig(blocks=1)],
    ids=["resnet", "efficientnet", "vit"],
)
def test_compiled_bfloat16_network_equals_layer_by_layer(model, small):
    config = cnn.ExperimentConfig(model=dataclasses.replace(model, dtype="bfloat16"))
    state, images = cnn.create_state(config), small.test.images[:4]
    expected = jax.nn.softmax(cnn.feature_maps(state, images)["logits"])
    np.testing.assert_allclose(cnn.predict(state, images), expected, atol=1e-6)


def test_bfloat16_epoch_reaches_the_loss_of_float32(full_config, small):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        model = dataclasses.replace(full_config.model, dtype=dtype)
        state = cnn.create_state(dataclasses.replace(full_config, model=model), 500)
        state, _ = _train_epoch(state, small.train, batch_size=50)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
        losses[dtype] = float(cnn.evaluate(state, small.val).loss)
    # 8 bits of precision: a few per cent after ten steps; the loss of an untrained network, 2.3, is three times as far.
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)
    assert losses["bfloat16"] != losses["float32"]


def test_softmax_regression_is_a_matrix_product(small):
    state = cnn.create_state(load_experiment("experiments.softmax"))
    logits = cnn.feature_maps(state, small.test.images[:5])["logits"]
    pixels = small.test.images[:5].reshape(5, -1) / 255
    np.testing.assert_allclose(logits, pixels @ np.asarray(state.params["logits"]["kernel"]), atol=1e-5)


def test_dense_network_has_the_configured_hidden_layers():
    config = cnn.ExperimentConfig(model=cnn.DenseConfig(features=(30, 20), dropout_rate=0.5))
    assert list(cnn.create_state(config).params) == ["dense1", "dense2", "logits"]
    deeper = dataclasses.replace(config, model=cnn.DenseConfig(features=()))
    assert list(cnn.create_state(deeper).params) == ["logits"]


TINY = cnn.ResNetConfig(blocks=(1,), features=4)


def test_running_statistics_are_saved_and_restored(config, small, tmp_path):
    optim = dataclasses.replace(config.optim, average_decay=0.9)
    small = shrink(small, 70)
    result = cnn.fit(dataclasses.replace(config, model=TINY, optim=optim), tmp_path, small)
    loaded, _ = cnn.load_best(tmp_path)
    assert loaded.batch_stats["norm"]["mean"].any()
    for name in ("params", "batch_stats", "ema"):
        assert_same(getattr(loaded, name), getattr(result.state, name))
    assert cnn.evaluate(loaded, small.test).accuracy == result.summary["test_accuracy"]


def test_skipped_update_keeps_the_running_statistics(config, small):
    skips = dataclasses.replace(config, model=TINY, train=dataclasses.replace(config.train, nan_policy="skip"))
    state = cnn.create_state(skips)
    before = jax.tree.map(np.asarray, state.batch_stats)
    # A label that is out of range makes the loss NaN.
    state, _ = cnn.train_step(state, cnn.Batch(small.train.images[:8], jnp.full(8, 10)))
    assert_same(state.batch_stats, before)
    state, _ = cnn.train_step(state, cnn.Batch(small.train.images[:8], small.train.labels[:8]))
    assert (state.batch_stats["norm"]["mean"] != before["norm"]["mean"]).any()


def test_transformer_features_must_be_a_multiple_of_heads():
    with pytest.raises(cnn.ConfigError, match="--model.features is 65, but must be a multiple of 4"):
        cnn.ViTConfig(features=65)
