"""A vision transformer for small images, by the recipe of ``fashion_full``, in 12 epochs.

Command:        python -m experiments.vit
Time:           not measured
Parameters:     205,834
Val accuracy:   not measured
Test accuracy:  not measured
"""

import dataclasses

from cnn.config import AugmentConfig, TrainConfig, ViTConfig
from cnn.run import main
from experiments.fashion_full import CONFIG as FULL

CONFIG = dataclasses.replace(
    FULL,
    name="vit",
    model=ViTConfig(),
    augment=AugmentConfig(flip=True, shift=2),
    train=TrainConfig(epochs=12, patience=12),
)

if __name__ == "__main__":
    main(CONFIG)
