"""A run whose directory is removed after its first epoch: prints the error's line."""

import shutil
import sys

import cnn
from tests.helpers import NARROW, shrink

if __name__ == "__main__":
    config = cnn.ExperimentConfig(model=NARROW, train=cnn.TrainConfig(epochs=3))
    try:
        cnn.fit(config, sys.argv[1], shrink(cnn.load_data(config.data), 200), lambda row: shutil.rmtree(sys.argv[1]))
    except cnn.RunDirError as error:
        print(error)
