"""What other apps may know of `llm`."""
