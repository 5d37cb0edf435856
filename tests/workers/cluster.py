"""A command that trains with the options of an experiment, as one process of several or alone."""

import cnn
from cnn import run
from tests.helpers import NARROW, shrink

CONFIG = cnn.ExperimentConfig(
    model=NARROW,
    optim=cnn.OptimConfig(batch_size=48),
    log=cnn.LogConfig(figures=False),
    train=cnn.TrainConfig(epochs=2, patience=400),
)


def main() -> None:
    run.main(CONFIG, shrink(cnn.load_data(CONFIG.data), 200))


if __name__ == "__main__":
    main()
