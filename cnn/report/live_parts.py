"""The parts of live.html: how far a run is, and its network's kernels and mistakes."""

from typing import Any, NamedTuple

import numpy as np

from cnn.config import ExperimentConfig
from cnn.report.page import escaped, percent, picture_url, webp
from cnn.runs.monitor import monitored
from cnn.text import shortened
from cnn.training.early_stopping import EarlyStopper, should_stop, update_stopper

MISTAKES, KERNELS = 24, 64
"""Maximum numbers of mistakes and kernels that are shown."""

SIDE, NAME = 128, 40
"""Maximum side of an image, in pixels, and maximum length of a class's name, in columns."""

RECENT = 5
"""Number of epochs whose mean duration predicts that of the next ones."""

_RED_BLUE = ((5, 48, 97), (67, 147, 195), (247, 247, 247), (214, 96, 77), (103, 0, 31))
"""Colours from the most negative to the most positive weight, about those of the figures of kernels."""


class Subject(NamedTuple):
    """What the network is looked at by; the same after each epoch."""

    names: tuple[str, ...]
    """Of the classes."""
    indices: np.ndarray
    """Evenly spaced positions of validation images, integers [N]."""
    images: np.ndarray
    """Those images, uint8 [N, H, W, C]."""
    labels: np.ndarray


class Progress(NamedTuple):
    """How far a run is."""

    history: list[dict[str, Any]]
    """A row of metrics.jsonl per epoch."""
    stopper: EarlyStopper = EarlyStopper()
    looks: str = ""
    """The kernels and mistakes after the latest epoch for which they were computed, HTML."""

    def after(self, row: dict[str, Any], monitor: str) -> "Progress":
        """Returns the progress after another epoch."""
        stopper = update_stopper(self.stopper, row["epoch"], monitored(monitor, row))
        return self._replace(history=[*self.history, row], stopper=stopper)


def kernels_section(kernel_HxWxCxF: np.ndarray, epoch: int) -> str:
    """Returns the kernels of a convolution as pictures, HTML: in colour if they have three input channels."""
    count, of = min(KERNELS, kernel_HxWxCxF.shape[-1]), kernel_HxWxCxF.shape[-1]
    kernels = np.moveaxis(kernel_HxWxCxF, -1, 0)[:count].astype(float)
    kernels = kernels if kernels.shape[-1] == 3 else kernels[..., :1]
    # As in the figures, the largest 2 % are cut off, so that a few strong weights do not leave the others pale.
    weights = kernels / max(float(np.quantile(np.abs(kernels), 0.98)), 1e-6)
    pixels = np.round(np.clip(127.5 + 127.5 * weights, 0, 255)).astype(np.uint8)
    note = "Each is shown as an image: grey is zero."
    if kernels.shape[-1] == 1:
        stops = np.linspace(-1, 1, len(_RED_BLUE))
        colours = [np.interp(weights[..., 0], stops, part) for part in np.transpose(_RED_BLUE)]
        pixels = np.stack(colours, -1).round().astype(np.uint8)
        note = "Red weights are positive, blue ones negative, white ones zero."
    images = "".join(f'<img src="{picture_url(webp(kernel, lossless=True))}" alt="">' for kernel in pixels)
    which = f"{count} kernels" if count == of else f"The first {count} of {of} kernels"
    return (
        '<section aria-labelledby="kernels-title"><h2 id="kernels-title">Kernels of the first convolution</h2>'
        f'<p class="muted">{which} after epoch {epoch}. {note}</p>'
        f'<div class="kernels" role="img" aria-label="{which} after epoch {epoch}">{images}</div></section>'
    )


def later_section(seconds: int, what: str = "Mistakes") -> str:
    """Returns the section of a run that has no mistakes, or scenes, on its page yet, HTML."""
    return (
        f'<section aria-labelledby="mistakes-title"><h2 id="mistakes-title">{what}</h2>'
        f'<p class="muted">{what} are shown here after {seconds} seconds of training, when finding them takes less '
        "than 1 % of the time. The report of the run has them in any case.</p></section>"
    )


