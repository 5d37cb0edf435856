"""Processes, the device mesh, and signals. Imports config and what is below."""
