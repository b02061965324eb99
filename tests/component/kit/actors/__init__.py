"""A test app with one actor type."""
