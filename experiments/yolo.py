"""A detector of the garments in scenes, which are composed from the training images as it learns.

``python -m experiments.yolo``: not measured yet.
"""

from cnn import DataConfig, ExperimentConfig, OptimConfig, TrainConfig, YoloConfig
from cnn.run import main

CONFIG = ExperimentConfig(
    name="yolo",
    data=DataConfig(scenes=96),
    model=YoloConfig(),
    optim=OptimConfig(learning_rate=2e-3, schedule="warmup_cosine", average_decay=0.999, batch_size=32),
    train=TrainConfig(epochs=10, patience=10, monitor="val_map"),
)

if __name__ == "__main__":
    main(CONFIG)
