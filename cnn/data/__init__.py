"""Images and labels: found, fetched, verified, cached and split. Imports devices, config and what is below."""
