"""Points of many dimensions -> points of a plane, by t-SNE, compiled as one loop."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

PERPLEXITY = 30.0
"""About as many neighbours of each point count."""

STEPS = 750
"""Of gradient descent; in the first third, what is near is drawn together twelve times as strongly."""

_TINY = 1e-12


def _squared_distances(points: Array | np.ndarray) -> Array:
    """Between all pairs of points [N, D], [N, N]."""
    lengths = (points**2).sum(1)
    products = jnp.matmul(points, points.T, precision=lax.Precision.HIGHEST)
    return jnp.maximum(lengths[:, None] + lengths - 2 * products, 0)


def affinities(points: Array | np.ndarray, perplexity: float) -> Array:
    """Returns how near each pair of points [N, D] is, [N, N], all adding up to 1: the paper's sections 2 and 3.1."""
    others = 1 - jnp.eye(len(points))
    squared = _squared_distances(points)
    squared = squared / jnp.maximum(squared.mean(), _TINY)

    def neighbours(log_precision):
        logits = jnp.where(others > 0, -jnp.exp(log_precision)[:, None] * squared, -jnp.inf)
        shares = jax.nn.softmax(logits, axis=1)
        return shares, -(shares * jnp.log(jnp.maximum(shares, _TINY))).sum(1)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        too_wide = neighbours(middle)[1] > jnp.log(perplexity)
        return jnp.where(too_wide, middle, low), jnp.where(too_wide, high, middle)

    bounds = jnp.full(len(points), -10.0), jnp.full(len(points), 20.0)
    shares, _ = neighbours(sum(lax.fori_loop(0, 30, halve, bounds)) / 2)
    return (shares + shares.T) / (2 * len(points))


@jax.jit
def embed(points: Array | np.ndarray) -> Array:
    """Returns points of a plane of which those are neighbours that were neighbours before, float32 [N, 2].

    Source: L. van der Maaten and G. Hinton, Visualizing Data using t-SNE, JMLR 9 (2008); it begins with the two
    principal components and takes the steps that D. Kobak and P. Berens, Nature Communications 10 (2019), recommend.
    Nothing is random. Time and memory grow with N²: 2,000 points take some seconds.

    Args:
      points: [N, D], at least 3.
    """
    points = jnp.asarray(points, jnp.float32)
    count = len(points)
    wanted = affinities(points, min(PERPLEXITY, (count - 1) / 3))
    # A rate below 50 would take too many steps for few points.
    rate = max(count / 12, 50)

    def step(number, carry):
        plane, velocity, gains = carry
        early = number < STEPS // 3
        nearness = (1 - jnp.eye(count)) / (1 + _squared_distances(plane))
        forces = (jnp.where(early, 12.0, 1.0) * wanted - nearness / nearness.sum()) * nearness
        gradient = 4 * (forces.sum(1)[:, None] * plane - forces @ plane)
        gains = jnp.maximum(jnp.where(gradient * velocity < 0, gains + 0.2, gains * 0.8), 0.01)
        velocity = jnp.where(early, 0.5, 0.8) * velocity - rate * gains * gradient
        return plane + velocity, velocity, gains

    centered = points - points.mean(0)
    left, lengths, _ = jnp.linalg.svd(centered, full_matrices=False)
    begin = jnp.zeros((count, 2)).at[:, : len(lengths)].set((left * lengths)[:, :2])
    begin = 1e-4 * begin / jnp.maximum(begin[:, 0].std(), _TINY)
    plane, _, _ = lax.fori_loop(0, STEPS, step, (begin, jnp.zeros_like(begin), jnp.ones_like(begin)))
    return plane
