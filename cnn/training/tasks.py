"""The tasks by name, as a model's configuration names its own."""

from cnn.training.classification import CLASSIFICATION
from cnn.training.detection import DETECTION
from cnn.training.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, DETECTION)}
