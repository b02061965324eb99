"""Contract of `auth`."""
