"""Finds data of deleted conversations in every store."""

import re
from collections import Counter
from collections.abc import Collection
from typing import Final

import asyncpg

from services.cli.stack.ports import LOOPBACK
from tests.support import etcd
from tests.support.platform import Platform

ANY_ID: Final = "(conv|turn)_[0-9a-z]{26,32}"
STATE: Final = """
    SELECT key, encode(value, 'escape') ~ '"deleted": ?true' AS deleted FROM dapr.state
    WHERE key ~ $1 OR encode(value, 'escape') ~ $1
"""
EVENT_TABLES: Final = """
    SELECT table_name FROM information_schema.tables
    WHERE table_schema = 'events' AND table_name NOT IN ('idempotency', 'alembic_version')
"""
TUPLES: Final = "SELECT object_id FROM tuple WHERE object_id ~ $1"
MASKS: Final = (
    (re.compile(ANY_ID), r"<\1>"),
    (re.compile(r"[0-9a-f]{16,}"), "<hex>"),
    (re.compile(r"\d+"), "<n>"),
)
TOMBSTONE: Final = re.compile(r"ConversationActor/<conv>/head$")
"""The head of a deleted conversation is kept as a tombstone: without it a late write would recreate it."""


async def residual_rows(platform: Platform, ids: Collection[str] = ()) -> Counter[str]:
    """Rows and keys that name the conversations, or any; without tombstones and idempotency records. Counts by kind."""
    found = await _all(platform, "|".join(map(re.escape, ids)) or ANY_ID)
    return Counter(
        {kind: count for kind, count in found.items() if not kind.startswith("tombstone")}
    )


async def tombstones(platform: Platform) -> int:
    found = await _all(platform, ANY_ID)
    return sum(count for kind, count in found.items() if kind.startswith("tombstone"))


async def _all(platform: Platform, pattern: str) -> Counter[str]:
    found: Counter[str] = Counter()
    connection = await asyncpg.connect(platform.stack.database_url())
    try:
        for row in await connection.fetch(STATE, pattern):
            key = _masked(row["key"])
            is_tombstone = row["deleted"] and TOMBSTONE.search(key)
            found[f"{'tombstone' if is_tombstone else 'state'} {key}"] += 1
        for row in await connection.fetch(EVENT_TABLES):
            table = f"events.{row['table_name']}"
            query = f"SELECT count(*) FROM {table} AS t WHERE t::text ~ $1"
            if count := await connection.fetchval(query, pattern):
                found[f"rows of {table}"] += count
    finally:
        await connection.close()
    tuples = await asyncpg.connect(platform.stack.database_url(), database="openfga")
    try:
        for row in await tuples.fetch(TUPLES, pattern):
            found[f"tuple {_masked(row['object_id'])}"] += 1
    finally:
        await tuples.close()
    port = platform.stack.spec("scheduler").ports["scheduler etcd client"]
    for key in await etcd.keys(f"{LOOPBACK}:{port}"):
        if re.search(pattern, key):
            found[f"scheduler {_masked(key)}"] += 1
    return found


def _masked(text: str) -> str:
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    return text
