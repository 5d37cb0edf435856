import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from cnn.config import DataConfig, ExperimentConfig, ModelConfig, OptimConfig
from cnn.data import idx
from cnn.data.splits import Split, Splits, check_split, check_splits, data_digest, load, load_data
from cnn.datasets import DATASETS
from cnn.errors import ConfigError, DataError
from cnn.resolution import class_names, dataset_name, korean_names

pytestmark = pytest.mark.usefixtures("offline")

CONFIG = DataConfig()


@settings(max_examples=50)
@given(st.floats(1e-9, 1 - 1e-9), st.integers(0, 2**32 - 1))
def test_split_matches_scikit_learn_in_published_order(fraction, seed):
    examples = 137
    images = np.arange(examples, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 28, 28, 1), np.uint8)
    labels = np.arange(examples, dtype=np.uint8) % 10
    config = DataConfig(val_fraction=fraction, split_seed=seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(DATASETS, "fashion_mnist", DATASETS["fashion_mnist"]._replace(train_images=examples))
        monkeypatch.setattr("cnn.data.splits.load_arrays", lambda _: idx.Arrays(images, labels, images[:1], labels[:1]))
        if config.train_images < 1:
            with pytest.raises(ConfigError, match="val_fraction"):
                load_data(config)
            return
        splits = load_data(config)
    for split, part in zip(
        splits, train_test_split(np.arange(examples), test_size=fraction, random_state=seed), strict=False
    ):
        np.testing.assert_array_equal(split.images, images[np.sort(part)], strict=True)
        np.testing.assert_array_equal(split.labels, labels[np.sort(part)].astype(np.int32), strict=True)


def test_default_split_matches_the_notebook(monkeypatch, real_home, published):
    monkeypatch.setenv("XDG_CACHE_HOME", str(real_home))
    splits = load_data(CONFIG)
    arrays = idx.read_idx_directory(published)
    train, val = train_test_split(np.arange(60_000), test_size=0.2, random_state=42)
    for split, part in (splits.train, train), (splits.val, val):
        np.testing.assert_array_equal(split.images, arrays.train_images[np.sort(part)], strict=True)
        np.testing.assert_array_equal(split.labels, arrays.train_labels[np.sort(part)].astype(np.int32), strict=True)
    np.testing.assert_array_equal(splits.test.images, arrays.test_images)
    np.testing.assert_array_equal(splits.test.labels, arrays.test_labels)
    assert splits.train.images.shape == (48000, 28, 28, 1) and splits.train.labels.dtype == np.int32


def test_split_without_training_images_is_rejected_before_reading():
    with pytest.raises(ConfigError, match="--data.val_fraction is 0.99999999, but must leave one of 60,000 images"):
        load_data(DataConfig(val_fraction=0.99999999))


def test_smallest_fraction_gives_one_validation_image(installed):
    splits = load_data(DataConfig(val_fraction=1e-12))
    assert [len(split.labels) for split in splits] == [19, 1, 6]


def test_class_names_are_ordered_by_label():
    assert class_names(CONFIG)[9] == "Ankle boot" and DATASETS["fashion_mnist"].korean_names[9] == "앵클 부츠"
    assert class_names(DataConfig(name="cifar10"))[0] == "airplane"
    assert all(len(set(class_names(DataConfig(name=name)))) == 10 for name in DATASETS)
    assert len(set(DATASETS["fashion_mnist"].korean_names)) == 10


def test_digest_depends_on_images_labels_and_split(installed):
    splits = load_data(CONFIG)
    assert data_digest(load_data(CONFIG)) == data_digest(splits)
    images = splits.val.images.copy()
    images[0, 0, 0, 0] ^= 1
    labels = np.roll(splits.train.labels, 1)
    others = [
        splits._replace(val=splits.val._replace(images=images)),
        splits._replace(train=splits.train._replace(labels=labels)),
        splits._replace(test=splits.test._replace(images=splits.test.images.reshape(6, 784))),
        load_data(DataConfig(split_seed=1)),
        load_data(DataConfig(val_fraction=0.3)),
    ]
    assert len({data_digest(s) for s in (splits, *others)}) == 6


GOOD = Split(np.zeros((3, 28, 28, 1), np.uint8), np.array([0, 9, 5], np.int32))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_valid_split_passes(dtype):
    check_split(GOOD._replace(labels=GOOD.labels.astype(dtype)), (28, 28, 1), 10, "train")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            GOOD._replace(images=np.linspace(-1, 1, 3 * 784, dtype=np.float32).reshape(3, 28, 28, 1)),
            r"^val images are float32 \[3, 28, 28, 1\] from -1 to 1, but must be uint8 \[N, 28, 28, 1\] from 0 to 255$",
        ),
        (GOOD._replace(images=GOOD.images[..., 0]), r"^val images are uint8 \[3, 28, 28\], but must be uint8 \[N, 28,"),
        (
            GOOD._replace(images=GOOD.images.astype(np.int64)),
            r"^val images are int64 \[3, 28, 28, 1\], but must be uint8",
        ),
        (GOOD._replace(images=np.uint8(3)), r"^val images are uint8 \[\], but must be uint8"),
        (
            GOOD._replace(labels=np.eye(3)),
            r"^val labels are float64 \[3, 3\], but must be integers \[3\], 1 per image$",
        ),
        (GOOD._replace(labels=np.zeros(3)), r"^val labels are float64 \[3\], but must be integers"),
        (GOOD._replace(labels=np.array([0, 1])), r"^val labels are int64 \[2\], but must be integers \[3\]"),
        (Split(GOOD.images[:0], GOOD.labels[:0]), "^val has no images"),
        (GOOD._replace(labels=np.array([0, 10, 11])), "^val label 1 is 10, but must be from 0 to 9$"),
        (GOOD._replace(labels=np.array([0, 1, -1])), "^val label 2 is -1, but must be from 0 to 9$"),
    ],
)
def test_invalid_split_is_rejected_with_actual_and_expected(split, message):
    with pytest.raises(DataError, match=message):
        check_split(split, (28, 28, 1), 10, "val")


