"""torchvision's SSDlite from scratch on composed scenes. Runs in an environment of its own, without this package.

python -m benchmarks.torchvision_peer SCENES.npz SECONDS SEED FOUND.npz [SGD | AdamW] [float32 | bfloat16]

Reads scenes and boxes, trains for SECONDS, and writes what it finds in the test scenes; prints a line of JSON. The
model with its losses, anchors and suppression is torchvision's; so are SGD with momentum 0.9, weight decay 4e-5, a
linear warm-up and a cosine schedule, from its training script for this detector, with the learning rate scaled to the
batch. AdamW has a learning rate of 1e-3. Settings: one thread per core, channels-last memory, batches of 32.
"""

import importlib
import json
import math
import os
import sys
import time
from typing import Any

import numpy as np

torch: Any = importlib.import_module("torch")
detection: Any = importlib.import_module("torchvision.models.detection")

BATCH, WARMUP_STEPS, CLASSES = 32, 500, 10

SGD_LEARNING_RATE = 0.15 * BATCH / 192
"""That of the training script is 0.15 for eight devices with 24 images each."""


def targets(labels_BxMx5: np.ndarray) -> list[dict[str, Any]]:
    """Returns boxes and classes of each image; torchvision's class 0 is the background."""
    rows = (labels[labels[:, 4] >= 0] for labels in labels_BxMx5)
    return [{"boxes": torch.from_numpy(r[:, :4]), "labels": torch.from_numpy(r[:, 4]).long() + 1} for r in rows]


def to_images(images_BxHxWx1: np.ndarray) -> list[Any]:
    """Returns float32 [3, H, W] from 0 to 1 of each grey image."""
    return list((torch.from_numpy(images_BxHxWx1).permute(0, 3, 1, 2).float() / 255).expand(-1, 3, -1, -1))


def main(path: str, seconds: str, seed: str, output: str, optimizer: str = "SGD", precision: str = "float32") -> None:
    """Trains, finds and writes."""
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    torch.manual_seed(int(seed))
    with np.load(path) as arrays:
        train, labels, test = (arrays[name] for name in ("train_images", "train_labels", "test_images"))
    model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    model.to(memory_format=torch.channels_last).train()
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")
    if optimizer == "SGD":
        highest = SGD_LEARNING_RATE
        steps = torch.optim.SGD(model.parameters(), highest, momentum=0.9, weight_decay=4e-5)
    else:
        highest = 1e-3
        steps = torch.optim.AdamW(model.parameters(), highest)
    rng, seen, step, begin, order = np.random.default_rng(int(seed)), 0, 0, time.perf_counter(), np.array([], int)
    while (spent := (time.perf_counter() - begin) / float(seconds)) < 1:
        if len(order) < BATCH:
            order = rng.permutation(len(train))
        batch, order = order[:BATCH], order[BATCH:]
        # By the share of the seconds, as the number of steps is not known before.
        rate = highest * min(1, (step + 1) / WARMUP_STEPS) * (1 + math.cos(math.pi * spent)) / 2
        for group in steps.param_groups:
            group["lr"] = rate
        with autocast:
            losses = model(to_images(train[batch]), targets(labels[batch]))
        steps.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        steps.step()
        seen, step = seen + BATCH, step + 1
        if step % 200 == 0:
            told = ", ".join(f"{name} {float(loss):.3f}" for name, loss in losses.items())
            print(f"{seen:,} scenes, {time.perf_counter() - begin:.0f} s, {told}", file=sys.stderr, flush=True)
    spent = time.perf_counter() - begin
    model.eval()
    found: list[dict[str, Any]] = []
    with torch.inference_mode():
        for start in range(0, len(test), 50):
            found += model(to_images(test[start : start + 50]))
    most = max(len(image["scores"]) for image in found)
    arrays = {
        "boxes": np.zeros((len(found), most, 4), np.float32),
        "scores": np.zeros((len(found), most), np.float32),
        "classes": np.zeros((len(found), most), np.int32),
    }
    for index, image in enumerate(found):
        for name, values in (("boxes", image["boxes"]), ("scores", image["scores"]), ("classes", image["labels"] - 1)):
            arrays[name][index, : len(values)] = values.numpy()
    np.savez(output, **arrays)
    versions = {name: importlib.import_module(name).__version__ for name in ("torch", "torchvision")}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"seconds": spent, "scenes": seen, "parameters": parameters, "versions": versions}))


if __name__ == "__main__":
    main(*sys.argv[1:])
