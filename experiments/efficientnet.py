"""efficientnet."""

from cnn.config import AugmentConfig, EfficientNetConfig, ExperimentConfig, OptimConfig, TrainConfig
from cnn.run import main

CONFIG = ExperimentConfig(
    name="efficientnet",
    model=EfficientNetConfig(),
    optim=OptimConfig(
        name="muon", learning_rate=1e-2, schedule="one_cycle", weight_decay=0.05, batch_size=128, average_decay=0.998
    ),
    augment=AugmentConfig(flip=True, shift=2),
    train=TrainConfig(epochs=12, patience=12),
)

if __name__ == "__main__":
    main(CONFIG)
