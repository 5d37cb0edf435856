"""A detector that finds the garments in scenes, which each step composes of training images.

Command:        python -m experiments.yolo
Time:           about 35 minutes on two cores of an Intel Xeon with AVX-512, 105 to 117 s an epoch
Parameters:     227,903
Test mAP:       0.6117 +- 0.0026 (3 seeds, benchmarks/results/detectors.json)
Test mAP 0.5:   0.8325 +- 0.0033
"""

from cnn.config import DataConfig, ExperimentConfig, OptimConfig, TrainConfig
from cnn.models.yolo import YoloConfig
from cnn.run import main

CONFIG = ExperimentConfig(
    name="yolo",
    data=DataConfig(scenes=96),
    model=YoloConfig(dtype="bfloat16"),
    optim=OptimConfig(learning_rate=2e-3, schedule="warmup_cosine", average_decay=0.999),
    train=TrainConfig(epochs=18, patience=18, monitor="val_map"),
)

if __name__ == "__main__":
    main(CONFIG)
