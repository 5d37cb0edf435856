"""The part of live.html that shows what a detector finds in scenes."""

from typing import Any

import numpy as np

from cnn.figures.scene_plots import LOWEST
from cnn.report.live_parts import NAME, Subject
from cnn.report.page import escaped, picture_url, webp
from cnn.text import shortened

SCENES = 12
"""Maximum number of scenes that are shown."""


def scenes_section(subject: Subject, detections: Any, epoch: int) -> str:
    """Returns scenes with their true and predicted boxes, HTML; the detections are those of the subject's images."""
    shown = range(min(SCENES, len(subject.images)))
    items = "".join(f"<li><figure>{_scene(subject, detections, i)}</figure></li>" for i in shown)
    return (
        '<section aria-labelledby="scenes-title"><h2 id="scenes-title">Scenes</h2>'
        f'<p class="muted">Validation scenes after epoch {epoch}: true boxes are dashed, and boxes with a score of at '
        f"least {LOWEST} are solid. Point at a box for its class. The same scenes are shown after each epoch.</p>"
        f'<ul class="mistakes scenes">{items}</ul></section>'
    )


def _scene(subject: Subject, detections: Any, i: int) -> str:
    """A scene and its boxes as a drawing, and below it what is predicted."""
    height, width, channels = subject.images[i].shape
    pixels = 255 - subject.images[i][..., 0] if channels == 1 else subject.images[i]
    names = [escaped(shortened(name, NAME)) for name in subject.names]
    true = [row for row in np.asarray(subject.labels[i]) if row[4] >= 0]
    kept = np.flatnonzero(detections.scores[i] >= LOWEST)
    found = [(detections.boxes[i, k], names[detections.classes[i, k]], detections.scores[i, k]) for k in kept]
    boxes = [_box(row[:4], names[int(row[4])], "true") for row in true]
    boxes += [_box(box, f"{name} {score:.2f}", "predicted") for box, name, score in found]
    text = "<br>".join(f"<strong>{name}</strong> {score:.2f}" for _, name, score in found) or "none predicted"
    label = f"{len(true)} objects, {len(found)} predicted boxes"
    image = f'<image href="{picture_url(webp(pixels, quality=80))}" width="{width}" height="{height}"/>'
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{image}{"".join(boxes)}</svg>'
        f'<figcaption>{text}<br><span class="muted">scene {subject.indices[i]:,}</span></figcaption>'
    )


def _box(box: np.ndarray, title: str, kind: str) -> str:
    x, y, right, bottom = (round(float(value), 1) for value in box)
    size = f'width="{right - x:.1f}" height="{bottom - y:.1f}"'
    return f'<rect class="{kind}" x="{x}" y="{y}" {size}><title>{title}</title></rect>'
