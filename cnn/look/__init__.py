"""A finished run -> features, attribution, scores, predictions, figures. Imports runs, figures and what is below."""
