"""Export and import of networks. Imports runs and what is below."""
