"""An LSTM that reads an image row by row, 28 steps of 28 pixels; variants: --model.cell gru and --model.cell rnn.

Command:        python -m experiments.lstm
Time:           about 10 minutes on two cores of an Intel Xeon with AVX-512, 9.4 s an epoch
Parameters:     81,674
Val accuracy:   0.9051 +- 0.0027 (5 seeds, benchmarks/results/ladder.json)
Test accuracy:  0.9038 +- 0.0025
"""

import dataclasses

from cnn.config import AugmentConfig, OptimConfig, TrainConfig
from cnn.models.recurrent import RecurrentConfig
from cnn.run import main
from experiments.fashion_cnn import CONFIG as CHAPTER

CONFIG = dataclasses.replace(
    CHAPTER,
    name="lstm",
    model=RecurrentConfig(dropout_rate=0.3),
    optim=OptimConfig(learning_rate=3e-3, schedule="one_cycle", clip_norm=1.0, batch_size=128),
    augment=AugmentConfig(flip=True, shift=2),
    train=TrainConfig(epochs=55, patience=55),
)

if __name__ == "__main__":
    main(CONFIG)
