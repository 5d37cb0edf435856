"""A run -> accuracy and calibration of its best network on corrupted and on attacked test images; table and figures."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cnn.intervals import accuracy_interval
from cnn.look.batches import probabilities
from cnn.look.scores import reliability
from cnn.rules import checked, integer, optional
from cnn.runs import outputs, rundir
from cnn.training.border import pad
from cnn.training.state import TrainState
from cnn.training.tasks import require_task
from cnn.trust.attacks import correct_under_attack
from cnn.trust.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from cnn.trust.measured import Numbers, read_measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("robustness.png", "corruptions.png")
"""Names of the figures."""

SEED = 0
"""Of all draws, so that the same network always gives the same numbers."""

CORRUPTED_PIXELS = 2**22
"""Maximum number of pixels of the images that are corrupted at a time: 5,349 images of 28 x 28."""

ATTACKED = 1_000
"""Number of test images that are attacked: an attack takes as long as dozens of predictions."""

ATTACKED_PIXELS = 2**17
"""Maximum number of pixels of the images that are attacked at a time."""

EPSILONS = tuple(level / 255 for level in (1, 2, 4, 8, 16))
"""Maximum changes of a pixel by the attacks."""

EXAMPLE_SEVERITIES = (1, 3, 5)
"""Of the example images."""


def by_parts(function: Callable[..., Any], pixels: int, *arrays_NxX: np.ndarray) -> Any:
    """Returns what a function gives for many images, called with equal parts of them, the last padded with zeros.

    Args:
      function: called with the index of a part's first image, and the parts of the arrays; its outputs, in any pytree,
        have a row for each image.
      pixels: maximum number of pixels of the images of a call, which has at least one.
      arrays_NxX: the images [N, H, W, C], and other arguments with a row for each.
    """
    count, height, width = arrays_NxX[0].shape[:3]
    size = min(count, max(1, pixels // (height * width)))
    parts = []
    for start in range(0, count, size):
        outputs = function(start, *(pad(np.asarray(array[start : start + size]), size) for array in arrays_NxX))
        parts.append(jax.tree.map(lambda rows, last=count - start: np.asarray(rows)[:last], outputs))
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def corrupted(images_NxHxWxC: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Returns images as ``evaluate_run`` corrupts them, uint8 [N, H, W, C]; at each severity with the same draws."""
    key = jax.random.fold_in(jax.random.key(SEED), list(CORRUPTIONS).index(name))

    def function(start, images):
        return corrupt(images, np.int32(severity), jax.random.fold_in(key, start), name=name)

    return by_parts(function, CORRUPTED_PIXELS, images_NxHxWxC)


def attacked_correct(
    state: TrainState, images_NxHxWxC: np.ndarray, labels_N: np.ndarray, epsilon: float
) -> dict[str, np.ndarray]:
    """Returns, by attack, whether each image is still classified correctly, bool [N]; as ``correct_under_attack``."""
    key = jax.random.fold_in(jax.random.key(SEED), len(CORRUPTIONS))

    def function(start, images, labels):
        return correct_under_attack(state, images, labels, np.float32(epsilon), jax.random.fold_in(key, start))

    return by_parts(function, ATTACKED_PIXELS, images_NxHxWxC, labels_N)


def _spread(count: int, chosen: int | None) -> np.ndarray:
    """Indices of some of the images, at equal distances, as they may be in the order of their classes."""
    return np.arange(count) if chosen is None or chosen >= count else np.arange(chosen) * count // chosen


def _accuracy(correct_N: np.ndarray) -> dict[str, Any]:
    right, count = int(correct_N.sum()), len(correct_N)
    return {"accuracy": right / count, "accuracy_interval": list(accuracy_interval(right, count))}


def _scores(probabilities_NxK: np.ndarray, labels_N: np.ndarray) -> dict[str, Any]:
    correct_N = probabilities_NxK.argmax(1) == labels_N
    return {**_accuracy(correct_N), "ece": reliability(probabilities_NxK, labels_N).error}


