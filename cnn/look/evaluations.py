"""The evaluation of a run, by the task of its network."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn.look import detection, evaluation
from cnn.runs import rundir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATIONS = {"classification": evaluation, "detection": detection}

FIGURES = (*evaluation.FIGURES, *detection.FIGURES)
"""Names of the figures."""


def evaluate_run(run_dir: Path) -> tuple[dict[str, Any], dict[str, Callable[[], "Figure"]], str]:
    """Returns the evaluation of a run's best network on its test images, what draws its figures, and its tables.

    Raises:
      UserError: the directory holds no run, or the run's images are missing or have changed.
      DamagedError: the checkpoint is damaged.
    """
    module = EVALUATIONS[rundir.read_description(run_dir)["config"].model.task]
    values, drawings = module.evaluate_run(run_dir)
    return values, drawings, module.format_evaluation(values)
