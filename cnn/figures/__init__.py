"""Arrays -> matplotlib figures. Imports only text from cnn."""
