"""Processes, the mesh of devices, and signals. Imports config and what is below."""
