"""The image by which a network is looked at: one that it takes, whatever its training images are composed into."""

from collections.abc import Callable, Sequence

import numpy as np

from cnn.data.splits import Splits
from cnn.text import shortened


def subject(task: str, splits: Splits, names: Sequence[str] = ()) -> tuple[np.ndarray, str]:
    """Returns an image of a run, uint8 [H, W, C], and what it is called.

    Args:
      task: of the run's network.
      splits: the run's images.
      names: of the classes; without them, that of the image is not said.
    """
    return SUBJECTS[task](splits, names)


def _training_image(splits: Splits, names: Sequence[str]) -> tuple[np.ndarray, str]:
    name = f" ({shortened(names[int(splits.train.labels[0])], 40)})" if names else ""
    return splits.train.images[0], f"the first training image{name}"


def _test_scene(splits: Splits, names: Sequence[str]) -> tuple[np.ndarray, str]:
    """The first one with an object, if any has one; training images may be composed only in a step."""
    index = int((np.asarray(splits.test.labels)[..., 4] >= 0).any(1).argmax())
    return splits.test.images[index], f"test scene {index}"


SUBJECTS: dict[str, Callable[[Splits, Sequence[str]], tuple[np.ndarray, str]]] = {
    "classification": _training_image,
    "detection": _test_scene,
}
"""By task."""
