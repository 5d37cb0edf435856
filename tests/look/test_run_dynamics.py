"""The summary of training dynamics: known answers."""

import numpy as np

from cnn.look.dynamics import exemplars, summarize

# Three epochs of four images: always right, forgotten once and learned again, never right, right in the end.
PROBABILITY_ExN = np.array([[0.9, 0.6, 0.1, 0.2], [0.9, 0.3, 0.1, 0.4], [0.9, 0.6, 0.1, 0.9]], np.float32)
MARGIN_ExN = np.array([[2, 1, -2, -1], [2, -1, -2, -1], [2, 1, -2, 3]], np.float32)


def test_the_summary_is_what_the_papers_define():
    dynamics = summarize(np.stack([PROBABILITY_ExN, MARGIN_ExN]))
    np.testing.assert_allclose(dynamics.mean, [0.9, 0.5, 0.1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(dynamics.spread, [0, np.sqrt(0.02), 0, np.sqrt(0.26 / 3)], atol=1e-6)
    np.testing.assert_allclose(dynamics.correct, [1, 2 / 3, 0, 1 / 3])
    np.testing.assert_array_equal(dynamics.forgotten, [0, 1, 0, 0])
    np.testing.assert_allclose(dynamics.margin, [2, 1 / 3, -2, 1 / 3], rtol=1e-6)


def test_exemplars_are_the_most_typical_of_their_kind():
    chosen = exemplars(summarize(np.stack([PROBABILITY_ExN, MARGIN_ExN])), 1)
    assert {kind: int(at[0]) for kind, at in chosen.items()} == {"easy": 0, "ambiguous": 3, "hard": 2}
