"""Streams of events in Postgres.

`seq` is gap-free because each append raises the stream's counter and inserts the rows in one statement. The same
statement is the fence: it changes nothing unless the writer's attempt is the newest and the stream is open. So a
stream has one writer at a time, one terminal event, and nothing after it.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from services.kit.db import Database
from services.kit.errors import ErrorCode, RpcError
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


class Occupancy(StrEnum):
    """Whether a stream may be written by a new attempt."""

    FREE = "FREE"
    BUSY = "BUSY"
    CLOSED = "CLOSED"
    MISSING = "MISSING"


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
        return await self._database.fetch_one(sql.OPEN, stream_id, kind, owner, subject) is not None

    async def discard_unused(self, stream_id: str) -> None:
        """Delete a stream that nothing was ever written to."""
        await self._database.fetch(sql.DISCARD_UNUSED, stream_id)

    async def head(self, stream_id: str) -> StreamHead | None:
        """The stream without its events, or None."""
        row = await self._database.fetch_one(sql.HEAD, stream_id)
        return StreamHead(*row) if row else None

    async def begin_attempt(self, stream_id: str, *, first: bool = False) -> Attempt | None:
        """Take the stream over from any older attempt; None where it is closed or missing.

        With `first`, only where there was no attempt before.
        """
        row = await self._database.fetch_one(sql.BEGIN_ATTEMPT, stream_id, first)
        if row is None:
            return None
        number, last_seq, cancel_requested_at, checkpoints, checkpoint_seq = row
        found: dict[str, Any] = json.loads(checkpoints) if checkpoints else {}
        return Attempt(stream_id, number, last_seq, cancel_requested_at, found, checkpoint_seq)

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
        closes = any(event.terminal for event in events)
        row = await self._database.fetch_one(
            sql.APPEND,
            stream_id,
            attempt,
            len(events),
            closes,
            [event.type for event in events],
            [_json(event.data) for event in events],
            step,
            _json(value),
        )
        if row is None:
            raise StaleAttempt(f"{stream_id} attempt {attempt}")
        if events:
            await self._signals.notify(_channel(stream_id))
        if closes:
            await self._signals.notify(_free_channel(stream_id))
        return row[0], row[1] is not None

    async def close_stream(self, stream_id: str, kind: str, data: Mapping[str, Any]) -> bool:
        """Append a terminal event whatever the attempt; False where the stream was closed already."""
        row = await self._database.fetch_one(sql.CLOSE, stream_id, kind, _json(data))
        if row is not None:
            await self._signals.notify(_channel(stream_id))
            await self._signals.notify(_free_channel(stream_id))
        return row is not None

    async def release(self, stream_id: str, attempt: int) -> None:
        """Say that this attempt ends without ending the stream, so that the next need not wait for its silence."""
        await self._database.fetch(sql.RELEASE, stream_id, attempt, SILENCE_SECONDS)
        await self._signals.notify(_free_channel(stream_id))

    async def occupancy(self, stream_id: str) -> Occupancy:
        """Whether a living attempt writes the stream."""
        row = await self._database.fetch_one(sql.OCCUPANCY, stream_id, SILENCE_SECONDS)
        if row is None:
            return Occupancy.MISSING
        closed, busy = row
        if closed:
            return Occupancy.CLOSED
        return Occupancy.BUSY if busy else Occupancy.FREE

    async def wait_until_free(self, stream_id: str) -> Occupancy:
        """Wait while a living attempt writes the stream: until it ends, releases it, or falls silent."""
        async with self._signals.listen(_free_channel(stream_id)) as news:
            while True:
                news.clear()
                found = await self.occupancy(stream_id)
                if found is not Occupancy.BUSY:
                    return found
                await wait_for(news, POLL_SECONDS)

    async def request_cancel(self, stream_id: str) -> None:
        """Ask the writer to stop: durable, then told at once; repeated requests keep the first time."""
        await self._database.fetch(sql.REQUEST_CANCEL, stream_id)
        await self._signals.notify(control_channel(stream_id))

    async def acknowledge_cancel(self, stream_id: str, attempt: int) -> None:
        """Record that the writer has seen the cancel; only the first time is kept."""
        await self._database.fetch(sql.ACKNOWLEDGE_CANCEL, stream_id, attempt)

    async def pulse(self, stream_id: str, attempt: int) -> bool:
        """Show that the writer lives; returns whether a cancel is wanted.

        Raises:
            StaleAttempt: a newer attempt took over, or the stream is closed.
        """
        row = await self._database.fetch_one(sql.PULSE, stream_id, attempt)
        if row is None:
            raise StaleAttempt(f"{stream_id} attempt {attempt}")
        return row[0] is not None

    async def read(
        self, stream_id: str, after: int = 0, limit: int = READ_LIMIT
    ) -> list[StoredEvent]:
        """Events after `after`, in order.

        Raises:
            RpcError: OUT_OF_RANGE where the next of them is no longer kept.
        """
        rows = await self._database.fetch(sql.READ, stream_id, after, limit)
        if rows and rows[0][0] != after + 1:  # seq has no gaps, so what is missing was removed
            raise RpcError(
                ErrorCode.OUT_OF_RANGE,
                f"after: the stream has ended, and its events before {rows[0][0]} are no longer kept.",
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
                if len(batch) < READ_LIMIT:
                    await wait_for(news, POLL_SECONDS)

    async def idle(self, kind: str, for_at_least: timedelta, limit: int) -> list[StreamHead]:
        """Claim open streams that nobody has driven for a while, so that one sweeper looks at each."""
        seconds = for_at_least.total_seconds()
        rows = await self._database.fetch(sql.CLAIM_IDLE, kind, seconds, limit)
        return [StreamHead(*row) for row in rows]

    async def forget(self, stream_ids: Sequence[str]) -> None:
        """Delete streams with their events and checkpoints."""
        await self._database.fetch(sql.FORGET, list(stream_ids))

    async def of_owner(self, owner: str) -> list[StreamHead]:
        """Streams that a user began, the oldest 500."""
        rows = await self._database.fetch(sql.OF_OWNER, owner)
        return [StreamHead(*row) for row in rows]

    async def disown(self, stream_ids: Sequence[str]) -> None:
        """Take the user's name off streams that stay, because they are of somebody else's object."""
        await self._database.fetch(sql.DISOWN, list(stream_ids))

    async def of_subject(self, subject: str) -> list[StreamHead]:
        """A subject's streams, the oldest 500."""
        rows = await self._database.fetch(sql.OF_SUBJECT, subject)
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
