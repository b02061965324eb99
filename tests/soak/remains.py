"""When every conversation is deleted: does any store still hold a row or a key of one?"""

import asyncio
import contextlib
import re
from collections import Counter
from typing import Final

import asyncpg

from services.cli.stack.ports import LOOPBACK
from tests.soak.caller import new_key
from tests.soak.ledger import GaveUp, Ledger
from tests.soak.load import User
from tests.support import etcd
from tests.support.platform import Platform
from tests.support.wait import wait_until

EMPTY_SECONDS: Final = 120.0
"""How long the removal in the background may take after the last deletion was answered."""
ID: Final = re.compile(r"(conv|turn)_[0-9a-z]{26,32}")
NAMED: Final = "'(conv|turn)_[0-9a-z]{26,32}'"
STATE: Final = f"""
    SELECT key, value::text LIKE '%"deleted": true%' AS deleted FROM dapr.state
    WHERE key ~ {NAMED} OR value::text ~ {NAMED}
"""
TOMBSTONE: Final = re.compile(r"ConversationActor/<conv>/head$")
"""A deleted conversation's head, which says so and nothing else: without it a late write would revive it."""
EVENT_TABLES: Final = """
    SELECT table_name FROM information_schema.tables
    WHERE table_schema = 'events' AND table_name NOT IN ('idempotency', 'alembic_version')
"""
TUPLES: Final = f"SELECT object_id FROM tuple WHERE object_id ~ {NAMED}"
MASKS: Final = ((ID, r"<\1>"), (re.compile(r"[0-9a-f]{16,}"), "<hex>"), (re.compile(r"\d+"), "<n>"))


async def delete_all(users: list[User]) -> None:
    """Delete whatever the users still see."""
    for user in users:
        rows = await user.caller.pages("ListConversations", "conversations")
        for start in range(0, len(rows), 8):
            batch = [row["conversationId"] for row in rows[start : start + 8]]
            results = await asyncio.gather(
                *(
                    user.caller.must("DeleteConversation", new_key(), conversationId=each)
                    for each in batch
                ),
                return_exceptions=True,
            )
            bugs = [each for each in results if isinstance(each, BaseException)]
            for each in bugs:
                if not isinstance(each, GaveUp):
                    raise each


async def judge_remains(platform: Platform, ledger: Ledger) -> None:
    """Wait for the stores to be empty, and note what stays."""

    async def empty() -> bool:
        return not await _left(platform)

    with contextlib.suppress(AssertionError):  # what stays is noted one by one
        await wait_until(empty, EMPTY_SECONDS, every=2)
    tombstones: Counter[str] = Counter()
    for what, count in sorted((await _left(platform, tombstones)).items()):
        ledger.problem("left over", f"{count} × {what}")
    ledger.done["tombstones"] = tombstones.total()


async def _left(platform: Platform, tombstones: Counter[str] | None = None) -> Counter[str]:
    left: Counter[str] = Counter()
    dead: Counter[str] = Counter() if tombstones is None else tombstones
    connection = await asyncpg.connect(platform.stack.database_url())
    try:
        for row in await connection.fetch(STATE):
            key = _masked(row["key"])
            kind = dead if row["deleted"] and TOMBSTONE.search(key) else left
            kind[f"state {key}"] += 1
        for row in await connection.fetch(EVENT_TABLES):
            table = row["table_name"]
            if count := await connection.fetchval(f"SELECT count(*) FROM events.{table}"):
                left[f"rows of events.{table}"] += count
    finally:
        await connection.close()
    tuples = await asyncpg.connect(platform.stack.database_url(), database="openfga")
    try:
        for row in await tuples.fetch(TUPLES):
            left[f"tuple {_masked(row['object_id'])}"] += 1
    finally:
        await tuples.close()
    port = platform.stack.spec("scheduler").ports["scheduler etcd client"]
    for key in await etcd.keys(f"{LOOPBACK}:{port}"):
        if ID.search(key):
            left[f"scheduler {_masked(key)}"] += 1
    return left


def _masked(text: str) -> str:
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    return text
