"""Contract of `llm`."""
