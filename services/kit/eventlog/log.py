"""Streams of events in Postgres.

Each append raises the stream's counter and inserts the rows in one statement, so `seq` has no gaps. The statement also
fences: it changes nothing unless the writer's attempt is the newest and the stream is open. So a stream has one writer
at a time, and its terminal event is last.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import statements as sql
from services.kit.eventlog.live_tails import LiveTails, channel
from services.kit.eventlog.records import Attempt, NewEvent, NewStream, StoredEvent, StreamHead
from services.kit.eventlog.writer import Append, Writer, to_json
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from services.kit.waiting import wait_for

READ_LIMIT: Final = 500
IDLE_SECONDS: Final = 15.0
RECOVERY_DELAY_SECONDS: Final = 5.0
"""How long after its opening recovery begins a stream without an attempt."""


class EventLog:
    """Opens, writes, reads and follows streams. `host` is the id of this process's lease, if it writes."""

    def __init__(self, database: Database, wake_ups: WakeUps, host: str = "") -> None:
        self._database = database
        self._wake_ups = wake_ups
        self._host = host
        self._tails = LiveTails(wake_ups)
        self._writer = Writer(database, self._tails.last_seq, self._committed)

    async def open(self, stream: NewStream) -> bool:
        """Create a stream without an attempt; returns whether it is new."""
        row = await self._database.fetch_one(sql.OPEN, *_columns(stream), RECOVERY_DELAY_SECONDS)
        return row is not None

    async def open_with_attempt(
        self, stream: NewStream, opening: Sequence[NewEvent]
    ) -> Attempt | None:
        """Create a stream, begin its first attempt here and append its first events, in one commit; None if it exists."""
        at = datetime.now(UTC)
        types, data = [one.type for one in opening], [to_json(one.data) for one in opening]
        row = await self._database.fetch_one(
            sql.OPEN_WITH_ATTEMPT,
            *_columns(stream),
            self._host,
            stream.deadline,
            types,
            data,
            [at] * len(opening),
            at,
        )
        if row is None:
            return None
        events = [
            StoredEvent(seq, kind, 1, text, at)
            for seq, (kind, text) in enumerate(zip(types, data, strict=True), 1)
        ]
        self._tails.begin(stream.stream_id, len(events), events)
        return Attempt(stream, 1, len(events))

    async def discard(self, stream_id: str, attempt: int) -> None:
        """Delete a stream with at most one event, unless a newer attempt has begun."""
        self._tails.end(stream_id)
        await self._database.fetch(sql.DISCARD, stream_id, attempt)

    async def begin_attempt(
        self, stream_id: str, deadline: datetime | None = None
    ) -> Attempt | None:
        """Begin a newer attempt here; None if the stream is closed, missing, or has a host."""
        at = datetime.now(UTC)
        row = await self._database.fetch_one(sql.BEGIN_ATTEMPT, stream_id, self._host, deadline, at)
        if row is None:
            return None
        number, last_seq, cancel, kind, owner, subject, ends, given = row
        stream = NewStream(
            stream_id, kind, owner, subject, ends, json.loads(given) if given else None
        )
        found = await self._database.fetch(sql.CHECKPOINTS, stream_id) if number > 1 else []
        self._tails.begin(stream_id, last_seq)
        return Attempt(
            stream,
            number,
            last_seq,
            cancel,
            {step: json.loads(value) for step, value, _ in found},
            max((seq for _, _, seq in found), default=0),
        )

    async def append(
        self,
        stream_id: str,
        attempt: int,
        events: Sequence[NewEvent],
        *,
        checkpoint: tuple[str, Any] | None = None,
        owed: Any = None,
    ) -> tuple[int, bool]:
        """Append events and a checkpoint in one transaction; with a terminal event, also an effect to settle (`owed`).

        Returns the stream's last seq, and whether cancellation was requested.

        Raises:
            StaleAttempt: nothing was written.
        """
        return await self._writer.append(stream_id, attempt, events, checkpoint, owed)

    async def close_stream(
        self, stream_id: str, kind: str, data: Mapping[str, Any], *, owed: Any = None
    ) -> bool:
        """Append a terminal event and fence off the current attempt; False if the stream was closed."""
        at, text = datetime.now(UTC), to_json(data)
        owed_json = to_json(owed) if owed is not None else None
        row = await self._database.fetch_one(sql.CLOSE, stream_id, kind, text, at, owed_json)
        if row is not None:
            self._tails.add(stream_id, [StoredEvent(row[0], kind, row[1], text, at)])
            self._announce(stream_id, closed=True)
        return row is not None

    async def release(self, stream_id: str, attempt: int, due: timedelta = timedelta()) -> None:
        """End this attempt without closing the stream; recovery considers it after `due`."""
        self._tails.end(stream_id)
        await self._database.fetch(sql.RELEASE, stream_id, attempt, due.total_seconds())
        self._wake_ups.wake(free_channel(stream_id))

    async def request_cancel(self, stream_id: str) -> tuple[bool, str | None]:
        """Record a cancel request and wake the host; returns whether the stream is open, and its host."""
        row = await self._database.fetch_one(sql.REQUEST_CANCEL, stream_id)
        if row is None:
            return False, None
        if row[0] is not None:
            self._wake_ups.wake(control_channel(row[0]))
        return True, row[0]

    async def acknowledge_cancel(self, stream_id: str, attempt: int) -> None:
        """Record that the writer has seen the cancel request."""
        await self._database.fetch(sql.ACKNOWLEDGE_CANCEL, stream_id, attempt)

    async def head(self, stream_id: str) -> StreamHead | None:
        """The stream without its events, or None."""
        row = await self._database.fetch_one(sql.HEAD, stream_id)
        return StreamHead(*row) if row else None

    async def read(
        self, stream_id: str, after: int = 0, limit: int = READ_LIMIT
    ) -> list[StoredEvent]:
        """Events after `after`, in order.

        Raises:
            RpcError: OUT_OF_RANGE if retention has removed the next one.
        """
        rows = await self._database.fetch(sql.READ, stream_id, after, limit)
        if rows and rows[0][0] != after + 1:  # seq has no gaps, so the missing events were removed
            raise RpcError(
                ErrorCode.OUT_OF_RANGE,
                f"after: the stream has ended, and its events before {rows[0][0]} are no longer kept.",
            )
        return [StoredEvent(*row) for row in rows]

    async def follow(
        self, stream_id: str, after: int = 0, *, idle_seconds: float = IDLE_SECONDS
    ) -> AsyncIterator[list[StoredEvent]]:
        """Endless batches of events after `after`; an empty batch after each `idle_seconds` without events.

        Events appended in this process are delivered from memory; the table is read only for others.
        """
        with self._tails.following(stream_id) as (tail, wake_up):
            while True:
                wake_up.clear()
                batch = tail.after(after)
                if batch is None:
                    batch = await self.read(stream_id, after)
                    tail.advance(batch[-1].seq if batch else after)
                if batch:
                    after = batch[-1].seq
                    yield batch
                elif not await wait_for(wake_up, idle_seconds):
                    yield []

    async def poll(self) -> None:
        """Check all followed streams of other hosts by one statement, in case wake-ups were lost."""
        remote = self._tails.remote()
        if remote:
            for stream_id, last_seq in await self._database.fetch(sql.LAST_SEQS, remote):
                self._tails.compare(stream_id, last_seq)

    async def wait_until_free(self, stream_id: str, poll_seconds: float = 1.0) -> StreamHead | None:
        """Wait until the stream is closed or has no host; returns its head, or None if it is missing."""
        async with self._wake_ups.listen(free_channel(stream_id)) as wake_up:
            while True:
                wake_up.clear()
                found = await self.head(stream_id)
                if found is None or found.closed_at is not None or found.host is None:
                    return found
                await wait_for(wake_up, poll_seconds)

    async def list_by_owner(self, owner: str) -> list[StreamHead]:
        """The oldest 500 streams of a user."""
        rows = await self._database.fetch(sql.LIST_BY_OWNER, owner)
        return [StreamHead(*row) for row in rows]

    async def list_by_subject(self, subject: str) -> list[StreamHead]:
        """The oldest 500 streams of a subject."""
        rows = await self._database.fetch(sql.LIST_BY_SUBJECT, subject)
        return [StreamHead(*row) for row in rows]

    async def forget(self, stream_ids: Sequence[str]) -> None:
        """Delete streams with their events and checkpoints."""
        await self._database.fetch(sql.FORGET, list(stream_ids))

    async def clear_owner(self, stream_ids: Sequence[str]) -> None:
        """Erase the user id of streams that are kept because they belong to another user's object."""
        await self._database.fetch(sql.CLEAR_OWNER, list(stream_ids))

    def _committed(self, append: Append, last_seq: int) -> None:
        if append.events:
            self._tails.add(append.stream_id, append.stored(last_seq))
            self._announce(append.stream_id, closed=append.closes)

    def _announce(self, stream_id: str, *, closed: bool) -> None:
        self._wake_ups.wake(channel(stream_id))
        if closed:
            self._tails.end(stream_id)
            self._wake_ups.wake(free_channel(stream_id))


def control_channel(host: str) -> str:
    """The wake-up of a host for cancel requests."""
    return f"yocaso:control:{host}"


def free_channel(stream_id: str) -> str:
    """The wake-up for the end of an attempt."""
    return f"yocaso:free:{stream_id}"


def _columns(stream: NewStream) -> tuple[Any, ...]:
    given = to_json(stream.input) if stream.input is not None else None
    return stream.stream_id, stream.kind, stream.owner, stream.subject, given
