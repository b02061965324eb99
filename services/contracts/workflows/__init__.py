"""Contract of `workflows`."""
