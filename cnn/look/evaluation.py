"""A run -> the numbers of its evaluation, tables and figures: accuracy, confusion, calibration on the test images."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.look.scores import MANY, calibrated, top_losses
from cnn.text import columns, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("confusion_matrix.png", "reliability.png", "top_losses.png", "embedding.png")
"""Names of the figures."""

EMBEDDED = 2_000
"""Number of test images in the t-SNE embedding of the last hidden layer."""

EMBEDDED_PIXELS = EMBEDDED * 28 * 28
"""Maximum number of pixels of the images whose outputs are computed at a time."""

WORST, NAME = 20, 40
"""Number of printed classes, if there are more than ``MANY``, and columns of a name."""


def format_evaluation(values: dict[str, Any]) -> str:
    """Returns an evaluation as tables."""
    low, high = values["accuracy_interval"]
    lines = [
        f"accuracy        {values['accuracy']:.4f}   95 % interval {low:.4f} to {high:.4f}",
        f"balanced        {values['balanced_accuracy']:.4f}   mean recall; macro F1 {values['macro_f1']:.4f}",
        f"top-2 accuracy  {values['top2_accuracy']:.4f}",
        f"NLL             {values['nll']:.4f}   nats per image; {values['nll_scaled']:.4f} with temperature",
        f"ECE             {values['ece']:.4f}   expected calibration error; {values['ece_scaled']:.4f} with "
        f"temperature {values['temperature']:.2f}, fitted on the validation images",
        "",
    ]
    shown, others = list(values["classes"].items()), 0
    if len(shown) > MANY:
        shown, others = sorted(shown, key=lambda item: item[1]["f1"])[:WORST], len(shown) - WORST
    names = [shortened(name, NAME) for name, _ in shown]
    width = max(14, *(columns(name) + 2 for name in names))
    lines.append(f"{'class':{width}}{'precision':>10}{'recall':>10}{'f1':>10}{'images':>10}")
    for name, (_, scores) in zip(names, shown, strict=True):
        cells = "".join(f"{scores[score]:>10.4f}" for score in ("precision", "recall", "f1"))
        lines.append(f"{name}{' ' * (width - columns(name))}{cells}{scores['images']:>10,}")
    if others:
        lines.append(f"and {others:,} other classes, whose F1 is not lower, in evaluation.json")
    lines += ["", "most confused"]
    for name, other, wrong in values["most_confused"]:
        lines.append(f"  {wrong:>5}  {shortened(name, NAME)} predicted as {shortened(other, NAME)}")
    return "\n".join(lines)


def evaluate_run(run_dir: Path) -> tuple[dict[str, Any], dict[str, Callable[[], "Figure"]]]:
    """Returns the evaluation of a run's best network on its test images, and by file name what draws its figures.

    Raises:
      UserError: the directory holds no run, or the run's images are missing or have changed.
      DamagedError: the checkpoint is damaged.
    """
    from cnn.figures import evaluation_plots, image_plots
    from cnn.look.batches import by_batches, probabilities
    from cnn.look.features import layer_outputs
    from cnn.look.tsne import embed
    from cnn.resolution import model_class_names
    from cnn.runs.checkpoint import load_best
    from cnn.runs.result import load_images
    from cnn.training.summary import last_hidden_layer, layer_table

    state, config = load_best(run_dir)
    splits, names = load_images(run_dir), model_class_names(config)
    val, test = (probabilities(state, split.images) for split in (splits.val, splits.test))
    values, bins = calibrated(val, splits.val.labels, test, splits.test.labels, names)
    worst = top_losses(test, splits.test.labels)
    caption = f"The {len(worst)} test images with the highest loss: class, predicted class, loss"
    embedded, hidden = splits.test.images[:EMBEDDED], last_hidden_layer(layer_table(state))

    def embedding():
        outputs = by_batches(lambda images: layer_outputs(state, images, hidden), EMBEDDED_PIXELS, embedded)
        title = f"t-SNE of the outputs of {hidden} for {len(embedded):,} test images: near points have similar outputs"
        return evaluation_plots.embedding(
            np.asarray(embed(outputs.reshape(len(embedded), -1))), splits.test.labels[:EMBEDDED], names, title
        )

    drawings = {
        "confusion_matrix": lambda: evaluation_plots.confusion_matrix(np.asarray(values["confusion_matrix"]), names),
        "reliability": lambda: evaluation_plots.reliability(bins),
        "top_losses": lambda: image_plots.top_losses(
            splits.test.images[worst], splits.test.labels[worst], test[worst], names, caption
        ),
        "embedding": embedding,
    }
    return values, drawings
