"""Measurements, side by side with what a user would take instead; each writes benchmarks/results/<name>.json."""
