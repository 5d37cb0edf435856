"""The data of a page's explorer: some test images, with the feature maps and Grad-CAM of some layers."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from cnn.data.splits import Split
from cnn.look.attribution import grad_cam
from cnn.look.batches import by_batches
from cnn.look.features import feature_maps
from cnn.report.page import WEBP_SIDE, picture_url, tiled, webp
from cnn.training.state import TrainState
from cnn.training.summary import layer_table

IMAGES = 300
"""Maximum number of test images in a page."""

LAYERS, MAPS, LEVELS = 8, 64, 16
"""Maximum numbers of layers and of maps per layer, and the number of grey levels of a map."""

COLUMNS = 20
"""Maximum number of images in a row of the sheet with all images."""

MAX_BYTES = 2_300_000
"""Maximum size of all maps; base64 adds a third, and the page stays below 5 MB."""

SHEET_BYTES = 200_000
"""Size of the sheet with all images; what is above it is taken from the maps."""

LOSSLESS_BYTES = 800_000
"""Maximum size of a sheet of images whose pixels are exact; those of many large photographs are not."""

MAP_SIDE, IMAGE_SIDE = 64, 256
"""Maximum sides of a map and of an image; of longer ones, each second, third, ... pixel is shown."""

MAP_VALUES = 60_000_000
"""Maximum number of values of all maps, which are in memory at once."""

BATCH_PIXELS = IMAGES * 28 * 28
"""Maximum number of pixels of the images whose maps are computed at a time."""

PROBABILITIES = 10
"""Maximum number of probabilities of an image."""


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


def _step(height: int, width: int, side: int) -> int:
    """The distance of the pixels to keep, so that neither side is longer than ``side``."""
    return -(-max(height, width) // side)


def _encode_layer(name: str, maps: np.ndarray, cam: np.ndarray, step: int) -> dict[str, Any]:
    """A layer's maps and Grad-CAM, of which each ``step``-th pixel is kept, as WebP sheets with a row per image."""
    channels = maps.shape[-1]
    strongest = np.sort(np.argsort(-np.abs(maps).mean((0, 1, 2)), kind="stable")[:MAPS])
    sheet, lowest, highest = quantize(maps[..., strongest])
    heat = cam / np.maximum(cam.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)
    count, height, width = cam.shape
    return {
        "name": name,
        "height": height,
        "width": width,
        "step": step,
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

    rows = [row for row in layer_table(state) if len(row.output_shape) == 4]
    names = select_layers([row.name for row in rows])
    shapes: dict[str, Any] = {row.name: row.output_shape[1:] for row in rows if row.name in names}
    steps = {name: _step(height, width, MAP_SIDE) for name, (height, width, _) in shapes.items()}
    sizes = {name: (-(-h // steps[name]), -(-w // steps[name]), features) for name, (h, w, features) in shapes.items()}
    count = min(IMAGES, len(test.labels))
    if sizes:
        # A sheet has a row for each image.
        count = min(count, WEBP_SIDE // max(height for height, *_ in sizes.values()))
        count = min(count, max(1, MAP_VALUES // sum(math.prod(size) for size in sizes.values())))
    selected = select_images(probabilities, test.labels, count)

    def outputs(images_BxHxWxC, predicted_B):
        maps = feature_maps(state, images_BxHxWxC)
        cams = {name: grad_cam(state, images_BxHxWxC, name, predicted_B) for name in names}
        return [
            {name: np.asarray(arrays[name])[:, :: steps[name], :: steps[name]] for name in names}
            for arrays in (maps, cams)
        ]

    images, predicted = test.images[selected], probabilities[selected].argmax(1)
    maps, cams = by_batches(outputs, BATCH_PIXELS, images, predicted)
    step = _step(images.shape[1], images.shape[2], IMAGE_SIDE)
    images = images[:, ::step, ::step]
    columns = min(COLUMNS, WEBP_SIDE // images.shape[2])
    whole = webp(tile_images(images, columns), lossless=True)
    exact = len(whole) <= LOSSLESS_BYTES

    def encode(kept):
        layers = _encode_layers(names, maps, cams, steps, kept)
        sheet = whole
        if not exact or len(kept) < len(images):
            sheet = webp(tile_images(images[kept], columns), lossless=exact, quality=80 if exact else 85)
        size = sum(len(layer["src"]) + len(layer["cam"]) for layer in layers) + max(0, len(sheet) - SHEET_BYTES)
        return layers, sheet, size

    kept = np.arange(len(selected))
    layers, sheet, size = encode(kept)
    if size > MAX_BYTES:
        # Fewer images, which have about the same size each.
        count = max(1, int(len(selected) * 0.95 * MAX_BYTES / size))
        kept = select_images(probabilities[selected], test.labels[selected], count)
        layers, sheet, size = encode(kept)
    selected = selected[kept]
    for layer in layers:
        layer.update(src=picture_url(layer["src"]), cam=picture_url(layer["cam"]))
    data = {
        "size": images.shape[1:3],
        "columns": columns,
        "src": picture_url(sheet),
        "images": [_image_data(int(index), int(test.labels[index]), probabilities[index]) for index in selected],
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
    return ExplorerData(data, images_note, _layers_note(layers, len(rows)))


def _image_data(index: int, label: int, probabilities_K: np.ndarray) -> dict[str, Any]:
    """An image's classes for JSON: all in their order, or the most probable ones first, and the true one."""
    classes = np.arange(len(probabilities_K))
    if len(classes) > PROBABILITIES:
        classes = np.argsort(-probabilities_K, kind="stable")[:PROBABILITIES]
        if label not in classes:
            classes[-1] = label
    return {
        "test": index,
        "label": label,
        "predicted": int(probabilities_K.argmax()),
        "classes": classes.tolist(),
        "probabilities": _rounded(probabilities_K[classes], 7),
    }


def _layers_note(layers: Sequence[dict[str, Any]], available: int) -> str:
    """The sentence on layers and maps that the page omits or reduces."""
    if not layers:
        return "This network has no layers with pixels, so there are no feature maps to show."
    parts = [f"To keep the page small, maps are shown in {LEVELS} levels"]
    if len(layers) < available:
        parts.append(f"{len(layers)} of the {available} layers with pixels are included")
    if (channels := max(layer["of"] for layer in layers)) > MAPS:
        parts.append(f"the {MAPS} strongest of up to {channels} maps of each layer are included")
    if (step := max(layer["step"] for layer in layers)) > 1:
        parts.append(f"of maps larger than {MAP_SIDE} pixels, up to one in {step} rows and columns is included")
    return f"{'; '.join(parts)}. <code>python -m cnn look</code> draws any layer exactly."


def _encode_layers(names: Sequence[str], maps: Any, cams: Any, steps: Any, kept: np.ndarray) -> list[dict[str, Any]]:
    """The layers as WebP sheets, in threads, as Pillow releases the GIL while it compresses."""
    with ThreadPoolExecutor() as threads:
        arrays = ((name, maps[name][kept], cams[name][kept], steps[name]) for name in names)
        return list(threads.map(lambda layer: _encode_layer(*layer), arrays))


def tile_images(images: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Returns images [N, H, W, C] as one sheet, as of ``tiled``, grey images dark on white."""
    return tiled(255 - images if images.shape[3] == 1 else images, columns)
