"""The networks of the rungs in PyTorch. Runs in the peers' environment, without this package.

python -m benchmarks.torch_peer IMAGES.npz PRECISION MODE    answers requests, see benchmarks/protocol.py

PRECISION is float32 or bfloat16, which is autocast; MODE is eager or compiled, which is torch.compile on the forward
pass with the loss. Settings: images are tensors in memory and batches are taken by index (a DataLoader, with its
processes, is slower for images this small), memory is channels-last, Adam is fused, no value is read within an epoch,
validation uses batches of 125 (twice as fast as 1,000), and there is one thread per core. Adam's epsilon is that of
Keras, 1e-7.
"""

import importlib
import os
import sys
import time
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks.protocol import (
    CHAPTER,
    images_per_second,
    load_split,
    mean_seconds,
    memory,
    serve,
    versions,
    warm_up_counts,
)
from benchmarks.torch_networks import load, make_network, torch
from benchmarks.weights import CHECKED_IMAGES, read, to_torch

VAL_BATCH = 125


def main(path: str, precision: str, mode: str) -> None:
    """Answers requests until stdin ends."""
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16")
    if mode == "compiled":
        # Each batch size, in training and in evaluation, is compiled separately.
        importlib.import_module("torch._dynamo").config.recompile_limit = 64

    def maybe_compiled(function: Any) -> Any:
        return torch.compile(function, dynamic=False) if mode == "compiled" else function

    def to_tensor(images: np.ndarray) -> Any:
        """Returns float32 [B, 1, 28, 28] from 0 to 1, channels last in memory."""
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255

    @cache
    def split(name: str) -> tuple[Any, Any]:
        images, labels = load_split(path, name)
        return to_tensor(images).to(device), torch.from_numpy(labels).long().to(device)

    @cache
    def test_images() -> np.ndarray:
        return load_split(path, "test")[0]

    @cache
    def trainer(rung: str, batch_size: int) -> tuple[Any, Any, Any]:
        """Returns a model, its optimizer, and a function for a batch's mean loss and number of correct predictions."""
        model = make_network(rung).to(device)
        loss = torch.nn.CrossEntropyLoss()

        @maybe_compiled
        def forward(images: Any, labels: Any) -> tuple[Any, Any]:
            with autocast:
                logits = model(images)
                return loss(logits, labels), (logits.argmax(1) == labels).sum()

        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
        return model, optimizer, forward

    def train_step(rung: str, batch_size: int, images: Any, labels: Any) -> tuple[Any, Any]:
        _, optimizer, forward = trainer(rung, batch_size)
        optimizer.zero_grad()
        loss, correct = forward(images, labels)
        loss.backward()
        optimizer.step()
        return loss.detach(), correct

    def train_pass(rung: str, batch_size: int, images: int) -> dict[str, float]:
        """Trains on a number of images, and returns their mean loss and accuracy."""
        x, y = (tensor[:images] for tensor in split("train"))
        trainer(rung, batch_size)[0].train()
        loss_sum = correct_sum = torch.zeros((), device=device)
        for indices in torch.randperm(images, device=device).split(batch_size):
            loss, correct = train_step(rung, batch_size, x.index_select(0, indices), y.index_select(0, indices))
            loss_sum, correct_sum = loss_sum + loss * len(indices), correct_sum + correct
        return {"loss": float(loss_sum) / images, "accuracy": float(correct_sum) / images}

    def val_pass(rung: str, batch_size: int, images: int) -> dict[str, float]:
        """Validates the model of a batch size on a number of images, and returns their mean loss and accuracy."""
        x, y = (tensor[:images] for tensor in split("val"))
        model, _, forward = trainer(rung, batch_size)
        model.eval()
        loss_sum = correct_sum = torch.zeros((), device=device)
        with torch.inference_mode():
            for inputs, labels in zip(x.split(VAL_BATCH), y.split(VAL_BATCH), strict=True):
                loss, correct = forward(inputs, labels)
                loss_sum, correct_sum = loss_sum + loss * len(labels), correct_sum + correct
        return {"loss": float(loss_sum) / images, "accuracy": float(correct_sum) / images}

    def train_and_validate(batch_size: int, train_images: int, val_images: int) -> dict[str, float]:
        for name in ("train", "val"):
            split(name)
        begin = time.perf_counter()
        train_pass(CHAPTER, batch_size, train_images)
        val_loss = val_pass(CHAPTER, batch_size, val_images)["loss"]
        return {"seconds": time.perf_counter() - begin, "val_loss": val_loss}

    def first_step(rung: str, batch_size: int, images: int) -> dict[str, float]:
        x, y = (tensor[:batch_size] for tensor in split("train"))
        begin = time.perf_counter()
        float(train_step(rung, batch_size, x, y)[0])
        return {"seconds": time.perf_counter() - begin}

    @cache
    def classifier(rung: str) -> Any:
        model = make_network(rung).to(device).eval()

        @maybe_compiled
        def probabilities(images: Any) -> Any:
            with autocast:
                return torch.softmax(model(images.float() / 255).float(), 1)

        return probabilities

    @torch.inference_mode()
    def classify(rung: str, images: np.ndarray) -> np.ndarray:
        return classifier(rung)(torch.from_numpy(images).permute(0, 3, 1, 2).to(device)).cpu().numpy()

    def predict(batch_size: int, seconds: float, rung: str = CHAPTER) -> dict[str, float]:
        return {"model(x)": images_per_second(partial(classify, rung), test_images(), batch_size, seconds)}

    @torch.inference_mode()
    def logits(rung: str, weights: str) -> dict[str, Any]:
        """Answers with the logits of test images from our weights."""
        model = make_network(rung).eval()
        load(model, read(weights, to_torch))
        outputs = maybe_compiled(model)(to_tensor(test_images()[:CHECKED_IMAGES]))
        return {"parameters": sum(parameter.numel() for parameter in model.parameters()), "logits": outputs.tolist()}

    def step() -> dict[str, float]:
        (x, y), _ = split("train"), split("val")
        return {"loss": float(train_step(CHAPTER, 32, x[:32], y[:32])[0])}

    serve(
        {
            "versions": lambda: versions("torch"),
            "device": lambda: {"device": "gpu" if device == "cuda" else device},
            "warm_up": lambda batch_size, images: train_and_validate(batch_size, *warm_up_counts(batch_size, images)),
            "epoch": lambda batch_size, images: train_and_validate(batch_size, images, images // 4),
            "compile": first_step,
            "train": lambda rung, batch_size, images, seconds: mean_seconds(
                lambda: train_pass(rung, batch_size, images), images // batch_size, seconds
            ),
            "validate": lambda rung, batch_size, images, seconds: mean_seconds(
                lambda: val_pass(rung, batch_size, images), 1, seconds
            ),
            "predict": predict,
            "logits": logits,
            "step": step,
            "memory": memory,
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
