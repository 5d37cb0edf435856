"""A command that trains with the options of an experiment, as one process of several or alone.

``main`` trains a convolutional network; ``long`` one that compiles faster, for what does not depend on the network.
"""

import dataclasses
import sys

import cnn
from cnn import run
from tests.helpers import NARROW, shrink

CONFIG = cnn.ExperimentConfig(
    model=NARROW,
    optim=cnn.OptimConfig(batch_size=48),
    log=cnn.LogConfig(figures=False),
    train=cnn.TrainConfig(epochs=2, patience=400),
)
LONG = dataclasses.replace(
    CONFIG, model=cnn.DenseConfig(features=()), train=dataclasses.replace(CONFIG.train, epochs=500)
)


def main() -> None:
    own = "--data.source" in sys.argv
    run.main(CONFIG, None if own else shrink(cnn.load_data(CONFIG.data), 200))


def long() -> None:
    run.main(LONG, shrink(cnn.load_data(LONG.data), 200))


if __name__ == "__main__":
    main()
