"""What a page needs so that one can look inside a network in it: some images, and what some layers make of them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from cnn.data.splits import Split
from cnn.look.attribution import grad_cam
from cnn.look.features import feature_maps
from cnn.report.page import picture_url, webp
from cnn.training.state import TrainState

IMAGES = 300
"""At most so many test images are in a page."""

LAYERS = 8
"""At most so many layers are, each with as many as ``MAPS`` maps, which are told apart in ``LEVELS`` steps."""
MAPS, LEVELS = 64, 16

COLUMNS = 20
"""Of the picture with all images."""

MAX_BYTES = 2_300_000
"""Of all maps; a third more as text, and the rest of a page, come to less than 5 MB."""


def chosen_images(probabilities: np.ndarray, labels: np.ndarray, count: int = IMAGES) -> np.ndarray:
    """Returns the indices, ascending, of the images for a page: half of them mistakes, and the first of each class.

    Of the mistakes, the worst of each pair of classes come first, then the second worst; the worst is that whose own
    class has the least probability. If there are fewer mistakes, there are more of the others.

    Args:
      probabilities: [N, K].
      labels: integers [N].
      count: how many; all if there are not so many.
    """
    predicted, classes = probabilities.argmax(1), probabilities.shape[1]
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")]
    mistakes = worst[np.argsort(_turns(labels[worst] * classes + predicted[worst]), kind="stable")][: count // 2]
    others = np.setdiff1d(np.argsort(_turns(labels), kind="stable"), mistakes, assume_unique=True)
    return np.sort(np.concatenate([mistakes, others[: count - len(mistakes)]]))


def _turns(groups: np.ndarray) -> np.ndarray:
    """How many of its own group come before each item, integers [N]."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    turns = np.empty(len(groups), int)
    turns[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return turns


def chosen_layers(names: Sequence[str], count: int = LAYERS) -> list[str]:
    """Returns at most ``count`` of the layers, in their order: whole blocks before their parts, evenly spread."""
    whole = [name for name in names if "_" not in name]
    names = list(names) if len(names) <= count or not whole else whole
    places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[place] for place in places]


