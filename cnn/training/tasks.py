"""The tasks by name, as a model's configuration names its own."""

from typing import Any

from cnn.errors import ConfigError
from cnn.training.classification import CLASSIFICATION
from cnn.training.detection import DETECTION
from cnn.training.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, DETECTION)}


def require_task(config: Any, task: str, what: str) -> None:
    """Raises ConfigError unless the network of an experiment is of a task.

    Args:
      config: the experiment.
      task: name of the task.
      what: the command or option that is for this task alone, as a user types it.
    """
    model = config.model
    if model.task != task:
        raise ConfigError(
            f"{what} is for {task}, but the run's network, {model.family}, is for {model.task}; name a run for {task}"
        )
