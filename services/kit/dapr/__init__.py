"""Dapr's building blocks: actors and their state, workflows, calls between apps."""
