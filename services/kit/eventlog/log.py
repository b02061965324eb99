"""Streams of events in Postgres.

`seq` is gap-free because each append raises the stream's counter and inserts the rows in one statement. The same
statement is the fence: it changes nothing unless the writer's attempt is the newest and the stream is open. So a
stream has one writer at a time, one terminal event, and nothing after it.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from services.kit.db import Database
from services.kit.eventlog import statements as sql
from services.kit.signals import Signals
from services.kit.waiting import wait_for

POLL_SECONDS: Final = 1.0
"""How long a reader trusts a wake-up to come before it looks for itself."""
READ_LIMIT: Final = 500
SILENCE_SECONDS: Final = 4.0
"""After how long without a sign of life an attempt counts as dead; it gives one each second."""


class StaleAttempt(Exception):
    """A newer attempt owns the stream, or it is closed: whoever writes must stop."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append; `terminal` closes the stream."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as stored; `data` is the JSON text, the same bytes for every reader."""

    seq: int
    type: str
    attempt: int
    data: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StreamHead:
    """What is known of a stream without reading its events."""

    stream_id: str
    owner: str
    subject: str
    last_seq: int
    attempt: int
    closed_at: datetime | None
    cancel_requested_at: datetime | None
    cancel_acknowledged_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The right to write a stream, until somebody begins a newer attempt."""

    stream_id: str
    number: int
    last_seq: int
    cancel_requested_at: datetime | None
    checkpoints: Mapping[str, Any]
    checkpoint_seq: int
    """The last seq that no later attempt takes back."""


