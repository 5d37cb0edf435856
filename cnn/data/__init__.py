"""Images and labels: found or downloaded, verified, cached and split. Imports devices, config and what is below."""