def own(shape=(8, 6, 3), labels=(0, 1, 2)) -> Splits:
    split = Split(np.zeros((len(labels), *shape), np.uint8), np.array(labels, np.int32))
    return Splits(split, split, split)


def test_size_channels_and_classes_are_those_of_the_images():
    config = check_splits(ExperimentConfig(optim=OptimConfig(batch_size=3)), own())
    assert config.data.image_shape == (8, 6, 3)
    assert class_names(config.data) == ("class 0", "class 1", "class 2") and config.model.classes == 3
    assert dataset_name(config.data) == "images" and korean_names(config.data) == ()


def test_own_class_names_are_kept():
    config = ExperimentConfig(data=DataConfig(class_names=("a", "b", "c", "d")), optim=OptimConfig(batch_size=3))
    assert check_splits(config, own()).model.classes == 4
    with pytest.raises(DataError, match="^train label 2 is 4, but must be from 0 to 3$"):
        check_splits(config, own(labels=(0, 1, 4)))


def test_a_published_data_set_fills_in_its_own_names(installed):
    config, loaded = load(ExperimentConfig(optim=OptimConfig(batch_size=1)))
    assert config.data.image_shape == (28, 28, 1) and class_names(config.data) == DATASETS["fashion_mnist"].class_names
    assert config.model.classes == 10 and korean_names(config.data)[0] == "티셔츠"
    assert data_digest(loaded) == data_digest(load_data(CONFIG))


@pytest.mark.parametrize(
    ("config", "splits", "message"),
    [
        (DataConfig(), own((8, 6)), r"^train images are uint8 \[3, 8, 6\], but must be uint8 \[N, H, W, 1 or 3\]"),
        (
            DataConfig(image_size=(8,), channels=3),
            own(),
            r"^train images are uint8 \[3, 8, 6, 3\], but must be .* 8, 8, 3\]",
        ),
        (
            DataConfig(),
            own()._replace(val=own((8, 8, 3)).val),
            r"^val images are uint8 \[3, 8, 8, 3\], but must be .* 8, 6, 3\]",
        ),
    ],
)
def test_images_of_another_shape_are_rejected(config, splits, message):
    with pytest.raises(DataError, match=message):
        check_splits(ExperimentConfig(data=config, optim=OptimConfig(batch_size=3)), splits)


@pytest.mark.parametrize("fields", [{"image_size": (64,)}, {"channels": 3}])
def test_published_images_have_their_own_size_and_channels(fields):
    with pytest.raises(ConfigError, match=f"^--data.{next(iter(fields))} is .*, but must be .* with fashion_mnist$"):
        load_data(DataConfig(**fields))


@pytest.mark.parametrize(("name", "message"), [("nowhere", "does not exist"), ("a.zip", "unpack an archive")])
def test_a_wrong_path_is_named_before_a_size_that_would_be_right_for_its_images(tmp_path, name, message):
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=message):
        load_data(DataConfig(source=str(tmp_path / name), image_size=(64,), channels=3))


def test_fewer_model_classes_than_the_data_has_are_rejected(installed):
    with pytest.raises(ConfigError, match="^--model.classes is 9, but must be at least 10"):
        load(ExperimentConfig(model=ModelConfig(classes=9), optim=OptimConfig(batch_size=1)))
