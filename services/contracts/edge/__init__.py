"""Contract of `edge`."""
