"""Searches tables, logs and other files of the platform for texts."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

import asyncpg

TABLES = """
    SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.tables
    WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')
"""


async def tables_with(
    connections: Iterable[asyncpg.Connection], texts: Collection[str]
) -> dict[str, set[str]]:
    """The tables that contain a text in any column, by text; each table is read once."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for connection in connections:
        for table in await connection.fetch(TABLES):
            for row in await connection.fetch(f"SELECT * FROM {table['name']}"):
                readable = _readable(row)
                for text in texts:
                    if text in readable:
                        found[text].add(table["name"])
    return dict(found)


def files_with(files: Iterable[Path], texts: Iterable[str]) -> dict[str, list[str]]:
    """The names of the files that contain a text, by text; each file is read once."""
    contents = [(file.name, file.read_bytes()) for file in files]
    held = {
        text: [name for name, content in contents if text.encode() in content] for text in texts
    }
    return {text: names for text, names in held.items() if names}


def words_in(files: Iterable[Path], pattern: str) -> dict[str, set[str]]:
    """The words that match a pattern, with the names of the files that contain them."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for file in files:
        for word in re.findall(pattern.encode(), file.read_bytes()):
            found[word.decode()].add(file.name)
    return dict(found)


def _readable(row: asyncpg.Record) -> str:
    return " ".join(
        value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for value in row.values()
    )
