"""A command that trains until it is stopped, with the options of an experiment."""

import cnn
from cnn import run
from tests.helpers import NARROW, shrink


def main() -> None:
    config = cnn.ExperimentConfig(model=NARROW, train=cnn.TrainConfig(epochs=900, patience=900))
    run.main(config, shrink(cnn.load_data(config.data), 2000))


if __name__ == "__main__":
    main()
