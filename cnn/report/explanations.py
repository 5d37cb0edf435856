"""The section of a page that says which explanation of a network's predictions to believe."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.splits import Split
from cnn.figures.plots import png
from cnn.intervals import estimate
from cnn.look.faithfulness import RANDOM, Explained, explain
from cnn.look.layer_figures import attention_figure, explanations_figure, grad_cam_layer
from cnn.look.neighbours import draw_nearest, evenly_spaced, last_pooled_layer
from cnn.models.vit import ViTConfig
from cnn.report.page import escaped, fill_template, picture_url, table
from cnn.resolution import model_class_names
from cnn.text import shortened
from cnn.training.state import TrainState
from cnn.training.summary import layer_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_IMAGES, LEAST_IMAGES = 100, 10
"""Maximum and minimum number of test images that are explained, if there are as many."""

FLOPS = 10**9
"""Maximum number of FLOPs of a forward pass of these images, if there are more than the minimum."""

SEARCHED = 5_000
"""Maximum number of training images that are searched for the nearest ones, evenly spaced."""

PICTURE_SIDE = 1400
"""Maximum side of a picture in a page, in pixels."""


def explanations_section(
    state: TrainState, config: ExperimentConfig, train: Split, test: Split, probabilities: np.ndarray
) -> str:
    """Returns the section: scores of each explanation of some test images, and the first of them with its pictures.

    Args:
      state: a trained state.
      config: its experiment.
      train: the training images, of which some are searched for those nearest to that test image.
      test: the test images.
      probabilities: of all test images, [N, K].
    """
    layers, names = layer_table(state), model_class_names(config)
    flops, layer = sum(row.flops for row in layers), grad_cam_layer(layers)
    # In a folder of one's own, images may be in the order of their classes.
    selected = np.linspace(0, len(test.labels) - 1, image_count(flops, len(test.labels))).round().astype(int)
    images, predicted = test.images[selected], probabilities[selected].argmax(1)
    explained = explain(state, images, predicted, layer)
    subject = f"Test image {selected[0]}"
    share = probabilities[selected[0], predicted[0]]
    title = f"{subject}: predicted as {shortened(names[predicted[0]], 40)}, probability {share:.3f}"
    pictures = [_picture(explanations_figure(images[0], explained, 0, layer, title), f"Explanations of {subject}")]
    if isinstance(model := config.model, ViTConfig):
        pictures.append(_picture(attention_figure(state, images[0], model, subject), f"Attention in {subject}"))
    searched = evenly_spaced(len(train.labels), SEARCHED)
    some = Split(train.images[searched], train.labels[searched])
    description = f"test image {selected[0]}, of {len(searched):,},"
    nearest = draw_nearest(state, some, images[0], last_pooled_layer(layers), names, description)
    pictures.append(_picture(nearest, f"The training images nearest to {subject}"))
    return fill_template(
        "explanations.html",
        images=f"{len(images):,}",
        verdict=verdict(explained),
        scores=_score_table(explained, layer),
        pictures="".join(pictures),
    )


def image_count(flops: int, available: int) -> int:
    """Returns the number of images to explain, of those available, by a network of this many FLOPs an image."""
    return min(available, max(LEAST_IMAGES, min(MOST_IMAGES, FLOPS // max(flops, 1))))


def _score(explained: Mapping[str, Explained]) -> dict[str, np.ndarray]:
    """The area under the insertion curve minus that under the deletion curve, by method, [N]; highest mean first."""
    areas = {name: one.curves.areas for name, one in explained.items()}
    scores = {name: area.insertion - area.deletion for name, area in areas.items()}
    return dict(sorted(scores.items(), key=lambda item: -item[1].mean()))


def verdict(explained: Mapping[str, Explained]) -> str:
    """Returns which explanations are the best, and which ones are to be ignored, by scores compared image by image."""
    scores = _score(explained)
    methods = [name for name in scores if name != RANDOM]
    best = methods[0]

    def above(name, other):
        """Whether one's scores are higher than another's, beyond chance."""
        return estimate((scores[name] - scores[other]).tolist()).low > 0

    useless = [name for name in methods if not above(name, RANDOM)]
    if best in useless:
        return "No explanation is measurably better than a random order of the pixels."
    equal = [best, *(name for name in methods[1:] if name not in useless and not above(best, name))]
    text = f"Most faithful: {' and '.join(equal)}{', which these images do not tell apart' if len(equal) > 1 else ''}."
    return f"{text} Not better than a random order: {', '.join(useless)}." if useless else text


def _score_table(explained: Mapping[str, Explained], layer: str | None) -> str:
    def cell(values_N: np.ndarray) -> str:
        mean, _, low, high = estimate(values_N.tolist())
        return f"{mean:.3f}" if len(values_N) == 1 else f"{mean:.3f} ± {(high - low) / 2:.3f}"

    def row(name: str, score_N: np.ndarray) -> list[str]:
        areas = explained[name].curves.areas
        head = f"Grad-CAM of {escaped(layer)}" if name == "Grad-CAM" else name
        return [head, cell(areas.deletion), cell(areas.insertion), cell(score_N)]

    heads = ("explanation", "deletion", "insertion", "insertion − deletion")
    return f'<div class="scroll">{table(heads, (row(*item) for item in _score(explained).items()))}</div>'


def _picture(figure: "Figure", text: str) -> str:
    """A figure as a picture, HTML."""
    from PIL import Image

    picture, content = Image.open(io.BytesIO(png(figure))).convert("RGB"), io.BytesIO()
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    picture.save(content, "WEBP", quality=80)
    return (
        f'<figure><img src="{picture_url(content.getvalue())}" width="{picture.width}" height="{picture.height}" '
        f'alt="{escaped(text)}" loading="lazy"></figure>'
    )
