"""A dense network of 100 hidden units: the second rung."""

import dataclasses

from cnn.config import DenseConfig, OptimConfig, TrainConfig
from cnn.run import main
from experiments.fashion_cnn import CONFIG as CHAPTER

CONFIG = dataclasses.replace(
    CHAPTER,
    name="dense",
    model=DenseConfig(features=(100,), dropout_rate=0.2),
    optim=OptimConfig(learning_rate=3e-3, schedule="one_cycle", weight_decay=0.02, batch_size=128),
    train=TrainConfig(epochs=30, patience=30),
)

if __name__ == "__main__":
    main(CONFIG)
