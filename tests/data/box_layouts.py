"""Writers of images with boxes in COCO's and YOLO's layouts, and random scenes to write."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import cnn
from cnn.data.box_files import load_boxes
from tests.data.image_bytes import png


def scenes(count: int, seed: int = 0, size: tuple[int, int] = (20, 30), classes: int = 3, channels: int = 1):
    """Images of noise, each with up to 4 boxes whose corners are no whole pixels; the second one has none."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, *size, channels), np.uint8)
    labels = np.zeros((count, 4, 5), np.float32)
    labels[..., 4] = random.integers(0, classes, (count, 4))
    for axis, side in ((0, size[1]), (1, size[0])):
        low = random.uniform(0, side - 6, (count, 4))
        labels[..., axis], labels[..., axis + 2] = low, low + random.uniform(4, 6, (count, 4))
    padding = np.arange(4) >= random.integers(1, 5, (count, 1))
    padding[1:2] = True
    # Rows of padding may lie anywhere.
    labels[random.permuted(padding, axis=1)] = -1
    # All classes are in the first one, in which any split has them.
    labels[0, :classes, 4], labels[0, :classes, :4] = np.arange(classes), (1, 2, 5.5, 7.25)
    return cnn.Split(images, labels)


def objects(rows: np.ndarray) -> list[list[float]]:
    """The rows that are no padding, ascending."""
    return sorted(rows[rows[:, 4] >= 0].tolist())


def write_coco(
    split: cnn.Split, names: Sequence[str], directory: Path, part: str = "train", ids: Callable[[int], int] = int
) -> Path:
    """Writes a split as annotations/instances_PART.json and PART/; ids gives those of images and categories."""
    (directory / "annotations").mkdir(parents=True, exist_ok=True)
    (directory / part).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index, (image, rows) in enumerate(zip(*split, strict=True)):
        name = f"{part} {index}.png"
        (directory / part / name).write_bytes(png(image[..., 0] if image.shape[2] == 1 else image))
        images.append({"id": ids(index), "file_name": name, "height": image.shape[0], "width": image.shape[1]})
        for x_min, y_min, x_max, y_max, label in objects(rows):
            bbox = [x_min, y_min, x_max - x_min, y_max - y_min]
            one = {"id": len(annotations) + 1, "image_id": ids(index), "category_id": ids(int(label)), "iscrowd": 0}
            annotations.append({**one, "bbox": bbox, "area": bbox[2] * bbox[3], "segmentation": []})
    categories = [{"id": ids(label), "name": name, "supercategory": "thing"} for label, name in enumerate(names)]
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories[::-1]}
    (directory / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return directory


def write_yolo(split: cnn.Split, names: Sequence[str], directory: Path, part: str = "train") -> Path:
    """Writes a split as images/PART/ and labels/PART/, with 6 decimals, and data.yaml; no file for an empty image."""
    for folder in ("images", "labels"):
        (directory / folder / part).mkdir(parents=True, exist_ok=True)
    for index, (image, rows) in enumerate(zip(*split, strict=True)):
        height, width = image.shape[:2]
        (directory / "images" / part / f"{index}.png").write_bytes(png(image[..., 0] if image.shape[2] == 1 else image))
        lines = [
            f"{label:.0f} {(x_min + x_max) / 2 / width:.6f} {(y_min + y_max) / 2 / height:.6f} "
            f"{(x_max - x_min) / width:.6f} {(y_max - y_min) / height:.6f}\n"
            for x_min, y_min, x_max, y_max, label in objects(rows)
        ]
        if lines:
            (directory / "labels" / part / f"{index}.txt").write_text("".join(lines))
    (directory / "data.yaml").write_text(f"train: images/train\nnc: {len(names)}\nnames: {json.dumps(list(names))}\n")
    return directory


def load(path: Path, *args, **options):
    """The images, and the lines about them."""
    lines = []
    return load_boxes(path, *args, warn=lines.append, **options), lines
