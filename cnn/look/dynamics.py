"""Training dynamics of a run -> what was easy, ambiguous and hard: mean, spread, forgetting, area under the margin."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn.runs.derived import read_dynamics
from cnn.runs.rundir import read_history


class Dynamics(NamedTuple):
    """What an image's label was worth to the network while it trained; an entry for each training image [N]."""

    mean: np.ndarray
    """Mean probability of the label over the epochs: S. Swayamdipta et al., arXiv:2009.10795, section 2."""
    spread: np.ndarray
    """Standard deviation of that probability, from the same section."""
    correct: np.ndarray
    """Share of the epochs in which the label was the prediction."""
    forgotten: np.ndarray
    """Forgetting events, int: epochs in which a label that had been predicted was no longer, as M. Toneva et al.,
    arXiv:1812.05159, section 3, count them."""
    margin: np.ndarray
    """Area under the margin: mean of the label's logit less the highest other one, G. Pleiss et al., arXiv:2001.10528,
    section 3; the lower, the more likely the label is wrong."""


def summarize(dynamics_2xExN: np.ndarray) -> Dynamics:
    """Returns the summary over E epochs of probabilities and margins, as ``read_dynamics`` gives them."""
    probability_ExN, margin_ExN = dynamics_2xExN
    is_correct_ExN = margin_ExN > 0
    return Dynamics(
        mean=probability_ExN.mean(0),
        spread=probability_ExN.std(0),
        correct=is_correct_ExN.mean(0),
        forgotten=(is_correct_ExN[:-1] & ~is_correct_ExN[1:]).sum(0),
        margin=margin_ExN.mean(0),
    )


def run_dynamics(run_dir: Path) -> Dynamics | None:
    """Returns the summary of a run; None if it kept no dynamics (``--train.dynamics``), or has no finished epoch.

    Raises:
      RunDirError: the directory holds no run, or the dynamics of an epoch are missing or damaged.
    """
    dynamics_2xExN = read_dynamics(run_dir, len(read_history(run_dir)))
    return None if dynamics_2xExN is None else summarize(dynamics_2xExN)


def exemplars(dynamics: Dynamics, count: int) -> dict[str, np.ndarray]:
    """Returns indices of images by what they were to the network, the most typical first.

    Easy ones have the highest mean, ambiguous ones the largest spread, hard ones the lowest mean.
    """
    order = {"easy": -dynamics.mean, "ambiguous": -dynamics.spread, "hard": dynamics.mean}
    return {name: np.argsort(values, kind="stable")[:count] for name, values in order.items()}
