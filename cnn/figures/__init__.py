"""Arrays -> matplotlib figures. Imports only errors from cnn."""
