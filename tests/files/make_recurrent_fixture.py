"""Makes torch_recurrent.tar.xz: an LSTM, a GRU and an RNN of PyTorch, images and logits, which tests compare with.

Run by hand in an environment with PyTorch, whose version the .npz says (pip install torch==2.13.0 numpy):

    python tests/files/make_recurrent_fixture.py
"""

import importlib
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.files.make_torch_fixture import _without_owner

FEATURES = 6


def main(directory: Path) -> None:
    torch: Any = importlib.import_module("torch")
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8).repeat(7, 1).repeat(7, 2)
    rows = torch.from_numpy(images[..., 0]).float() / 255
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(directory / "torch_recurrent.tar.xz", "w:xz") as tar:
        logits = {}
        for name, kind in {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}.items():
            model = torch.nn.ModuleDict(
                {"rnn": kind(28, FEATURES, batch_first=True), "head": torch.nn.Linear(FEATURES, 10)}
            )
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(2)
                logits[name] = model["head"](model["rnn"](rows)[0][:, -1]).numpy()
            torch.save(model.state_dict(), f"{temporary}/{name}.pt")
        np.savez_compressed(f"{temporary}/expected.npz", images=images, version=torch.__version__, **logits)
        for path in sorted(Path(temporary).iterdir()):
            tar.add(path, path.name, filter=_without_owner)


if __name__ == "__main__":
    main(Path(__file__).parent)
