"""A finished run -> when to believe it: robustness, the unknown, labels, prediction. Imports look and what is below."""
