"""Retention of closed streams, by a policy per kind.

First a stream is compacted: its checkpoints and all events except the terminal one are deleted; reading the deleted
events then raises OUT_OF_RANGE. Later the stream is deleted. Both work in batches of rows, oldest first; concurrent
replicas take different batches.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from services.kit.storage.db import Database

STREAMS_PER_BATCH: Final = 50
EVENTS_PER_STREAM: Final = 100
"""Events of one stream deleted per batch; longer streams take several batches, from their beginning."""
ROWS_PER_BATCH: Final = 5000
PAUSE_SECONDS: Final = 0.05
"""Pause between batches, so that the purge does not monopolize the disk."""

# $1 kind, $2 seconds since the end, $3 streams, $4 events of each
COMPACT: Final = """
    WITH due AS (
        SELECT id, least(last_seq, first_seq + $4::bigint) AS until, last_seq <= first_seq + $4::bigint AS whole
        FROM events.streams
        WHERE kind = $1 AND closed_at < now() - make_interval(secs => $2::double precision)
            AND NOT compacted
        ORDER BY closed_at LIMIT $3 FOR UPDATE SKIP LOCKED
    ), points AS (
        DELETE FROM events.checkpoints c USING due WHERE c.stream_id = due.id
    ), gone AS (
        DELETE FROM events.events e USING due WHERE e.stream_id = due.id AND e.seq < due.until
    )
    UPDATE events.streams s SET first_seq = due.until, compacted = due.whole
    FROM due WHERE s.id = due.id RETURNING s.id
"""

# $1 kind, $2 seconds since the end, $3 streams
FORGET: Final = """
    WITH due AS (
        SELECT id FROM events.streams
        WHERE kind = $1 AND closed_at < now() - make_interval(secs => $2::double precision)
            AND compacted AND owed IS NULL
        ORDER BY closed_at LIMIT $3 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM events.events e USING due WHERE e.stream_id = due.id
    )
    DELETE FROM events.streams s USING due WHERE s.id = due.id RETURNING s.id
"""

log = structlog.get_logger()

Batch = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Retention:
    """How long after its end a stream of a kind keeps all events, and how long its terminal event."""

    kind: str
    events: timedelta
    ending: timedelta

    def __post_init__(self) -> None:
        if self.ending < self.events:
            raise ValueError(f"{self.kind}: `ending` must not be shorter than `events`")


class Purge:
    """Deletes expired rows: of the event log by policy, and of other tables by the given batches.

    A batch deletes some expired rows and returns their number; it is repeated until it returns 0.
    """

    def __init__(
        self, database: Database, policies: Sequence[Retention], others: Sequence[Batch] = ()
    ) -> None:
        self._database = database
        self._batches = [*others]
        for policy in policies:
            self._batches += [self._compaction(policy), self._deletion(policy)]

    async def run(self) -> None:
        """Delete everything that has expired."""
        removed = 0
        for batch in self._batches:
            while found := await batch():
                removed += found
                await asyncio.sleep(PAUSE_SECONDS)
        if removed:
            log.info("retention.purged", removed=removed)

    def _compaction(self, policy: Retention) -> Batch:
        seconds = policy.events.total_seconds()

        async def batch() -> int:
            arguments = (policy.kind, seconds, STREAMS_PER_BATCH, EVENTS_PER_STREAM)
            return len(await self._database.fetch(COMPACT, *arguments))

        return batch

    def _deletion(self, policy: Retention) -> Batch:
        seconds = policy.ending.total_seconds()

        async def batch() -> int:
            arguments = (policy.kind, seconds, STREAMS_PER_BATCH)
            return len(await self._database.fetch(FORGET, *arguments))

        return batch