def quantized(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns maps [N, H, W, C] as a sheet of greys, uint8 [N H, C W] in ``LEVELS`` steps, and each image's scale.

    The scale holds 0 and is the same for all maps of an image: its lowest and highest values, float [N] each.
    """
    count, height, width, channels = maps.shape
    lowest, highest = np.minimum(maps.min((1, 2, 3)), 0), np.maximum(maps.max((1, 2, 3)), 0)
    length = np.maximum(highest - lowest, np.finfo(np.float32).tiny)
    shares = (maps - lowest[:, None, None, None]) / length[:, None, None, None]
    steps = np.round(shares * (LEVELS - 1)) * (255 / (LEVELS - 1))
    sheet = steps.astype(np.uint8).transpose(0, 1, 3, 2).reshape(count * height, channels * width)
    return sheet, lowest, highest


def _layer(name: str, maps: np.ndarray, cam: np.ndarray) -> dict[str, Any]:
    """A layer's maps and Grad-CAM as pictures in which each image has its row."""
    channels = maps.shape[-1]
    strongest = np.sort(np.argsort(-np.abs(maps).mean((0, 1, 2)), kind="stable")[:MAPS])
    sheet, lowest, highest = quantized(maps[..., strongest])
    heat = cam / np.maximum(cam.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)
    count, height, width = cam.shape
    return {
        "name": name,
        "height": height,
        "width": width,
        "channels": strongest.tolist(),
        "of": channels,
        "lowest": _rounded(lowest),
        "highest": _rounded(highest),
        "src": webp(sheet, lossless=True, quality=30, method=1),
        "cam": webp(np.round(heat * 255).astype(np.uint8).reshape(count * height, width), lossless=True),
    }


def _rounded(array: np.ndarray, digits: int = 4) -> list[Any]:
    return np.round(array.astype(float), digits).tolist()


class Embedded(NamedTuple):
    """What a page holds of a network."""

    data: dict[str, Any]
    """For ``explorer.js``, ready for JSON: images, their probabilities, and by layer their maps as pictures."""
    images: str
    """A sentence that says which images."""
    layers: str
    """A sentence that says what was reduced, HTML."""


def embed(state: TrainState, test: Split, probabilities: np.ndarray) -> Embedded:
    """Returns some test images and what some layers make of them, and where those see the predicted class (Grad-CAM).

    Args:
      state: a trained state.
      test: the test images.
      probabilities: of all of them, [N, K].
    """
    from matplotlib import colormaps

    chosen = chosen_images(probabilities, test.labels)
    maps = {name: np.asarray(of) for name, of in feature_maps(state, test.images[chosen]).items() if of.ndim == 4}
    shown, predicted = chosen_layers(list(maps)), probabilities[chosen].argmax(1)
    cams = {name: np.asarray(grad_cam(state, test.images[chosen], name, predicted)) for name in shown}
    kept = np.arange(len(chosen))
    layers = _packed(shown, maps, cams, kept)
    if (size := sum(len(layer["src"]) + len(layer["cam"]) for layer in layers)) > MAX_BYTES:
        # As many images as there is room for; each takes about the same.
        room = int(len(chosen) * 0.95 * MAX_BYTES / size)
        kept = chosen_images(probabilities[chosen], test.labels[chosen], room)
        layers = _packed(shown, maps, cams, kept)
    chosen = chosen[kept]
    for layer in layers:
        layer.update(src=picture_url(layer["src"]), cam=picture_url(layer["cam"]))
    rows = zip(chosen, test.labels[chosen], probabilities[chosen], strict=True)
    data = {
        "size": test.images.shape[1:3],
        "columns": COLUMNS,
        "src": picture_url(webp(tiled(test.images[chosen]), lossless=True)),
        "images": [
            {"test": int(index), "label": int(label), "predicted": int(row.argmax()), "probabilities": _rounded(row, 7)}
            for index, label, row in rows
        ],
        "layers": layers,
        "colours": {
            name: [[round(255 * part) for part in colour[:3]] for colour in colormaps[scale](np.linspace(0, 1, 33))]
            for name, scale in (("maps", "viridis"), ("heat", "inferno"))
        },
    }
    mistakes = int((probabilities[chosen].argmax(1) != test.labels[chosen]).sum())
    images = (
        f"{len(chosen):,} of the {len(test.labels):,} test images are in this page, {mistakes:,} of them mistakes: "
        "the worst of each pair of classes, and the first images of each class."
    )
    return Embedded(data, images, _reduced(layers, len(maps)))


def _reduced(layers: Sequence[dict[str, Any]], there: int) -> str:
    """What the page says of all that it leaves out of its layers."""
    if not layers:
        return "This network has no layers with pixels, so there are no maps to show."
    parts = [f"To keep the page small, maps are shown in {LEVELS} steps of their scale"]
    if len(layers) < there:
        parts.append(f"{len(layers)} of the {there} layers with pixels are in it")
    if (most := max(layer["of"] for layer in layers)) > MAPS:
        parts.append(f"of a layer's maps, at most {most} of them, the {MAPS} strongest are")
    return f"{'; '.join(parts)}. <code>python -m cnn look</code> draws any layer exactly."


def _packed(shown: Sequence[str], maps: Any, cams: Any, kept: np.ndarray) -> list[dict[str, Any]]:
    """The layers as pictures; Pillow lets other threads run while it compresses."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda name: _layer(name, maps[name][kept], cams[name][kept]), shown))


def tiled(images: np.ndarray) -> np.ndarray:
    """Returns images [N, H, W, C] as one picture, uint8 [H', W', 3], ``COLUMNS`` in a row, grey ones dark on white."""
    count, height, width, channels = images.shape
    images = np.pad(255 - images if channels == 1 else images, [(0, -count % COLUMNS), (0, 0), (0, 0), (0, 0)])
    rows = images.reshape(-1, COLUMNS, height, width, channels).swapaxes(1, 2)
    return rows.reshape(-1, COLUMNS * width, channels).repeat(3 // channels, -1)
