"""Searches tables and files of the platform for a text."""

from collections.abc import Iterable
from pathlib import Path

import asyncpg

TABLES = """
    SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.tables
    WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')
"""


async def rows_with(connections: Iterable[asyncpg.Connection], text: str) -> dict[str, int]:
    """Number of rows per table that contain the text in any column."""
    found: dict[str, int] = {}
    for connection in connections:
        for table in await connection.fetch(TABLES):
            rows = await connection.fetch(f"SELECT * FROM {table['name']}")
            if held := sum(text in _readable(row) for row in rows):
                found[table["name"]] = held
    return found


def files_with(files: Iterable[Path], text: str) -> list[str]:
    """Names of the files that contain the text."""
    return [file.name for file in files if text.encode() in file.read_bytes()]


def _readable(row: asyncpg.Record) -> str:
    return " ".join(
        value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for value in row.values()
    )
