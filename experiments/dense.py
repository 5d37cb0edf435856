"""A dense network of 100 hidden units, as in the book: the second rung.

Command:        python -m experiments.dense
Time:           about 5 seconds on two cores of an AMD EPYC with AVX-512, 0.2 s an epoch
Parameters:     79,510
Val accuracy:   0.8972 +- 0.0021   (5 seeds, mean +- standard deviation, benchmarks/results/ladder.json)
Test accuracy:  0.8920 +- 0.0012
"""

import dataclasses

from cnn.config import OptimConfig, TrainConfig
from cnn.models.dense import DenseConfig
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
