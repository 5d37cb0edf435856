"""The data of a page's explorer: some test images, with the feature maps and Grad-CAM of some layers."""

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
"""Maximum number of test images in a page."""

LAYERS, MAPS, LEVELS = 8, 64, 16
"""Maximum numbers of layers and of maps per layer, and the number of grey levels of a map."""

COLUMNS = 20
"""Of the sheet with all images."""

MAX_BYTES = 2_300_000
"""Maximum size of all maps; base64 adds a third, and the page stays below 5 MB."""


def select_images(probabilities: np.ndarray, labels: np.ndarray, count: int = IMAGES) -> np.ndarray:
    """Returns the ascending indices of the images for a page: half of them mistakes, and the first of each class.

    Mistakes are selected from each pair of classes in turn, those with the lowest probability of the true class first.
    If there are fewer mistakes, more of the other images are selected.

    Args:
      probabilities: [N, K].
      labels: integers [N].
      count: maximum number of images.
    """
    predicted, classes = probabilities.argmax(1), probabilities.shape[1]
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")]
    mistakes = worst[np.argsort(_group_rank(labels[worst] * classes + predicted[worst]), kind="stable")][: count // 2]
    others = np.setdiff1d(np.argsort(_group_rank(labels), kind="stable"), mistakes, assume_unique=True)
    return np.sort(np.concatenate([mistakes, others[: count - len(mistakes)]]))


def _group_rank(groups: np.ndarray) -> np.ndarray:
    """The number of earlier items of each item's group, integers [N]."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    ranks = np.empty(len(groups), int)
    ranks[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return ranks


def select_layers(names: Sequence[str], count: int = LAYERS) -> list[str]:
    """Returns at most ``count`` layers, evenly spaced and in order: if there are more, blocks without their parts."""
    blocks = [name for name in names if "_" not in name]
    names = list(names) if len(names) <= count or not blocks else blocks
    indices = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[index] for index in indices]


def quantize(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns maps [N, H, W, C] as a grey sheet, uint8 [N H, C W] in ``LEVELS`` levels, and each image's scale.

    The scale includes 0 and is shared by all maps of an image: its lowest and highest values, float [N] each.
    """
    count, height, width, channels = maps.shape
    lowest, highest = np.minimum(maps.min((1, 2, 3)), 0), np.maximum(maps.max((1, 2, 3)), 0)
    length = np.maximum(highest - lowest, np.finfo(np.float32).tiny)
    shares = (maps - lowest[:, None, None, None]) / length[:, None, None, None]
    greys = np.round(shares * (LEVELS - 1)) * (255 / (LEVELS - 1))
    sheet = greys.astype(np.uint8).transpose(0, 1, 3, 2).reshape(count * height, channels * width)
    return sheet, lowest, highest


def _encode_layer(name: str, maps: np.ndarray, cam: np.ndarray) -> dict[str, Any]:
    """A layer's maps and Grad-CAM as WebP sheets with a row per image."""
    channels = maps.shape[-1]
    strongest = np.sort(np.argsort(-np.abs(maps).mean((0, 1, 2)), kind="stable")[:MAPS])
    sheet, lowest, highest = quantize(maps[..., strongest])
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


class ExplorerData(NamedTuple):
    """The explorer's part of a page."""

    data: dict[str, Any]
    """For ``explorer.js``, ready for JSON: images, their probabilities, and the sheets of each layer."""
    images_note: str
    """A sentence on the selection of images."""
    layers_note: str
    """A sentence on the reduction of layers and maps, HTML."""


def explorer_data(state: TrainState, test: Split, probabilities: np.ndarray) -> ExplorerData:
    """Returns some test images with the feature maps of some layers, and Grad-CAM of the predicted classes.

    Args:
      state: a trained state.
      test: the test images.
      probabilities: of all test images, [N, K].
    """
    from matplotlib import colormaps

    selected = select_images(probabilities, test.labels)
    outputs = feature_maps(state, test.images[selected])
    maps = {name: np.asarray(output) for name, output in outputs.items() if output.ndim == 4}
    names, predicted = select_layers(list(maps)), probabilities[selected].argmax(1)
    cams = {name: np.asarray(grad_cam(state, test.images[selected], name, predicted)) for name in names}
    kept = np.arange(len(selected))
    layers = _encode_layers(names, maps, cams, kept)
    if (size := sum(len(layer["src"]) + len(layer["cam"]) for layer in layers)) > MAX_BYTES:
        # Fewer images, which have about the same size each.
        count = int(len(selected) * 0.95 * MAX_BYTES / size)
        kept = select_images(probabilities[selected], test.labels[selected], count)
        layers = _encode_layers(names, maps, cams, kept)
    selected = selected[kept]
    for layer in layers:
        layer.update(src=picture_url(layer["src"]), cam=picture_url(layer["cam"]))
    rows = zip(selected, test.labels[selected], probabilities[selected], strict=True)
    data = {
        "size": test.images.shape[1:3],
        "columns": COLUMNS,
        "src": picture_url(webp(tile_images(test.images[selected]), lossless=True)),
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
    mistakes = int((probabilities[selected].argmax(1) != test.labels[selected]).sum())
    images_note = (
        f"{len(selected):,} of the {len(test.labels):,} test images are in this page, {mistakes:,} of them mistakes: "
        "the worst of each pair of classes, and the first images of each class."
    )
    return ExplorerData(data, images_note, _layers_note(layers, len(maps)))


def _layers_note(layers: Sequence[dict[str, Any]], available: int) -> str:
    """The sentence on layers and maps that the page omits or reduces."""
    if not layers:
        return "This network has no layers with pixels, so there are no feature maps to show."
    parts = [f"To keep the page small, maps are shown in {LEVELS} levels"]
    if len(layers) < available:
        parts.append(f"{len(layers)} of the {available} layers with pixels are included")
    if (channels := max(layer["of"] for layer in layers)) > MAPS:
        parts.append(f"the {MAPS} strongest of up to {channels} maps of each layer are included")
    return f"{'; '.join(parts)}. <code>python -m cnn look</code> draws any layer exactly."


def _encode_layers(names: Sequence[str], maps: Any, cams: Any, kept: np.ndarray) -> list[dict[str, Any]]:
    """The layers as WebP sheets, in threads, as Pillow releases the GIL while it compresses."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda name: _encode_layer(name, maps[name][kept], cams[name][kept]), names))


def tile_images(images: np.ndarray) -> np.ndarray:
    """Returns images [N, H, W, C] as one sheet, uint8 [H', W', 3], ``COLUMNS`` per row, grey images dark on white."""
    count, height, width, channels = images.shape
    images = np.pad(255 - images if channels == 1 else images, [(0, -count % COLUMNS), (0, 0), (0, 0), (0, 0)])
    rows = images.reshape(-1, COLUMNS, height, width, channels).swapaxes(1, 2)
    return rows.reshape(-1, COLUMNS * width, channels).repeat(3 // channels, -1)
