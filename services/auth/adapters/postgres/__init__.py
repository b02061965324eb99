"""Postgres adapters, on the schema `auth`."""
