"""A run -> the numbers of its evaluation, tables and figures: accuracy, confusion, calibration on the test images."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.look.scores import calibrated, top_losses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EMBEDDED = 2_000
"""Number of test images in the t-SNE embedding of the last hidden layer."""


def format_evaluation(values: dict[str, Any]) -> str:
    """Returns an evaluation as tables."""
    low, high = values["accuracy_interval"]
    lines = [
        f"accuracy        {values['accuracy']:.4f}   95 % interval {low:.4f} to {high:.4f}",
        f"top-2 accuracy  {values['top2_accuracy']:.4f}",
        f"NLL             {values['nll']:.4f}   nats per image; {values['nll_scaled']:.4f} with temperature",
        f"ECE             {values['ece']:.4f}   expected calibration error; {values['ece_scaled']:.4f} with "
        f"temperature {values['temperature']:.2f}, fitted on the validation images",
        "",
        f"{'class':14}{'precision':>10}{'recall':>10}{'f1':>10}{'images':>10}",
    ]
    for name, scores in values["classes"].items():
        columns = "".join(f"{scores[score]:>10.4f}" for score in ("precision", "recall", "f1"))
        lines.append(f"{name:14}{columns}{scores['images']:>10,}")
    lines += ["", "most confused"]
    lines += [f"  {wrong:>5}  {name} predicted as {other}" for name, other, wrong in values["most_confused"]]
    return "\n".join(lines)


def evaluate_run(run_dir: Path) -> tuple[dict[str, Any], dict[str, Callable[[], "Figure"]]]:
    """Returns the evaluation of a run's best network on its test images, and by file name what draws its figures.

    Raises:
      UserError: the directory holds no run, or the run's images are missing or have changed.
      DamagedError: the checkpoint is damaged.
    """
    from cnn.config import model_class_names
    from cnn.figures import image_plots, plots
    from cnn.look.features import layer_outputs
    from cnn.look.tsne import embed
    from cnn.runs.checkpoint import load_best
    from cnn.runs.result import load_images
    from cnn.training.border import predict
    from cnn.training.summary import last_hidden_layer, layer_table

    state, config = load_best(run_dir)
    splits, names = load_images(run_dir), model_class_names(config)
    val, test = (np.asarray(predict(state, split.images)) for split in (splits.val, splits.test))
    values, bins = calibrated(val, splits.val.labels, test, splits.test.labels, names)
    worst = top_losses(test, splits.test.labels)
    caption = f"The {len(worst)} test images with the highest loss: class, predicted class, loss"
    embedded, hidden = splits.test.images[:EMBEDDED], last_hidden_layer(layer_table(state))

    def embedding():
        outputs = np.asarray(layer_outputs(state, embedded, hidden)).reshape(len(embedded), -1)
        title = f"t-SNE of the outputs of {hidden} for {len(embedded):,} test images: near points have similar outputs"
        return plots.embedding(np.asarray(embed(outputs)), splits.test.labels[:EMBEDDED], names, title)

    drawings = {
        "confusion_matrix": lambda: plots.confusion_matrix(np.asarray(values["confusion_matrix"]), names),
        "reliability": lambda: plots.reliability(bins),
        "top_losses": lambda: image_plots.top_losses(
            splits.test.images[worst], splits.test.labels[worst], test[worst], names, caption
        ),
        "embedding": embedding,
    }
    return values, drawings
