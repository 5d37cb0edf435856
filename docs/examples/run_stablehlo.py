"""Runs a network that ``python -m cnn export RUN_DIR --format stablehlo`` has written, without this project.

python docs/examples/run_stablehlo.py MODEL.stablehlo IMAGES.npy

IMAGES.npy holds any number of images, uint8 [N, 28, 28, 1], light on dark as in Fashion-MNIST. A line is printed for
each: the probabilities of the ten classes. It needs jax, flatbuffers and numpy, on a CPU, CUDA or TPU.
"""

import sys
from pathlib import Path

import numpy as np
from jax import export


def main(model: str, images: str) -> None:
    """Prints the probabilities of the images in a file."""
    network = export.deserialize(bytearray(Path(model).read_bytes()))
    probabilities = network.call(np.load(images))
    np.savetxt(sys.stdout, probabilities, fmt="%.7f")


if __name__ == "__main__":
    main(*sys.argv[1:])
