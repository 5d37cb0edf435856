"""t-SNE: points with many features -> points in a plane, compiled as one loop."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

PERPLEXITY = 30.0
"""Effective number of neighbours of a point."""

STEPS = 750
"""Gradient descent steps; early exaggeration by 12 in the first third."""

_TINY = 1e-12


def _squared_distances(points_NxF: Array | np.ndarray) -> Array:
    """Squared distances of all pairs of points, [N, N]."""
    lengths_N = (points_NxF**2).sum(1)
    products_NxN = jnp.matmul(points_NxF, points_NxF.T, precision=lax.Precision.HIGHEST)
    return jnp.maximum(lengths_N[:, None] + lengths_N - 2 * products_NxN, 0)


def affinities(points_NxF: Array | np.ndarray, perplexity: float) -> Array:
    """Returns the joint probabilities of all pairs, [N, N], which sum to 1: the paper's sections 2 and 3.1."""
    count = len(points_NxF)
    off_diagonal = 1 - jnp.eye(count)
    squared_NxN = _squared_distances(points_NxF)
    squared_NxN = squared_NxN / jnp.maximum(squared_NxN.mean(), _TINY)

    def conditional(log_precision_N):
        """The conditional probabilities of each point's neighbours [N, N], and their entropy in nats [N]."""
        logits_NxN = jnp.where(off_diagonal > 0, -jnp.exp(log_precision_N)[:, None] * squared_NxN, -jnp.inf)
        shares_NxN = jax.nn.softmax(logits_NxN, axis=1)
        return shares_NxN, -(shares_NxN * jnp.log(jnp.maximum(shares_NxN, _TINY))).sum(1)

    def halve(_, bounds):
        low_N, high_N = bounds
        middle_N = (low_N + high_N) / 2
        too_wide_N = conditional(middle_N)[1] > jnp.log(perplexity)
        return jnp.where(too_wide_N, middle_N, low_N), jnp.where(too_wide_N, high_N, middle_N)

    bounds = jnp.full(count, -10.0), jnp.full(count, 20.0)
    shares_NxN, _ = conditional(sum(lax.fori_loop(0, 30, halve, bounds)) / 2)
    return (shares_NxN + shares_NxN.T) / (2 * count)


@jax.jit
def embed(points_NxF: Array | np.ndarray) -> Array:
    """Returns a t-SNE embedding in the plane, which keeps neighbours together, float32 [N, 2].

    Source: L. van der Maaten and G. Hinton, Visualizing Data using t-SNE, JMLR 9 (2008), initialized with the two
    principal components, with the learning rate of D. Kobak and P. Berens, Nature Communications 10 (2019). Nothing is
    random. Time and memory grow with N²: 2,000 points take some seconds.

    Args:
      points_NxF: at least 3 points.
    """
    points_NxF = jnp.asarray(points_NxF, jnp.float32)
    count = len(points_NxF)
    target_NxN = affinities(points_NxF, min(PERPLEXITY, (count - 1) / 3))
    # A learning rate below 50 would take too many steps for few points.
    rate = max(count / 12, 50)

    def step(number, carry):
        plane_Nx2, velocity_Nx2, gains_Nx2 = carry
        early = number < STEPS // 3
        nearness_NxN = (1 - jnp.eye(count)) / (1 + _squared_distances(plane_Nx2))
        forces_NxN = (jnp.where(early, 12.0, 1.0) * target_NxN - nearness_NxN / nearness_NxN.sum()) * nearness_NxN
        gradient_Nx2 = 4 * (forces_NxN.sum(1)[:, None] * plane_Nx2 - forces_NxN @ plane_Nx2)
        gains_Nx2 = jnp.maximum(jnp.where(gradient_Nx2 * velocity_Nx2 < 0, gains_Nx2 + 0.2, gains_Nx2 * 0.8), 0.01)
        velocity_Nx2 = jnp.where(early, 0.5, 0.8) * velocity_Nx2 - rate * gains_Nx2 * gradient_Nx2
        return plane_Nx2 + velocity_Nx2, velocity_Nx2, gains_Nx2

    left, lengths, _ = jnp.linalg.svd(points_NxF - points_NxF.mean(0), full_matrices=False)
    initial_Nx2 = jnp.zeros((count, 2)).at[:, : len(lengths)].set((left * lengths)[:, :2])
    initial_Nx2 = 1e-4 * initial_Nx2 / jnp.maximum(initial_Nx2[:, 0].std(), _TINY)
    return lax.fori_loop(0, STEPS, step, (initial_Nx2, jnp.zeros_like(initial_Nx2), jnp.ones_like(initial_Nx2)))[0]
