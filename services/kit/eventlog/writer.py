"""Group commit of appends: those that wait at the same time become one transaction.

During a restart of Postgres an append is retried until it is known to be written, exactly once: to repeat the work of
the stream would cost more than the wait.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from services.kit.errors import RpcError
from services.kit.eventlog import statements as sql
from services.kit.eventlog.records import NewEvent, StaleAttempt, StoredEvent
from services.kit.storage.db import Database

MAX_IN_FLIGHT: Final = 2
"""Concurrent transactions: one is prepared while the other is synced to disk."""
MAX_APPENDS: Final = 128
MAX_BYTES: Final = 1024 * 1024
MAX_RETRY_SECONDS: Final = 20.0
"""How long an append is retried while Postgres is unavailable."""
RETRY_SECONDS: Final = 0.2
OUTCOME_UNKNOWN: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
)


@dataclass(slots=True)
class Append:
    """Events and a checkpoint to append to one stream."""

    stream_id: str
    attempt: int
    events: Sequence[NewEvent]
    types: list[str]
    data: list[str]
    at: datetime
    step: str | None
    value: str | None
    owed: str | None
    closes: bool
    done: asyncio.Future[tuple[int, bool]]

    @property
    def size(self) -> int:
        """Approximate bytes: the characters of JSON."""
        return sum(map(len, self.data)) + len(self.value or "")

    def stored(self, last_seq: int) -> list[StoredEvent]:
        first = last_seq - len(self.events) + 1
        return [
            StoredEvent(first + place, kind, self.attempt, data, self.at)
            for place, (kind, data) in enumerate(zip(self.types, self.data, strict=True))
        ]


class Writer:
    """Appends at once while few transactions are in flight, else with other appends in the next one.

    The order per stream is kept: at most one append of a stream is in flight.
    """

    def __init__(
        self,
        database: Database,
        last_seq: Callable[[str], int | None],
        committed: Callable[[Append, int], None],
    ) -> None:
        self._database = database
        self._last_seq = last_seq
        self._committed = committed
        self._waiting: list[Append] = []
        self._streams_in_flight: set[str] = set()
        self._in_flight: set[asyncio.Task[None]] = set()

    async def append(
        self,
        stream_id: str,
        attempt: int,
        events: Sequence[NewEvent],
        checkpoint: tuple[str, Any] | None,
        owed: Any,
    ) -> tuple[int, bool]:
        """The last seq of the stream, and whether cancellation was requested.

        Raises:
            StaleAttempt: nothing was written.
            RpcError: UNAVAILABLE after MAX_RETRY_SECONDS; the outcome is unknown.
        """
        step, value = checkpoint or (None, None)
        append = Append(
            stream_id=stream_id,
            attempt=attempt,
            events=events,
            types=[event.type for event in events],
            data=[to_json(event.data) for event in events],
            at=datetime.now(UTC),
            step=step,
            value=to_json(value) if step else None,
            owed=to_json(owed) if owed is not None else None,
            closes=any(event.terminal for event in events),
            done=asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(append)
        self._begin_commits()
        # Shielded: the append of a cancelled caller is still committed.
        return await asyncio.shield(append.done)

    def _begin_commits(self) -> None:
        while len(self._in_flight) < MAX_IN_FLIGHT and (group := self._next_group()):
            self._streams_in_flight.update(append.stream_id for append in group)
            commit = asyncio.create_task(self._commit(group), name="event log commit")
            self._in_flight.add(commit)
            commit.add_done_callback(self._on_committed)

    def _on_committed(self, commit: asyncio.Task[None]) -> None:
        self._in_flight.discard(commit)
        self._begin_commits()

    def _next_group(self) -> list[Append]:
        """Appends for the next transaction: at most one per stream, none of a stream in flight."""
        group: list[Append] = []
        rest: list[Append] = []
        taken, size = set(self._streams_in_flight), 0
        for append in self._waiting:
            full = len(group) >= MAX_APPENDS or (group and size + append.size > MAX_BYTES)
            if full or append.stream_id in taken:
                rest.append(append)
            else:
                group.append(append)
                size += append.size
            taken.add(append.stream_id)
        self._waiting = rest
        return group

    async def _commit(self, group: list[Append]) -> None:
        try:
            await self._write(group)
        finally:
            self._streams_in_flight.difference_update(append.stream_id for append in group)

    async def _write(self, group: list[Append]) -> None:
        # Stays valid during the transaction: no other append of these streams is in flight.
        after = [self._last_seq(append.stream_id) for append in group]
        try:
            rows, retried = await self._write_with_retry(group, after)
            written = {row[0]: (row[1], row[2]) for row in rows}
            if retried and len(written) < len(group):
                written |= await self._written_before(group, after)
        except BaseException as error:
            if len(group) > 1 and _is_refused(error):
                for append in group:
                    await self._write([append])
                return
            _fail(group, error)
            if not isinstance(error, Exception):
                raise
        else:
            self._resolve(group, written)

    async def _write_with_retry(
        self, group: list[Append], after: list[int | None]
    ) -> tuple[list[Any], bool]:
        """The rows of the statement, and whether it was retried; the expected last seq makes retries idempotent."""
        give_up_at = time.monotonic() + MAX_RETRY_SECONDS
        retried = False
        while True:
            try:
                return await self._database.fetch(sql.APPEND, *_columns(group, after)), retried
            except RpcError as error:
                is_refused = len(group) > 1 and _is_refused(error)
                if is_refused or None in after or time.monotonic() > give_up_at:
                    raise
            retried = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _written_before(
        self, group: list[Append], after: list[int | None]
    ) -> dict[int, tuple[int, bool]]:
        """The appends that an earlier try has written although it failed."""
        last = [(seq or 0) + len(append.events) for append, seq in zip(group, after, strict=True)]
        ids, attempts = [each.stream_id for each in group], [each.attempt for each in group]
        rows = await self._database.fetch(sql.WRITTEN, ids, attempts, last)
        return {row[0]: (row[1], row[2]) for row in rows}

    def _resolve(self, group: list[Append], written: dict[int, tuple[int, bool]]) -> None:
        for place, append in enumerate(group, 1):
            found = written.get(place)
            if found is None:
                _fail([append], StaleAttempt(f"{append.stream_id} attempt {append.attempt}"))
                continue
            self._committed(append, found[0])
            if not append.done.done():
                append.done.set_result(found)


def _columns(group: list[Append], after: list[int | None]) -> list[Any]:
    events = [
        (place, number, kind, data, append.at)
        for place, append in enumerate(group, 1)
        for number, (kind, data) in enumerate(zip(append.types, append.data, strict=True), 1)
    ]
    return [
        [append.stream_id for append in group],
        [append.attempt for append in group],
        [len(append.events) for append in group],
        [append.closes for append in group],
        [append.step for append in group],
        [append.value for append in group],
        [append.owed for append in group],
        after,
        *([event[column] for event in events] for column in range(5)),
    ]


def _is_refused(error: BaseException) -> bool:
    """Whether Postgres certainly wrote nothing: an invalid append, a lock timeout, or a deadlock."""
    cause = error.__cause__ if isinstance(error, RpcError) else error
    return isinstance(cause, asyncpg.PostgresError) and not isinstance(cause, OUTCOME_UNKNOWN)


def _fail(group: list[Append], error: BaseException) -> None:
    for append in group:
        if not append.done.done():
            append.done.set_exception(error)
            append.done.exception()  # retrieved here: its caller may have been cancelled


def to_json(value: Any) -> str:
    """Compact JSON, with unescaped Unicode."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
