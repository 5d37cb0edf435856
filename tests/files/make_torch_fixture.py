"""Makes torch_narrow.pt, .npz and .tar.xz, which the tests compare imported weights with.

Run by hand in an environment with PyTorch, whose version the .npz says (pip install torch==2.13.0 numpy):

    python tests/files/make_torch_fixture.py

The network is the chapter's, narrow, with random weights; the .npz holds images, logits, and what the layers between
put out after their activation, with the channels last. The .tar.xz holds the same weights in the files that training
scripts write.
"""

import argparse
import collections
import importlib
import tarfile
import tempfile
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
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(directory / "torch_narrow.tar.xz", "w:xz") as tar:
        for name, content in make_checkpoints(torch, model).items():
            torch.save(content, f"{temporary}/{name}")
            tar.add(f"{temporary}/{name}", name, filter=_without_owner)


def make_checkpoints(torch: Any, model: Any) -> dict[str, Any]:
    """What training scripts save, by file name; those of timm and Lightning are imitated."""
    weights = model.state_dict()
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()

    def prefixed(prefix: str) -> dict[str, Any]:
        return collections.OrderedDict((prefix + name, tensor) for name, tensor in weights.items())

    args = argparse.Namespace(lr=0.1, data=Path("images"))
    zeros = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    return {
        # PyTorch's tutorial on saving.
        "tutorial.pt": {
            "epoch": 3,
            "model_state_dict": weights,
            "optimizer_state_dict": optimizer.state_dict(),
            "loss": torch.tensor(0.5),
        },
        # PyTorch's ImageNet example.
        "imagenet.pth.tar": {
            "epoch": 3,
            "arch": "cnn",
            "args": args,
            "state_dict": torch.nn.DataParallel(model).state_dict(),
            "best_acc1": torch.tensor(91.5),
            "optimizer": optimizer.state_dict(),
        },
        "timm.pth.tar": {
            "epoch": 3,
            "state_dict": zeros,
            "optimizer": optimizer.state_dict(),
            "version": 2,
            "args": args,
            "amp_scaler": {"scale": 65536.0, "growth_factor": 2.0},
            "state_dict_ema": weights,
            "metric": np.float64(91.5),
        },
        "lightning.ckpt": {
            "epoch": 3,
            "pytorch-lightning_version": "2.4.0",
            "state_dict": prefixed("model."),
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "best_k_models": {}}},
            "optimizer_states": [optimizer.state_dict()],
            "lr_schedulers": [],
            "hparams_name": "kwargs",
            "hyper_parameters": collections.OrderedDict(width=4, betas=(0.9, 0.999), loss=torch.nn.functional.relu),
        },
        "compiled.pth": {
            "model": prefixed("_orig_mod."),
            "rng": {"cpu": torch.get_rng_state(), "numpy": np.random.default_rng(0)},
            "seen": {3, 5},
            "counts": collections.defaultdict(int, {"a": 3}),
        },
        "averaged.bin": torch.optim.swa_utils.AveragedModel(model).state_dict(),
        # As of a module that defines its layers in the reverse order of their use.
        "reversed.pt": collections.OrderedDict(reversed(weights.items())),
    }


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(Path(__file__).parent)
