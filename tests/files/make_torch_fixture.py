"""Makes torch_narrow.pt and torch_narrow.npz, which the tests compare imported weights with.

Run by hand in an environment with PyTorch, whose version the .npz says: python tests/files/make_torch_fixture.py
The network is the chapter's, narrow, with random weights; the .npz holds images, logits, and what the layers between
put out after their activation, with the channels last.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np


def main(directory: Path) -> None:
    torch: Any = importlib.import_module("torch")
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(196, 8),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(8, 10),
    ).eval()
    # Larger than they begin, so that the classes differ; and two that do not lie in memory as they are read.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
        model[7].weight = nn.Parameter(model[7].weight.T.contiguous().T)
        model[10].bias = nn.Parameter(torch.randn(32)[7:27:2])
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 1), np.uint8).repeat(7, 1).repeat(7, 2)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255
    outputs = []
    with torch.no_grad():
        for layer in model:
            x = layer(x)
            outputs.append(x.numpy())
    torch.save(model.state_dict(), directory / "torch_narrow.pt")
    np.savez_compressed(
        directory / "torch_narrow.npz",
        images=images,
        conv1=outputs[1].transpose(0, 2, 3, 1),
        conv2=outputs[4].transpose(0, 2, 3, 1),
        dense=outputs[8],
        logits=outputs[10],
        version=torch.__version__,
    )


if __name__ == "__main__":
    main(Path(__file__).parent)
