"""A run that cannot write another byte to any file after its first epoch: prints the error's line."""

import resource
import sys

import cnn
from tests.helpers import NARROW, shrink


def fill_disk(row):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


if __name__ == "__main__":
    config = cnn.ExperimentConfig(model=NARROW, train=cnn.TrainConfig(epochs=3))
    try:
        cnn.fit(config, sys.argv[1], shrink(cnn.load_data(config.data), 200), fill_disk)
    except cnn.RunDirError as error:
        print(error)
