"""AlexNet for small images, by the recipe of ``fashion_full``, in 12 epochs.

Command:        python -m experiments.alexnet
Time:           not measured
Parameters:     424,378
Val accuracy:   not measured
Test accuracy:  not measured
"""

import dataclasses

from cnn.config import AlexNetConfig, AugmentConfig, TrainConfig
from cnn.run import main
from experiments.fashion_full import CONFIG as FULL

CONFIG = dataclasses.replace(
    FULL,
    name="alexnet",
    model=AlexNetConfig(),
    augment=AugmentConfig(flip=True, shift=2),
    train=TrainConfig(epochs=12, patience=12),
)

if __name__ == "__main__":
    main(CONFIG)