def mean_corruption_error(corruptions: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    """Returns the mean over corruptions of their mean error over severities.

    Unlike the mCE of arXiv:1903.12261, section 4, an error is not divided by AlexNet's, which is known for ImageNet
    only; so it is a share of images, and 0.5 means the same for each corruption.

    Args:
      corruptions: by name, an entry with ``accuracy`` for each severity.
    """
    means = [np.mean([entry["accuracy"] for entry in entries]) for entries in corruptions.values()]
    return float(1 - np.mean(means))


@checked(images=optional(integer(1)))
def evaluate_run(
    run_dir: Path, images: int | None = None, report: Callable[[str], None] = lambda line: None
) -> tuple[dict[str, Any], dict[str, Callable[[], "Figure"]]]:
    """Returns the content of robustness.json, and by file name what draws the figures.

    Args:
      run_dir: directory of the run.
      images: number of test images, at equal distances among them; None for all.
      report: called with each line of the table when it is known.

    Raises:
      UserError: the directory holds no run, or the run's images are missing or have changed.
      DamagedError: the checkpoint is damaged.
    """
    from cnn.figures import robustness_plots
    from cnn.runs.checkpoint import load_best_with_progress
    from cnn.runs.result import load_images

    require_task(rundir.read_description(run_dir)["config"], "classification", "evaluate --robust")
    state, _, progress = load_best_with_progress(run_dir)
    test = load_images(run_dir).test
    chosen = _spread(len(test.labels), images)
    pixels, labels = test.images[chosen], np.asarray(test.labels[chosen])
    values: dict[str, Any] = {
        "mean_corruption_error": math.nan,
        "best_epoch": progress["stopper"]["best_epoch"],
        "images": len(labels),
        "test_images": len(test.labels),
        "clean": _scores(probabilities(state, pixels), labels),
        "corruptions": {},
    }
    for line in _head(values):
        report(line)
    for name, corruption in CORRUPTIONS.items():
        entries = values["corruptions"][name] = [
            {"strength": strength, **_scores(probabilities(state, corrupted(pixels, name, severity)), labels)}
            for severity, strength in enumerate(corruption.strengths, 1)
        ]
        report(_row(name, entries))
    values["mean_corruption_error"] = mean_corruption_error(values["corruptions"])
    subset = _spread(len(labels), ATTACKED)
    values["attacked_images"] = len(subset)
    values["attacks"] = _attacks(state, pixels[subset], labels[subset])
    for line in _foot(values):
        report(line)
    example = pixels[:1]
    drawings = {
        "robustness": lambda: robustness_plots.robustness(values),
        "corruptions": lambda: robustness_plots.corruptions(
            example[0],
            {
                name: [corrupted(example, name, severity)[0] for severity in EXAMPLE_SEVERITIES[: len(entry.strengths)]]
                for name, entry in CORRUPTIONS.items()
            },
            EXAMPLE_SEVERITIES,
        ),
    }
    return values, drawings


def _attacks(state: TrainState, images_NxHxWxC: np.ndarray, labels_N: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """By attack, the accuracy at each epsilon, from 0 for the images as they are."""
    clean = _accuracy(probabilities(state, images_NxHxWxC).argmax(1) == labels_N)
    entries: dict[str, list[dict[str, Any]]] = {}
    for epsilon in EPSILONS:
        for name, correct_N in attacked_correct(state, images_NxHxWxC, labels_N, epsilon).items():
            attack = entries.setdefault(name, [{"epsilon": 0.0, **clean}])
            attack.append({"epsilon": epsilon, **_accuracy(correct_N)})
    return entries


def _head(values: dict[str, Any]) -> list[str]:
    clean, severities = values["clean"], "".join(f"{severity:>8}" for severity in range(1, SEVERITIES + 1))
    low, high = clean["accuracy_interval"]
    return [
        f"{values['images']:,} of {values['test_images']:,} test images",
        f"clean accuracy {clean['accuracy']:.4f}   95 % interval {low:.4f} to {high:.4f}; ECE {clean['ece']:.4f}",
        "",
        f"{'':12}{'accuracy by severity':>40}{'ECE by severity':>44}",
        f"{'corruption':12}{severities}    {severities}",
    ]


def _row(name: str, entries: Sequence[dict[str, Any]]) -> str:
    accuracy, ece = ("".join(f"{entry[key]:>8.4f}" for entry in entries) for key in ("accuracy", "ece"))
    return f"{name:12}{accuracy:40}    {ece}".rstrip()


def _foot(values: dict[str, Any]) -> list[str]:
    count, attacks = values["attacked_images"], values["attacks"]
    epsilons = "".join(f"{_epsilon(entry['epsilon']):>8}" for entry in next(iter(attacks.values())))
    return [
        "",
        f"mean corruption error {values['mean_corruption_error']:.4f}   mean over corruptions of the mean error over "
        f"severities; clean {1 - values['clean']['accuracy']:.4f}",
        "",
        f"accuracy on {count:,} attacked images, by the maximum change of a pixel",
        f"{'attack':12}{epsilons}",
        *(
            f"{name.upper():12}" + "".join(f"{entry['accuracy']:>8.4f}" for entry in entries)
            for name, entries in attacks.items()
        ),
    ]


def _epsilon(epsilon: float) -> str:
    return f"{255 * epsilon:.3g}/255" if epsilon else "0"


def read_robustness(run_dir: Path) -> dict[str, Any] | None:
    """Returns the content of a run's robustness.json; None if there is none.

    Raises:
      RunDirError: it is damaged, or of another version.
    """
    return read_measured(run_dir / outputs.ROBUSTNESS, "--robust", _numbers)


def _numbers(values: dict[str, Any]) -> Numbers:
    """The counts and shares of robustness.json."""
    if list(values["corruptions"]) != list(CORRUPTIONS) or list(values["attacks"]) != ["fgsm", "pgd"]:
        raise ValueError("it has other corruptions or attacks")
    entries = [values["clean"], *(entry for name in CORRUPTIONS for entry in values["corruptions"][name])]
    attacks = [entry for entries in values["attacks"].values() for entry in entries]
    epsilons = [[entry["epsilon"] for entry in entries] for entries in values["attacks"].values()]
    if not epsilons[0] or epsilons[0] != epsilons[1]:
        raise ValueError("its attacks differ in their epsilons")
    if any(len(values["corruptions"][name]) != len(CORRUPTIONS[name].strengths) for name in CORRUPTIONS):
        raise ValueError("it has other severities")
    shares = [values["mean_corruption_error"], *(entry["ece"] for entry in entries)]
    for entry in [*entries, *attacks]:
        low, high = entry["accuracy_interval"]
        shares += [entry["accuracy"], low, high]
    shares += [entry["epsilon"] for entry in attacks]
    return [values[name] for name in ("best_epoch", "images", "test_images", "attacked_images")], shares
