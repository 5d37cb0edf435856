"""AlexNet for small images, by the recipe of ``fashion_full``, in 30 epochs.

Command:        python -m experiments.alexnet
Time:           about 18 minutes on two cores of an AMD EPYC with AVX-512, 36.5 s an epoch
Parameters:     424,378
Val accuracy:   0.9367 +- 0.0019 (5 seeds, benchmarks/results/ladder.json)
Test accuracy:  0.9312 +- 0.0009
"""

import dataclasses

from cnn.config import AugmentConfig, TrainConfig
from cnn.models.alexnet import AlexNetConfig
from cnn.run import main
from experiments.fashion_full import CONFIG as FULL

CONFIG = dataclasses.replace(
    FULL,
    name="alexnet",
    model=AlexNetConfig(),
    augment=AugmentConfig(flip=True, shift=2),
    train=TrainConfig(epochs=30, patience=30),
)

if __name__ == "__main__":
    main(CONFIG)
