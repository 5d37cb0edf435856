"""Softmax regression on the pixels: the first rung, a template of 28 x 28 weights for each class.

Command:        python -m experiments.softmax
Time:           about 2 seconds on two cores of an AMD EPYC with AVX-512, 0.1 s an epoch
Parameters:     7,850
Val accuracy:   0.8563 +- 0.0006   (5 seeds, mean +- standard deviation, benchmarks/results/ladder.json)
Test accuracy:  0.8449 +- 0.0002
"""

import dataclasses

from cnn.config import OptimConfig, TrainConfig
from cnn.models.dense import DenseConfig
from cnn.run import main
from experiments.fashion_cnn import CONFIG as CHAPTER

CONFIG = dataclasses.replace(
    CHAPTER,
    name="softmax",
    model=DenseConfig(features=()),
    optim=OptimConfig(schedule="one_cycle", batch_size=128),
    train=TrainConfig(epochs=30, patience=30),
)

if __name__ == "__main__":
    main(CONFIG)
