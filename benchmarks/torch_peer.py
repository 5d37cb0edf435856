"""The chapter's network in PyTorch, on given images. Runs in the peers' environment, without this package.

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
from functools import cache
from typing import Any

import numpy as np

from benchmarks.protocol import images_per_second, load_split, memory, serve, versions, warm_up_counts


def make_model(torch: Any) -> Any:
    """Returns the network; its outputs are logits [B, 10]."""
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 100),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(100, 10),
    )
    return model.to(memory_format=torch.channels_last)


def main(path: str, precision: str, mode: str) -> None:
    """Answers requests until stdin ends."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")
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
        return to_tensor(images), torch.from_numpy(labels).long()

    @cache
    def test_images() -> np.ndarray:
        return load_split(path, "test")[0]

    @cache
    def trainer(batch_size: int) -> tuple[Any, Any, Any]:
        """Returns a model, its optimizer, and a function for a batch's mean loss and number of correct predictions."""
        model = make_model(torch)
        loss = torch.nn.CrossEntropyLoss()

        @maybe_compiled
        def forward(images: Any, labels: Any) -> tuple[Any, Any]:
            with autocast:
                logits = model(images)
                return loss(logits, labels), (logits.argmax(1) == labels).sum()

        return model, torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True), forward

    def train_step(batch_size: int, images: Any, labels: Any) -> tuple[Any, Any]:
        model, optimizer, forward = trainer(batch_size)
        optimizer.zero_grad()
        loss, correct = forward(images, labels)
        loss.backward()
        optimizer.step()
        return loss.detach(), correct

    def train_and_validate(batch_size: int, train_images: int, val_images: int) -> dict[str, float]:
        model, _, forward = trainer(batch_size)
        (x, y), (val_x, val_y) = ([tensor[:count] for tensor in split(name)] for name, count in
                                  (("train", train_images), ("val", val_images)))  # fmt: skip
        begin = time.perf_counter()
        model.train()
        train_loss = train_correct = torch.zeros(())
        for indices in torch.randperm(len(y)).split(batch_size):
            loss, correct = train_step(batch_size, x.index_select(0, indices), y.index_select(0, indices))
            train_loss, train_correct = train_loss + loss * len(indices), train_correct + correct
        model.eval()
        val_loss = val_correct = torch.zeros(())
        with torch.inference_mode():
            for images, labels in zip(val_x.split(125), val_y.split(125), strict=True):
                loss, correct = forward(images, labels)
                val_loss, val_correct = val_loss + loss * len(labels), val_correct + correct
        numbers = [float(number) for number in (train_loss, train_correct, val_loss, val_correct)]
        return {"seconds": time.perf_counter() - begin, "val_loss": numbers[2] / len(val_y)}

    @cache
    def classifier() -> Any:
        model = make_model(torch).eval()

        @maybe_compiled
        def probabilities(images: Any) -> Any:
            with autocast:
                return torch.softmax(model(images.float() / 255).float(), 1)

        return probabilities

    @torch.inference_mode()
    def classify(images: np.ndarray) -> np.ndarray:
        return classifier()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()

    def step() -> dict[str, float]:
        (x, y), _ = split("train"), split("val")
        return {"loss": float(train_step(32, x[:32], y[:32])[0])}

    serve(
        {
            "versions": lambda: versions("torch"),
            "warm_up": lambda batch_size, images: train_and_validate(batch_size, *warm_up_counts(batch_size, images)),
            "epoch": lambda batch_size, images: train_and_validate(batch_size, images, images // 4),
            "predict": lambda batch_size, seconds: {
                "model(x)": images_per_second(classify, test_images(), batch_size, seconds)
            },
            "step": step,
            "memory": memory,
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
