"""One module an experiment: ``python -m experiments.fashion_cnn``."""
