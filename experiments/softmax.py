"""Softmax regression on the pixels: the first rung, a template of 28 x 28 weights for each class."""

import dataclasses

from cnn.config import DenseConfig, OptimConfig, TrainConfig
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
