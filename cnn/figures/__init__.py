"""Arrays -> matplotlib figures. Imports nothing of cnn but errors."""
