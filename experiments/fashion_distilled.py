"""The chapter's network, trained towards the predictions of a ResNet-20 for the same augmented images.

Command:        python -m experiments.resnet20 --run-dir runs/teacher, then python -m experiments.fashion_distilled
Parameters:     333,526
Accuracy:       not measured yet
"""

import dataclasses

from cnn.config import AugmentConfig, DistillConfig
from cnn.run import main
from experiments.fashion_full import CONFIG as FULL
from experiments.resnet20 import CONFIG as TEACHER

CONFIG = dataclasses.replace(
    FULL,
    name="fashion_distilled",
    # The teacher's split: its training images must not be the student's validation images.
    data=TEACHER.data,
    model=dataclasses.replace(FULL.model, dtype="bfloat16"),
    augment=AugmentConfig(flip=True, shift=2),
    distill=DistillConfig(teacher=("runs/teacher",)),
)

if __name__ == "__main__":
    main(CONFIG)
