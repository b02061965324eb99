"""Dapr building blocks: actors, actor state, workflows, service invocation."""
