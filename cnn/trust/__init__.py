"""A finished run -> when to believe it: robustness, the unknown, labels, predictions. Imports look and what is below."""
