"""ResNet-20 for small images, by the recipe of ``fashion_full`` with wider shifts, in 26 epochs.

Command:        python -m experiments.resnet20
Time:           about 43 minutes on two cores of an AMD EPYC with AVX512_BF16, 99.1 s an epoch
Parameters:     269,434
Val accuracy:   0.9531 +- 0.0027 (5 seeds, benchmarks/results/ladder.json)
Test accuracy:  0.9463 +- 0.0009
"""

import dataclasses

from cnn.config import AugmentConfig, DataConfig, TrainConfig
from cnn.models.resnet import ResNetConfig
from cnn.run import main
from experiments.fashion_full import CONFIG as FULL

CONFIG = dataclasses.replace(
    FULL,
    name="resnet20",
    data=DataConfig(val_fraction=1 / 20),
    model=ResNetConfig(dtype="bfloat16"),
    augment=AugmentConfig(flip=True, shift=2, erase=0.25),
    train=TrainConfig(epochs=26, patience=26),
)

if __name__ == "__main__":
    main(CONFIG)
