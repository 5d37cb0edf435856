"""One file a family of models; every layer is named."""
