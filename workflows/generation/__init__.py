"""Retries of a conversation turn."""
