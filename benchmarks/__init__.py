"""Measurements beside Keras and PyTorch; each writes benchmarks/results/<name>.json."""