def mistakes_section(subject: Subject, probabilities_NxK: np.ndarray, epoch: int) -> str:
    """Returns the mistakes with the highest probabilities of the predicted classes, HTML."""
    predicted, confidence = probabilities_NxK.argmax(1), probabilities_NxK.max(1)
    wrong = np.flatnonzero(predicted != subject.labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")[:MISTAKES]]
    names = [escaped(shortened(name, NAME)) for name in subject.names]
    items = "".join(
        f"<li><figure>{_image(subject.images[i])}<figcaption><strong>{names[predicted[i]]}</strong> "
        f"{percent(float(confidence[i]), 1)}<br>true: {names[subject.labels[i]]}"
        f'<br><span class="muted">image {subject.indices[i]:,}</span></figcaption></figure></li>'
        for i in shown
    )
    part = f"; the {len(shown)} with the highest probabilities are shown" if len(shown) < len(wrong) else ""
    return (
        '<section aria-labelledby="mistakes-title"><h2 id="mistakes-title">Mistakes</h2>'
        f'<p class="muted">After epoch {epoch}, {len(wrong):,} of {len(subject.labels):,} validation images are '
        f"misclassified{part}: the predicted class, its probability, and the true class. The same images are "
        f'classified after each epoch.</p><ul class="mistakes">{items}</ul></section>'
    )


def _image(image_HxWxC: np.ndarray) -> str:
    """An image as an HTML element, a grey one dark on white."""
    step = -(-max(image_HxWxC.shape[:2]) // SIDE)
    image = image_HxWxC[::step, ::step]
    pixels = 255 - image[..., 0] if image.shape[-1] == 1 else image
    small = max(image.shape) <= SIDE // 2
    options = {"lossless": True} if small else {"quality": 80}
    kind = ' class="small-image"' if small else ""
    return f'<img src="{picture_url(webp(pixels, **options))}" alt=""{kind}>'


def cards(config: ExperimentConfig, progress: Progress, state: str) -> str:
    """Returns how far a run is, HTML; arguments as of ``live.render``."""
    history, latest = progress.history, progress.history[-1]
    best = history[progress.stopper.best_epoch - 1]
    an_epoch = float(np.mean([row["seconds"] for row in history[-RECENT:]]))
    left, patience = config.train.epochs - len(history), max(config.train.patience, 1)
    monitor = config.train.monitor.replace("val_", "validation ").replace("_", " ").replace(" map", " mAP")
    ended = state == "finished" or not left or should_stop(progress.stopper, patience)
    score = f"accuracy {percent(best['val_accuracy'])}"
    measured = {}
    if "val_map" in latest:
        score = f"mAP {percent(best['val_map'])}"
        measured = {"Validation mAP": (percent(latest["val_map"]), f"at IoU 0.5 {percent(latest['val_map_50'])}")}
    texts = {
        "Epochs": (f"{len(history)} of {config.train.epochs}", "trained" if ended else f"at most {left} left"),
        "Time left": (duration(left * an_epoch), f"at most, at {an_epoch:.1f} s an epoch"),
        **measured,
        "Validation accuracy": (percent(latest["val_accuracy"]), f"training {percent(latest['train_accuracy'])}"),
        "Validation loss": (f"{latest['val_loss']:.4f}", f"training {latest['train_loss']:.4f}"),
        "Best epoch": (
            best["epoch"],
            f"by {monitor}: loss {best['val_loss']:.4f}, {score}",
        ),
        "Early stopping": (f"{progress.stopper.epochs_since} of {patience}", "epochs without improvement"),
    }
    if ended:
        texts["Time left"] = ("0 s", f"{duration(sum(row['seconds'] for row in history))} for all epochs")
    lines = (f"<div><dt>{name}</dt><dd>{text}<small>{note}</small></dd></div>" for name, (text, note) in texts.items())
    return f'<dl class="cards">{"".join(lines)}</dl>'


def duration(seconds: float) -> str:
    """Returns seconds in the two largest units that they fill."""
    whole = round(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    for number, unit, part, smaller in ((days, "d", hours, "h"), (hours, "h", minutes, "min")):
        if number:
            return f"{number} {unit} {part} {smaller}"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
