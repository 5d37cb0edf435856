"""The reader of each kind of file that layers can be imported from."""

from cnn.exchange.keras_files import read_keras
from cnn.exchange.torch_files import read_torch

READERS = {
    ".keras": read_keras,
    ".h5": read_keras,
    ".hdf5": read_keras,
    ".pt": read_torch,
    ".pth": read_torch,
    ".ckpt": read_torch,
    ".bin": read_torch,
    ".tar": read_torch,
}
"""By ending; .tar is that of .pth.tar."""
