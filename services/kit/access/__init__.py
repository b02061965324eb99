"""Caller identity, access checks and rate limits."""
