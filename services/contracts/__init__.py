"""All that one app may know of another."""
