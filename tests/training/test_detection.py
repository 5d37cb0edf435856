"""The task of detection in the step: what it takes, what it composes, what counts as right."""

import dataclasses

import jax
import numpy as np
import pytest

import cnn
from cnn.data.scenes import with_scenes
from cnn.training import detection
from cnn.training.task import Batch
from experiments.yolo import CONFIG

NARROW = dataclasses.replace(
    CONFIG,
    data=cnn.DataConfig(scenes=48),
    model=cnn.YoloConfig(blocks=(0, 1, 0), features=4),
    optim=dataclasses.replace(CONFIG.optim, batch_size=32),
)


@pytest.fixture(scope="module")
def scenes(small):
    return with_scenes(NARROW.data, small)


@pytest.fixture(scope="module")
def state():
    return cnn.create_state(NARROW)


def test_scenes_of_validation_and_test_images_stay_the_same_and_differ(scenes, small):
    again = with_scenes(NARROW.data, small)
    for name in ("val", "test"):
        split = getattr(scenes, name)
        assert split.images.shape == (len(getattr(small, name).labels), 48, 48, 1)
        assert split.labels.shape[1:] == (6, 5) and split.labels.dtype == np.float32
        np.testing.assert_array_equal(split.images, getattr(again, name).images)
    assert not np.array_equal(scenes.val.labels[:100], scenes.test.labels[:100])
    assert scenes.train is small.train
    assert with_scenes(cnn.DataConfig(), small) is small


def test_a_batch_of_images_becomes_scenes_of_those_that_are_no_padding(small, state):
    images, labels = small.train.images[:8], np.arange(8, dtype=np.int32)
    mask = np.isin(np.arange(8), [1, 4, 6])
    inputs, targets, kept = detection.train_inputs(jax.random.key(0), Batch(images, labels, mask), state.spec)
    assert inputs.shape == (8, 48, 48, 1) and 0 <= inputs.min() and inputs.max() <= 1
    assert set(np.unique(targets[..., 4])) == {-1, 1, 4, 6}
    # As fractions of the image's sides.
    assert targets[..., :4].max() <= 1
    np.testing.assert_array_equal(kept, mask)


def test_scenes_are_trained_on_as_they_are(scenes, state):
    batch = Batch(scenes.val.images[:4], scenes.val.labels[:4])
    inputs, targets, _ = detection.train_inputs(jax.random.key(0), batch, state.spec)
    np.testing.assert_allclose(inputs, scenes.val.images[:4] / 255, rtol=1e-6)
    np.testing.assert_allclose(targets[..., :4] * 48, scenes.val.labels[:4, :, :4], atol=1e-4)


def test_padding_counts_neither_in_the_loss_nor_in_what_is_right(scenes, state):
    images, labels = scenes.val.images[:6], scenes.val.labels[:6]
    whole = cnn.eval_step(state, Batch(images[:4], labels[:4]))
    padded = cnn.eval_step(state, Batch(images, labels, np.arange(6) < 4))
    assert (int(padded.count), int(padded.correct)) == (4, int(whole.correct))
    np.testing.assert_allclose(padded.loss, whole.loss, rtol=1e-5)


def test_an_epoch_of_composed_scenes_lowers_the_loss(small, scenes):
    state = cnn.create_state(NARROW, len(small.train.labels))
    before = cnn.evaluate(state, scenes.val)
    state, metrics = cnn.train_epoch(state, small.train, batch_size=32)
    assert int(metrics.count) == len(small.train.labels)
    # The EMA, by which it is evaluated, follows slowly.
    assert cnn.evaluate(state.replace(ema={}), scenes.val).loss < before.loss


def test_detections_lie_within_the_image_by_falling_score(scenes, state):
    found = cnn.detect(state, scenes.test.images[:3])
    assert found.boxes.shape == (3, 32, 4) and found.classes.shape == found.scores.shape == (3, 32)
    assert found.boxes.min() >= 0 and found.boxes.max() <= 48
    assert (np.diff(found.scores, axis=1) <= 0).all()
    # 3 are padded to 4; alone, an image is found the same.
    one = cnn.detect(state, scenes.test.images[1:2])
    np.testing.assert_allclose(one.scores[0], found.scores[1], rtol=1e-4)


def test_the_wrong_function_for_a_task_is_one_line(config, small, scenes, state):
    with pytest.raises(cnn.UserError, match="task is detection; cnn.detect gives"):
        cnn.predict(state, scenes.test.images[:1])
    with pytest.raises(cnn.UserError, match="task is classification; cnn.predict gives"):
        cnn.detect(cnn.create_state(config), small.test.images[:1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 6, 4), np.float32), r"float32 \[4, 6, 4\], but must be float32 \[4, M, 5\]"),
        (np.zeros((3, 6, 5), np.float32), r"\[3, 6, 5\], but must be float32 \[4, M, 5\]"),
        (np.zeros((4, 6, 5), np.int32), "int32"),
        (np.zeros((4, 0, 5), np.float32), r"\[4, 0, 5\], but must be"),
        (np.full((4, 6, 5), 2.5, np.float32), "class 2.5 must be an integer"),
        (np.full((4, 6, 5), 10, np.float32), "class 10 must be an integer from -1 to 9"),
        (np.full((4, 6, 5), np.nan, np.float32), "class nan must be"),
        (np.zeros((4, 6, 5), np.float32), "of some area"),
    ],
)
def test_labels_that_are_no_boxes_are_refused(scenes, state, labels, message):
    with pytest.raises(cnn.DataError, match=message):
        cnn.eval_step(state, Batch(scenes.val.images[:4], labels))


def test_what_a_mask_leaves_out_is_not_checked_and_no_images_are_refused(scenes, state):
    labels = scenes.val.labels[:4].copy()
    labels[3] = 99
    assert int(cnn.eval_step(state, Batch(scenes.val.images[:4], labels, np.arange(4) < 3)).count) == 3
    with pytest.raises(cnn.DataError, match="no images"):
        cnn.detect(state, scenes.val.images[:0])
    with pytest.raises(cnn.DataError, match="images are a list"):
        cnn.eval_step(state, Batch([], labels))  # pyright: ignore[reportArgumentType]


def test_small_images_cannot_be_evaluated_on(small, state):
    with pytest.raises(cnn.DataError, match=r"must be uint8 \[N, 48, 48, 1\]"):
        cnn.evaluate(state, small.val)
