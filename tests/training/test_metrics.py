import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.training.metrics import batch_metrics, merge, zero_metrics


def test_metrics_of_a_batch_counted_by_hand():
    logits = jnp.array([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [9.0, 0.0]])
    metrics = batch_metrics(logits, jnp.array([1.0, 2.0, 3.0, 50.0]), jnp.array([0, 1, 1, 0]), jnp.arange(4) < 3)
    assert (metrics.loss, metrics.count) == (2.0, 3)
    assert metrics.accuracy == pytest.approx(2 / 3)


def test_accuracy_is_nan_if_the_loss_is_nan():
    metrics = batch_metrics(jnp.eye(2), jnp.array([0.5, jnp.nan]), jnp.array([0, 1]), jnp.array([True, True]))
    assert jnp.isnan(metrics.loss) and jnp.isnan(metrics.accuracy)


# Each new length compiles one more program.
@settings(max_examples=25)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 2**31 - 1))
def test_merged_metrics_equal_those_of_all_images(sizes, seed):
    rng = np.random.default_rng(seed)
    total = sum(sizes)
    # Sums of integers are not rounded, so equality is exact.
    logits, losses = rng.integers(-9, 9, (total, 3)), rng.integers(0, 9, total).astype(np.float32)
    labels, mask = rng.integers(0, 3, total), rng.random(total) < 0.7
    parts, start = zero_metrics(), 0
    for size in sizes:
        part = slice(start, start + size)
        parts = merge(parts, batch_metrics(logits[part], losses[part], labels[part], mask[part]))
        start += size
    expected = batch_metrics(logits, losses, labels, mask)
    assert (parts.loss_sum, parts.correct, parts.count) == (expected.loss_sum, expected.correct, expected.count)
