"""Mutants: copies of the code with one guard removed, each of which a named test must find."""
