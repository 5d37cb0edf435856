"""How good a trained network is, where it is wrong, and how sure it may be: NumPy on probabilities and labels."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BINS = 15
"""Of confidence, as in Guo et al."""

EMBEDDED = 2_000
"""Test images in the picture of the last hidden layer."""

Z_95 = 1.959964
"""Standard deviations on each side of a normal distribution's mean within which 95 % of it lie."""

RESAMPLES = 10_000
"""Of a bootstrap."""


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Returns how many images of each class (row) were taken for each class (column), int64 [K, K]."""
    return np.bincount(classes * labels.astype(int) + predicted, minlength=classes**2).reshape(classes, classes)


def accuracy_interval(correct: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of an accuracy: E. B. Wilson, JASA 22 (1927), which stays within 0 and 1."""
    share, z2 = correct / count, Z_95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return middle - half, middle + half


def difference_interval(right: np.ndarray, other: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % interval of how much more accurate one network is than another, by a paired bootstrap.

    The images are drawn anew with replacement, ``RESAMPLES`` times, each with what both networks make of it: B. Efron
    and R. Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3, by percentiles.

    Args:
      right: whether the one classifies each image rightly, bool [N].
      other: whether the other does, of the same images in the same order.
      seed: of the draws.
    """
    # A draw's difference is that of two counts: the images that only the one, and only the other, has right.
    only, other_only = np.mean(right & ~other), np.mean(other & ~right)
    generator, count = np.random.default_rng(seed), len(right)
    drawn = generator.multinomial(count, np.maximum([only, other_only, 1 - only - other_only], 0), RESAMPLES)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / count, [2.5, 97.5])
    return float(low), float(high)


def class_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Returns precision, recall and f1 of each class, float [K], from a confusion matrix; 0 where there is nothing."""
    correct, taken, there = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    pairs = {"precision": (correct, taken), "recall": (correct, there), "f1": (2 * correct, taken + there)}
    return {name: part / np.maximum(whole, 1) for name, (part, whole) in pairs.items()}


def most_confused(confusion: np.ndarray, count: int = 5) -> list[tuple[int, int, int]]:
    """Returns (class, taken for, how many) of the pairs that are confused most, the worst first."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(label), int(other), int(wrong[label, other])) for label, other in pairs if wrong[label, other]]


def losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns -log of the probability of each image's class, in nats, [N]."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float32).tiny))


def top_losses(probabilities: np.ndarray, labels: np.ndarray, count: int = 16) -> np.ndarray:
    """Returns the indices of the images with the highest loss, the highest first, of equal ones the first first."""
    return np.argsort(-losses(probabilities, labels), kind="stable")[:count]


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean of -log of the probability of each image's class, in nats."""
    return float(losses(probabilities, labels).mean())


class Reliability(NamedTuple):
    """By bins of confidence, each float [BINS]; NaN where no image is."""

    confidence: np.ndarray
    """Mean of the highest probabilities."""
    accuracy: np.ndarray
    """Share of images that are classified rightly."""
    share: np.ndarray
    """Share of all images; 0 where none is."""

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of confidence and accuracy over all images."""
        return float(np.nansum(self.share * np.abs(self.confidence - self.accuracy)))


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Returns how often a network that is so sure is right: C. Guo et al., arXiv:1706.04599, section 2.

    Args:
      probabilities: [N, K].
      labels: integers [N].
      bins: as many of equal width, each without its lower end.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, minlength=bins) / counts for values in (confidence, right)]
    return Reliability(means[0], means[1], counts / len(labels))


def scale_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the probabilities [N, K] as if their logits had been divided by a temperature."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny)) / temperature
    scaled = np.exp(logits - logits.max(1, keepdims=True))
    return scaled / scaled.sum(1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature with the least negative log likelihood: C. Guo et al., section 4.2.

    Args:
      probabilities: of images that the network was not trained on, and that nothing is reported of, [N, K].
      labels: integers [N].
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature):
        return negative_log_likelihood(scale_temperature(probabilities, math.exp(log_temperature)), labels)

    found: Any = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    return math.exp(found.x)


def evaluation(probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str], temperature: float) -> dict:
    """Returns all that ``evaluation.json`` holds, as plain numbers.

    Args:
      probabilities: of the test images, [N, K].
      labels: integers [N].
      names: of the classes, [K].
      temperature: fitted on other images.
    """
    confusion = confusion_matrix(labels, probabilities.argmax(1), len(names))
    correct, count = int(np.trace(confusion)), len(labels)
    scores, scaled = class_scores(confusion), scale_temperature(probabilities, temperature)
    second = np.sort(probabilities, 1)[:, -2] <= probabilities[np.arange(count), labels]
    return {
        "images": count,
        "accuracy": correct / count,
        "accuracy_interval": list(accuracy_interval(correct, count)),
        "top2_accuracy": float(second.mean()),
        "nll": negative_log_likelihood(probabilities, labels),
        "ece": reliability(probabilities, labels).error,
        "temperature": temperature,
        "nll_scaled": negative_log_likelihood(scaled, labels),
        "ece_scaled": reliability(scaled, labels).error,
        "classes": {
            name: {"images": int(confusion[label].sum()), **{score: float(of[label]) for score, of in scores.items()}}
            for label, name in enumerate(names)
        },
        "most_confused": [[names[label], names[other], wrong] for label, other, wrong in most_confused(confusion)],
        "confusion_matrix": confusion.tolist(),
    }


def calibrated(
    val: np.ndarray, val_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Reliability]]:
    """Returns ``evaluation`` of the test images, and by its title how sure the network may be before and after scaling.

    Args:
      val: probabilities of the validation images, to which the temperature is fitted, [N, K].
      val_labels: integers [N].
      test: probabilities of the test images, [M, K].
      test_labels: integers [M].
      names: of the classes, [K].
    """
    temperature = fit_temperature(val, val_labels)
    bins = {
        "as trained": reliability(test, test_labels),
        f"with temperature {temperature:.2f}": reliability(scale_temperature(test, temperature), test_labels),
    }
    return evaluation(test, test_labels, names, temperature), bins


def format_evaluation(values: dict[str, Any]) -> str:
    """Returns an evaluation as tables."""
    low, high = values["accuracy_interval"]
    lines = [
        f"accuracy        {values['accuracy']:.4f}   95 % interval {low:.4f} to {high:.4f}",
        f"top-2 accuracy  {values['top2_accuracy']:.4f}",
        f"log likelihood  {values['nll']:.4f}   nats an image, negative; {values['nll_scaled']:.4f} with temperature",
        f"calibration     {values['ece']:.4f}   expected error; {values['ece_scaled']:.4f} with temperature "
        f"{values['temperature']:.2f}, fitted on the validation images",
        "",
        f"{'class':14}{'precision':>10}{'recall':>10}{'f1':>10}{'images':>10}",
    ]
    for name, scores in values["classes"].items():
        numbers = "".join(f"{scores[score]:>10.4f}" for score in ("precision", "recall", "f1"))
        lines.append(f"{name:14}{numbers}{scores['images']:>10,}")
    lines += ["", "most confused"]
    lines += [f"  {wrong:>5}  {name} taken for {other}" for name, other, wrong in values["most_confused"]]
    return "\n".join(lines)


def evaluate_run(run_dir: Path) -> tuple[dict[str, Any], list[Path]]:
    """Evaluates the best network of a run on its test images, writes evaluation.json and figures, and returns both.

    Raises:
      UserError: the directory holds no run, or its images are not there, or others, or it cannot be written.
      DamagedError: the checkpoint is damaged.
    """
    from cnn.data.splits import model_class_names
    from cnn.figures import image_plots, plots
    from cnn.look.features import layer_outputs
    from cnn.look.pictures import write_figures
    from cnn.look.tsne import embed
    from cnn.runs import rundir
    from cnn.runs.checkpoint import load_best
    from cnn.runs.result import load_images
    from cnn.training.steps import predict
    from cnn.training.summary import last_hidden_layer, layer_table

    state, config = load_best(run_dir)
    splits, names = load_images(run_dir), model_class_names(config)
    val, test = (np.asarray(predict(state, split.images)) for split in (splits.val, splits.test))
    values, bins = calibrated(val, splits.val.labels, test, splits.test.labels, names)
    worst = top_losses(test, splits.test.labels)
    wrong = f"The {len(worst)} test images with the highest loss: class, what it is taken for, loss"
    some, hidden = splits.test.images[:EMBEDDED], last_hidden_layer(layer_table(state))

    def embedding():
        outputs = np.asarray(layer_outputs(state, some, hidden)).reshape(len(some), -1)
        title = f"What {hidden} puts out for {len(some):,} test images, by t-SNE: near points are alike to the network"
        return plots.embedding(np.asarray(embed(outputs)), splits.test.labels[:EMBEDDED], names, title)

    drawings = {
        "confusion_matrix": lambda: plots.confusion_matrix(np.asarray(values["confusion_matrix"]), names),
        "reliability": lambda: plots.reliability(bins),
        "top_losses": lambda: image_plots.top_losses(
            splits.test.images[worst], splits.test.labels[worst], test[worst], names, wrong
        ),
        "embedding": embedding,
    }
    figures = write_figures(run_dir, drawings)
    rundir.write_json(run_dir / "evaluation.json", values)
    return values, figures
