import dataclasses
import json
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn
from cnn.serialization import differences, from_dict

CONFIGS = st.builds(
    cnn.ExperimentConfig,
    name=st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True),
    data=st.builds(
        cnn.DataConfig,
        name=st.sampled_from(["fashion_mnist", "mnist", "kmnist", "cifar10"]),
        source=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
        val_fraction=st.floats(0, 1, exclude_min=True, exclude_max=True),
        split_seed=st.integers(0, 2**32 - 1),
    ),
    model=st.one_of(
        st.builds(cnn.ModelConfig, conv1_features=st.integers(1, 99), dropout_rate=st.floats(0, 1, exclude_max=True)),
        st.builds(cnn.DenseConfig, features=st.lists(st.integers(1, 999), max_size=3).map(tuple)),
    ),
    optim=st.builds(
        cnn.OptimConfig,
        name=st.sampled_from(["adam", "sgd"]),
        learning_rate=st.floats(0, 1e9, exclude_min=True),
        schedule=st.sampled_from(["constant", "cosine"]),
        batch_size=st.integers(1, 10**6),
    ),
    train=st.builds(cnn.TrainConfig, epochs=st.integers(1, 99), patience=st.integers(0, 9)),
    log=st.builds(cnn.LogConfig, figures=st.booleans()),
)


@given(CONFIGS)
def test_json_round_trip(config):
    assert from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@given(CONFIGS, CONFIGS)
def test_differences_are_empty_exactly_for_equal_configurations(a, b):
    assert differences(a, a) == []
    assert bool(differences(a, b)) == (a != b)


def test_differences_name_the_field_and_both_values():
    new = dataclasses.replace(cnn.ExperimentConfig(), optim=cnn.OptimConfig(batch_size=64))
    assert differences(cnn.ExperimentConfig(), new) == ["optim.batch_size 32 -> 64"]


def test_different_model_families_are_one_difference():
    dense = dataclasses.replace(cnn.ExperimentConfig(), model=cnn.DenseConfig())
    assert differences(cnn.ExperimentConfig(), dense) == ["model.family cnn -> dense"]


