"""Postgres and wake-ups over Valkey."""
