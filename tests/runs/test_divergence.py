"""A non-finite loss: the run stops and names the step and its images, or skips the update."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn
from cnn.runs import checkpoint
from cnn.runs import fit as loop
from cnn.training.steps import epoch_order
from tests.helpers import Interrupted, assert_same, flip_a_bit, interrupt_after, largest_file, narrow


def test_a_non_finite_loss_stops_the_run_and_keeps_the_best(fit_with_val_losses, tmp_path):
    with pytest.raises(FloatingPointError, match="epoch 2"):
        fit_with_val_losses([0.2, float("nan")], patience=2)
    assert cnn.load_best(tmp_path)[0].step == 16


def test_the_first_non_finite_loss_is_found_with_its_step_and_images(config, small, tmp_path):
    """A learning rate at which float32 overflows: the loop does not look at every step, but the message is exact."""
    steep = dataclasses.replace(narrow(config, epochs=3), optim=cnn.OptimConfig(name="sgd", learning_rate=1e30))
    with pytest.raises(FloatingPointError) as error:
        cnn.fit(steep, tmp_path, small)
    state, step = cnn.create_state(steep, 500), 0
    order = np.asarray(epoch_order(state.key, 0, 500, 32))
    while True:
        batch = cnn.Batch(small.train.images[order[step]], small.train.labels[order[step]])
        state, metrics = cnn.train_step(state, batch)
        step += 1
        if not np.isfinite(metrics.loss):
            break
    assert f"at step {step}, in epoch 1" in str(error.value)
    assert f"training images {', '.join(map(str, order[step - 1]))};" in str(error.value)


def test_a_non_finite_loss_is_found_from_the_checkpoint_before_a_damaged_one(config, small, tmp_path):
    """The steps are taken again from the checkpoint before, here from within the epoch before."""
    often = narrow(config, checkpoint_steps=5)
    with pytest.raises(Interrupted):
        cnn.fit(often, tmp_path / "run", small, interrupt_after(1))
    flip_a_bit(largest_file(tmp_path / "run" / "checkpoints" / "16"))
    warnings: list[str] = []
    create, steps = partial(cnn.create_state, often, 500), partial(cnn.train_steps, batch_size=32)

    def ignore(*arguments):
        pass

    run = loop.Run(often, tmp_path / "run", ignore, create, small, {}, ignore, warnings.append, ignore)
    diverged = loop.initial_progress()._replace(metrics=cnn.Metrics(np.float32(np.nan), np.int32(0), np.int32(0)))
    state = create().replace(step=20)
    with checkpoint.open_checkpoints(tmp_path / "run") as checkpoints:
        with pytest.raises(FloatingPointError, match="at step 20, in epoch 2"):
            loop._check_finite(run, steps, checkpoints, state, diverged)
    assert len(warnings) == 1 and "checkpoints/16 is damaged" in warnings[0]


def test_a_skipped_update_leaves_the_parameters_and_counts_nothing(config, small):
    """A pixel cannot be non-finite, but a JAX array's label can be out of range, which makes the loss NaN."""
    state = cnn.create_state(narrow(config, nan_policy="skip"))
    before = jax.tree.map(np.array, state.params)
    bad = cnn.Batch(small.train.images[:32], jnp.where(jnp.arange(32) == 3, 99, small.train.labels[:32]))
    state, metrics = cnn.train_step(state, bad)
    assert_same(state.params, before)
    assert (state.step, metrics.count, metrics.loss_sum) == (1, 0, 0)
    state, metrics = cnn.train_step(state, cnn.Batch(small.train.images[:32], small.train.labels[:32]))
    assert metrics.count == 32 and np.isfinite(metrics.loss)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(before), strict=True))


def test_a_skipped_update_leaves_the_ema(config, small):
    skipping = narrow(config, nan_policy="skip")
    state = cnn.create_state(dataclasses.replace(skipping, optim=cnn.OptimConfig(average_decay=0.9)))
    images, labels = small.train.images[:32], small.train.labels[:32]
    state, _ = cnn.train_step(state, cnn.Batch(images, labels))
    before = jax.tree.map(np.array, state.ema)
    assert np.any(before["params"]["logits"]["kernel"] != state.params["logits"]["kernel"])
    state, _ = cnn.train_step(state, cnn.Batch(images, jnp.full(32, 99)))
    assert_same(state.ema, before)


def test_an_epoch_whose_steps_are_all_skipped_stops_the_run_before_it_is_saved(config, small, finished, tmp_path):
    """A temperature whose square overflows: the loss of every step is non-finite, and the validation loss is not."""
    distill = cnn.DistillConfig(teacher=(str(finished),), temperature=1e30)
    optim = dataclasses.replace(config.optim, batch_size=64)
    skipping = dataclasses.replace(narrow(config, nan_policy="skip"), distill=distill, optim=optim)
    with pytest.raises(FloatingPointError, match="^non-finite loss in every step of epoch 1; the checkpoints before"):
        cnn.fit(skipping, tmp_path / "run", small)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_the_eleventh_non_finite_loss_in_a_row_is_not_skipped(config, small):
    state = cnn.create_state(narrow(config, nan_policy="skip"))
    bad = cnn.Batch(small.train.images[:8], jnp.full(8, 99))
    counts, losses = [], []
    for _ in range(11):
        state, metrics = cnn.train_step(state, bad)
        counts.append(int(metrics.count))
        losses.append(float(metrics.loss_sum))
    assert counts == [0] * 10 + [8] and losses[:10] == [0] * 10 and np.isnan(losses[10])
