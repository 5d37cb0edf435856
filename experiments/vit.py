"""A vision transformer for small images, by the recipe of ``fashion_full``, in 30 epochs.

Command:        python -m experiments.vit
Time:           about 40 minutes on two cores of an AMD EPYC with AVX-512, 80.3 s an epoch
Parameters:     205,834
Val accuracy:   0.9082 +- 0.0031 (5 seeds, benchmarks/results/ladder.json)
Test accuracy:  0.9069 +- 0.0021
"""

import dataclasses

from cnn.config import AugmentConfig, TrainConfig
from cnn.models.vit import ViTConfig
from cnn.run import main
from experiments.fashion_full import CONFIG as FULL

CONFIG = dataclasses.replace(
    FULL,
    name="vit",
    model=ViTConfig(),
    augment=AugmentConfig(flip=True, shift=2),
    train=TrainConfig(epochs=30, patience=30),
)

if __name__ == "__main__":
    main(CONFIG)
