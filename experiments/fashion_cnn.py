"""The chapter's CNN on Fashion-MNIST: Conv32-Pool-Conv64-Pool-Dense100-Dropout-Dense10.

Command: python -m experiments.fashion_cnn
"""

from cnn.config import ExperimentConfig
from cnn.run import main

CONFIG = ExperimentConfig(name="fashion_cnn")

if __name__ == "__main__":
    main(CONFIG)
