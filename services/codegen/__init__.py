"""Generates files from the contracts: `python -m services.codegen` writes them, `--check` only compares."""
