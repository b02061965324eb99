"""A test app with a workflow that uses every block."""