class EventLog:
    """Streams: open, write by attempt, read from any point, follow."""

    def __init__(self, database: Database, signals: Signals) -> None:
        self._database = database
        self._signals = signals

    async def open(self, stream_id: str, *, kind: str, owner: str, subject: str) -> bool:
        """Create a stream; one that exists is left as it is. Returns whether it is new."""
        rows = await self._database.execute(
            sql.OPEN, {"id": stream_id, "kind": kind, "owner": owner, "subject": subject}
        )
        return rows.one_or_none() is not None

    async def discard_unused(self, stream_id: str) -> None:
        """Delete a stream that nothing was ever written to."""
        await self._database.execute(sql.DISCARD_UNUSED, {"id": stream_id})

    async def head(self, stream_id: str) -> StreamHead | None:
        """The stream without its events, or None."""
        row = (await self._database.execute(sql.HEAD, {"id": stream_id})).one_or_none()
        return StreamHead(*row) if row else None

    async def begin_attempt(self, stream_id: str, *, first: bool = False) -> Attempt | None:
        """Take the stream over from any older attempt; None where it is closed or missing.

        With `first`, only where there was no attempt before.
        """
        found = await self._database.execute(sql.BEGIN_ATTEMPT, {"id": stream_id, "first": first})
        row: Any = found.one_or_none()
        if row is None:
            return None
        number, last_seq, cancel_requested_at, checkpoints, checkpoint_seq = row
        return Attempt(
            stream_id, number, last_seq, cancel_requested_at, checkpoints or {}, checkpoint_seq
        )

    async def append(
        self,
        stream_id: str,
        attempt: int,
        events: Sequence[NewEvent],
        *,
        checkpoint: tuple[str, Any] | None = None,
    ) -> tuple[int, bool]:
        """Append events, and the checkpoint that they announce, in one transaction.

        Returns the seq of the last event of the stream, and whether a cancel is wanted.

        Raises:
            StaleAttempt: nothing was written.
        """
        step, value = checkpoint or (None, None)
        row: Any = (
            await self._database.execute(
                sql.APPEND,
                {
                    "id": stream_id,
                    "attempt": attempt,
                    "count": len(events),
                    "close": any(event.terminal for event in events),
                    "types": [event.type for event in events],
                    "data": [_json(event.data) for event in events],
                    "step": step,
                    "value": _json(value),
                },
            )
        ).one_or_none()
        if row is None:
            raise StaleAttempt(f"{stream_id} attempt {attempt}")
        if events:
            await self._signals.notify(_channel(stream_id))
        if any(event.terminal for event in events):
            await self._signals.notify(_free_channel(stream_id))
        return row[0], row[1] is not None

    async def close_stream(self, stream_id: str, event: NewEvent) -> bool:
        """Append a terminal event whatever the attempt; False where the stream was closed already."""
        row = (
            await self._database.execute(
                sql.CLOSE, {"id": stream_id, "type": event.type, "data": _json(event.data)}
            )
        ).one_or_none()
        if row is not None:
            await self._signals.notify(_channel(stream_id))
            await self._signals.notify(_free_channel(stream_id))
        return row is not None

    async def release(self, stream_id: str, attempt: int) -> None:
        """Say that this attempt ends without ending the stream, so that the next need not wait for its silence."""
        await self._database.execute(sql.RELEASE, {"id": stream_id, "attempt": attempt})
        await self._signals.notify(_free_channel(stream_id))

    async def wait_until_free(self, stream_id: str) -> None:
        """Wait while a living attempt writes the stream: until it ends, releases it, or falls silent."""
        async with self._signals.listen(_free_channel(stream_id)) as news:
            while True:
                news.clear()
                found = await self._database.execute(
                    sql.BUSY, {"id": stream_id, "seconds": SILENCE_SECONDS}
                )
                if not found.scalar_one_or_none():
                    return
                await wait_for(news, POLL_SECONDS)

    async def request_cancel(self, stream_id: str) -> StreamHead | None:
        """Ask the writer to stop: durable, then told at once; repeated requests keep the first time."""
        await self._database.execute(sql.REQUEST_CANCEL, {"id": stream_id})
        await self._signals.notify(control_channel(stream_id))
        return await self.head(stream_id)

    async def acknowledge_cancel(self, stream_id: str, attempt: int) -> None:
        """Record that the writer has seen the cancel; only the first time is kept."""
        await self._database.execute(sql.ACKNOWLEDGE_CANCEL, {"id": stream_id, "attempt": attempt})

    async def pulse(self, stream_id: str, attempt: int) -> bool:
        """Show that the writer lives; returns whether a cancel is wanted.

        Raises:
            StaleAttempt: a newer attempt took over, or the stream is closed.
        """
        row = (
            await self._database.execute(sql.PULSE, {"id": stream_id, "attempt": attempt})
        ).one_or_none()
        if row is None:
            raise StaleAttempt(f"{stream_id} attempt {attempt}")
        return row[0] is not None

    async def read(
        self, stream_id: str, after: int = 0, limit: int = READ_LIMIT
    ) -> list[StoredEvent]:
        """Events after `after`, in order."""
        rows = await self._database.execute(
            sql.READ, {"id": stream_id, "after": after, "limit": limit}
        )
        return [StoredEvent(*row) for row in rows]

    async def follow(self, stream_id: str, after: int = 0) -> AsyncIterator[list[StoredEvent]]:
        """Batches of events after `after` for ever; an empty batch each second without news."""
        async with self._signals.listen(_channel(stream_id)) as news:
            while True:
                news.clear()
                batch = await self.read(stream_id, after)
                if batch:
                    after = batch[-1].seq
                yield batch
                if not batch:
                    await wait_for(news, POLL_SECONDS)

    async def idle(self, kind: str, for_at_least: timedelta, limit: int) -> list[StreamHead]:
        """Claim open streams that nobody has driven for a while, so that one sweeper looks at each."""
        rows = await self._database.execute(
            sql.CLAIM_IDLE, {"kind": kind, "seconds": for_at_least.total_seconds(), "limit": limit}
        )
        return [StreamHead(*row) for row in rows]

    async def forget(self, stream_ids: Sequence[str]) -> None:
        """Delete streams with their events and checkpoints."""
        await self._database.execute(sql.FORGET, {"ids": list(stream_ids)})

    async def of_subject(self, subject: str) -> list[StreamHead]:
        """A subject's streams, the oldest 500."""
        rows = await self._database.execute(sql.OF_SUBJECT, {"subject": subject})
        return [StreamHead(*row) for row in rows]


def control_channel(stream_id: str) -> str:
    """Where the writer of a stream hears of a cancel."""
    return f"yocaso:control:{stream_id}"


def _channel(stream_id: str) -> str:
    return f"yocaso:events:{stream_id}"


def _free_channel(stream_id: str) -> str:
    return f"yocaso:free:{stream_id}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
