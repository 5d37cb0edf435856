"""Every rung of the ladder: its parameters and shapes against known numbers, and that it learns."""

import dataclasses

import jax
import numpy as np
import pytest

import cnn
from cnn.__main__ import load_experiment
from cnn.training.state import abstract_state

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
    # channels that are normalized.
    "resnet20": 144 + 6 * 2_304 + (4_608 + 5 * 9_216) + (18_432 + 5 * 36_864) + 650 + 2 * 688,
    # A block more in the last stage.
    "fashion_best": 269_434 + 2 * 36_864 + 2 * 2 * 64,
    "efficientnet": 161_942,
    # 17 * 64 and 49 * 64 of the tokens, six blocks of 33,472, 2 * 64 of the last normalization, 10 * 65.
    "vit": 1_088 + 3_136 + 6 * (2 * 128 + 64 * 192 + 192 + 64 * 64 + 64 + 2 * 64 * 128 + 192) + 128 + 650,
}


FEWER_BLOCKS = {
    "resnet20": {"blocks": (1, 1, 1)},
    "efficientnet": {"blocks": 1, "features": (8, 16)},
    "vit": {"blocks": 1},
}
"""Deep networks take long to compile, and more of the same blocks show nothing new."""


def _shrunk(experiment):
    """The shipped experiment, with fewer blocks, smaller batches and fewer epochs."""
    config = load_experiment(f"experiments.{experiment}")
    model = dataclasses.replace(config.model, **FEWER_BLOCKS.get(experiment, {}))
    optim, train = dataclasses.replace(config.optim, batch_size=32), dataclasses.replace(config.train, epochs=3)
    return dataclasses.replace(config, model=model, optim=optim, train=train)


@pytest.mark.parametrize(("experiment", "parameters"), PARAMETERS.items())
def test_an_experiment_has_the_known_number_of_parameters(experiment, parameters):
    state = abstract_state(load_experiment(f"experiments.{experiment}"), 500)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == parameters
    assert sum(row.parameters for row in cnn.layer_table(state)) == parameters


# The best is resnet20 with a block more.
@pytest.mark.parametrize("experiment", [name for name in PARAMETERS if name != "fashion_best"])
def test_the_loss_falls_on_real_images_and_every_layer_is_captured(experiment, small):
    config = _shrunk(experiment)
    state, losses = cnn.create_state(config, 500), []
    # Batches that 500 images do not fill.
    for _ in range(config.train.epochs):
        state, metrics = cnn.train_epoch(state, small.train, batch_size=32)
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.9 * losses[0]
    maps = cnn.feature_maps(state, small.test.images[:2])
    assert [row.name for row in cnn.layer_table(state)] == list(maps) and list(maps)[-1] == "logits"
    assert maps["logits"].shape == (2, 10)
    probabilities = cnn.predict(state, small.test.images[:2])
    np.testing.assert_allclose(jax.nn.softmax(maps["logits"]), probabilities, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [cnn.ResNetConfig(blocks=(1, 1)), cnn.EfficientNetConfig(features=(16, 24), blocks=1), cnn.ViTConfig(blocks=1)],
)
def test_a_compiled_bfloat16_network_is_the_one_that_goes_layer_by_layer(model, small):
    config = cnn.ExperimentConfig(model=dataclasses.replace(model, dtype="bfloat16"))
    state, images = cnn.create_state(config), small.test.images[:4]
    wanted = jax.nn.softmax(cnn.feature_maps(state, images)["logits"])
    np.testing.assert_allclose(cnn.predict(state, images), wanted, atol=1e-6)


def test_a_bfloat16_epoch_learns_what_a_float32_epoch_learns(config, small):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        state = cnn.create_state(dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype)), 500)
        state, _ = cnn.train_epoch(state, small.train, batch_size=50)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
        losses[dtype] = float(cnn.evaluate(state, small.val).loss)
    # 8 bits of precision: some per cent after ten steps, where an untrained network's 2.3 is three times as far.
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)
    assert losses["bfloat16"] != losses["float32"]


def test_softmax_regression_is_a_product_with_the_pixels(small):
    state = cnn.create_state(load_experiment("experiments.softmax"))
    logits = cnn.feature_maps(state, small.test.images[:5])["logits"]
    pixels = small.test.images[:5].reshape(5, -1) / 255
    np.testing.assert_allclose(logits, pixels @ np.asarray(state.params["logits"]["kernel"]), atol=1e-5)


def test_hidden_layers_of_a_dense_network_are_as_many_as_asked_for():
    config = cnn.ExperimentConfig(model=cnn.DenseConfig(features=(30, 20), dropout_rate=0.5))
    assert list(cnn.create_state(config).params) == ["dense1", "dense2", "logits"]
    deeper = dataclasses.replace(config, model=cnn.DenseConfig(features=()))
    assert list(cnn.create_state(deeper).params) == ["logits"]


TINY = cnn.ResNetConfig(blocks=(1,), features=4)


def test_a_networks_running_statistics_are_saved_and_come_back(config, small, tmp_path):
    optim = dataclasses.replace(config.optim, average_decay=0.9)
    result = cnn.fit(dataclasses.replace(config, model=TINY, optim=optim), tmp_path, small)
    loaded, _ = cnn.load_best(tmp_path)
    assert loaded.batch_stats["norm"]["mean"].any()
    for name in ("params", "batch_stats", "average"):
        jax.tree.map(np.testing.assert_array_equal, getattr(loaded, name), getattr(result.state, name))
    assert cnn.evaluate(loaded, small.test).accuracy == result.summary["test_accuracy"]


def test_a_skipped_update_leaves_the_running_statistics(config, small):
    skips = dataclasses.replace(config, model=TINY, train=dataclasses.replace(config.train, nan_policy="skip"))
    state = cnn.create_state(skips)
    before = jax.tree.map(np.asarray, state.batch_stats)
    # A label that is no class makes the loss NaN.
    state, _ = cnn.train_step(state, cnn.Batch(small.train.images[:8], np.full(8, 10)))
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, before)
    state, _ = cnn.train_step(state, cnn.Batch(small.train.images[:8], small.train.labels[:8]))
    assert (state.batch_stats["norm"]["mean"] != before["norm"]["mean"]).any()


def test_features_of_a_transformer_are_a_multiple_of_its_heads():
    with pytest.raises(cnn.ConfigError, match="--model.features is 65, but must be a multiple of 4"):
        cnn.ViTConfig(features=65)