def test_missing_fields_take_their_defaults():
    assert from_dict({"train": {"epochs": 3}}) == cnn.ExperimentConfig(train=cnn.TrainConfig(epochs=3))


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (cnn.OptimConfig, {"batch_size": 0}, "--optim.batch_size is 0"),
        (cnn.OptimConfig, {"batch_size": 32.0}, "--optim.batch_size is 32.0"),
        (cnn.OptimConfig, {"batch_size": True}, "--optim.batch_size is True"),
        (cnn.OptimConfig, {"batch_size": 2**31}, "must be an integer from 1 to 2,147,483,647"),
        (cnn.OptimConfig, {"batch_size": 10**5000}, "--optim.batch_size is a value of type int that cannot be printed"),
        (cnn.OptimConfig, {"learning_rate": 10**400}, "but must be a finite number above 0"),
        (cnn.OptimConfig, {"learning_rate": 1e39}, "--optim.learning_rate is 1e+39"),
        (cnn.OptimConfig, {"learning_rate_multipliers": ("conv*=1e400",)}, "must be layer names or patterns"),
        (cnn.OptimConfig, {"learning_rate_multipliers": ("a\nb=1",)}, r"('a\nb=1',), but must be layer names"),
        (cnn.AugmentConfig, {"mixup": 1e-300}, "--augment.mixup is 1e-300, but must be 0, or from 0.001 to 1000"),
        (cnn.ViTConfig, {"blocks": 10**6}, "--model.blocks is 1000000, but must be an integer from 1 to 200"),
        (cnn.ResNetConfig, {"blocks": (1,) * 9}, "must be 1 to 8 integers from 1 to 200"),
        (cnn.DenseConfig, {"features": 3}, "--model.features is 3"),
        (cnn.DataConfig, {"source": "a\0b"}, "the path of a directory"),
        (cnn.DataConfig, {"source": "\ud800"}, "the path of a directory, in UTF-8"),
        (cnn.TransferConfig, {"source": "x", "layers": ("\ud800",)}, "layer names or patterns"),
        (cnn.OptimConfig, {"learning_rate": -1e-3}, "--optim.learning_rate is -0.001"),
        (cnn.OptimConfig, {"learning_rate": float("nan")}, "--optim.learning_rate is nan"),
        (cnn.OptimConfig, {"name": "adamw2"}, "one of adam, sgd, muon"),
        (cnn.OptimConfig, {"schedule": "linear"}, "one of constant, cosine, warmup_cosine, one_cycle"),
        (cnn.OptimConfig, {"adam_learning_rate": 0}, "--optim.adam_learning_rate is 0"),
        (cnn.OptimConfig, {"warmup": 1}, "--optim.warmup is 1, but must be between 0 and 1"),
        (cnn.OptimConfig, {"momentum": 0.9}, "--optim.momentum is 0.9, but must be 0 with adam"),
        (cnn.OptimConfig, {"weight_decay": -0.1}, "--optim.weight_decay is -0.1"),
        (cnn.ModelConfig, {"dtype": "float16"}, "--model.dtype is 'float16', but must be one of float32, bfloat16"),
        (cnn.TrainConfig, {"fused": 1}, "--train.fused is 1"),
        (
            cnn.TrainConfig,
            {"dynamics": True, "nan_policy": "skip"},
            "--train.dynamics is True, but must be false with --train.nan_policy skip",
        ),
        (cnn.ModelConfig, {"dropout_rate": 1.5}, "--model.dropout_rate is 1.5"),
        (cnn.ModelConfig, {"dropout_rate": 1}, "below 1"),
        (cnn.ModelConfig, {"dense_features": 0}, "--model.dense_features is 0"),
        (cnn.ModelConfig, {"classes": 1}, "--model.classes is 1"),
        (
            cnn.DenseConfig,
            {"features": (100, 0)},
            "is (100, 0), but must be 0 to 200 integers from 1 to 65,536",
        ),
        (cnn.TrainConfig, {"epochs": 0}, "--train.epochs is 0"),
        (cnn.TrainConfig, {"patience": -1}, "--train.patience is -1"),
        (cnn.TrainConfig, {"seed": 2**32}, "--train.seed is 4294967296"),
        (cnn.TrainConfig, {"device": "npu"}, "one of auto, cpu, gpu, tpu"),
        (cnn.DataConfig, {"val_fraction": 0}, "--data.val_fraction is 0"),
        (cnn.DataConfig, {"val_fraction": 1}, "between 0 and 1"),
        (cnn.DataConfig, {"name": "imagenet"}, "--data.name is 'imagenet'"),
        (cnn.EfficientNetConfig, {"features": ()}, "--model.features is ()"),
        (
            cnn.ExperimentConfig,
            {"model": cnn.ViTConfig(patch_size=29)},
            "--model.patch_size is 29, but must be at most 28",
        ),
        (cnn.ExperimentConfig, {"name": "../up"}, "letters, digits, - and _"),
        (cnn.ExperimentConfig, {"train": "long"}, "train is 'long'"),
    ],
)
def test_invalid_value_is_a_one_line_error(cls, fields, message):
    with pytest.raises(cnn.ConfigError) as error:
        cls(**fields)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim": {"lr": 1}}, "unknown field optim.lr; the fields are name, learning_rate"),
        ([], "must be an object"),
        ({"optim": 3}, "optim. is 3"),
        ({"model": {"family": ["cnn"]}}, r"--model.family is \['cnn'\], but must be one of cnn, dense"),
        ({"model": {"family": "transformer"}}, "--model.family is 'transformer', but must be one of cnn, dense"),
        ({"model": {"family": "dense", "conv1_features": 3}}, "unknown field model.conv1_features"),
        ({"optim": {"batch_size": "32"}}, "--optim.batch_size is '32'"),
    ],
)
def test_invalid_json_is_rejected(values, message):
    with pytest.raises(cnn.ConfigError, match=message):
        from_dict(values)


NUMBERS = [
    (cls, name)
    for cls in (
        *(cnn.DataConfig, cnn.OptimConfig, cnn.AugmentConfig, cnn.TrainConfig, cnn.MeshConfig),
        *(cnn.ModelConfig, cnn.DenseConfig, cnn.AlexNetConfig, cnn.ResNetConfig, cnn.EfficientNetConfig, cnn.ViTConfig),
        cnn.RecurrentConfig,
    )
    for name, kind in get_type_hints(cls).items()
    if kind in (int, float, tuple[int, ...])
]


@pytest.mark.parametrize(("cls", "name"), NUMBERS)
def test_every_number_has_a_maximum(cls, name):
    for number in (10**39, 10**5000):
        for value in (number, (number,)):
            with pytest.raises(cnn.ConfigError):
                cls(**{name: value})
