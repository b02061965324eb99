"""Group commit: appends of many streams that wait at the same time become one transaction.

An append outlives a restart of the server: it is repeated until it is known to be written, once. What its stream
costs to begin anew, a model's answer say, is worth the wait.
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

MAX_FLIGHTS: Final = 2
"""Transactions at once: one more than one, so that the next is prepared while the last is synced to disk."""
MAX_APPENDS: Final = 128
MAX_BYTES: Final = 1024 * 1024
PATIENCE_SECONDS: Final = 20.0
"""How long an append is repeated while the server is away."""
AGAIN_SECONDS: Final = 0.2
OUTCOME_UNKNOWN: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
)


@dataclass(slots=True)
class Append:
    """One stream's events, and the checkpoint that they announce."""

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
        """Characters of JSON, about its bytes."""
        return sum(map(len, self.data)) + len(self.value or "")

    def stored(self, last_seq: int) -> list[StoredEvent]:
        """The events as the table has them."""
        first = last_seq - len(self.events) + 1
        return [
            StoredEvent(first + place, kind, self.attempt, data, self.at)
            for place, (kind, data) in enumerate(zip(self.types, self.data, strict=True))
        ]


class Writer:
    """Appends at once while few are under way; what arrives meanwhile goes together, in its order per stream."""

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
        self._flying: set[str] = set()
        self._flights: set[asyncio.Task[None]] = set()

    async def append(
        self,
        stream_id: str,
        attempt: int,
        events: Sequence[NewEvent],
        checkpoint: tuple[str, Any] | None,
        owed: Any,
    ) -> tuple[int, bool]:
        """The last seq of the stream, and whether a cancel is wanted.

        Raises:
            StaleAttempt: nothing was written.
            RpcError: UNAVAILABLE for PATIENCE_SECONDS; the outcome is unknown.
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
        self._launch()
        # A caller that is cancelled leaves its append running: it is whole or not at all.
        return await asyncio.shield(append.done)

    def _launch(self) -> None:
        while len(self._flights) < MAX_FLIGHTS and (group := self._next_group()):
            self._flying.update(append.stream_id for append in group)
            flight = asyncio.create_task(self._fly(group), name="event log flight")
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._launch()

    def _next_group(self) -> list[Append]:
        """What may go now: one append per stream, none of a stream whose last append is still under way."""
        group: list[Append] = []
        rest: list[Append] = []
        taken, size = set(self._flying), 0
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

    async def _fly(self, group: list[Append]) -> None:
        try:
            await self._write(group)
        finally:
            self._flying.difference_update(append.stream_id for append in group)

    async def _write(self, group: list[Append]) -> None:
        # Known until the flight lands: no other append of these streams is under way.
        after = [self._last_seq(append.stream_id) for append in group]
        try:
            rows, repeated = await self._until_written(group, after)
            written = {row[0]: (row[1], row[2]) for row in rows}
            if repeated and len(written) < len(group):
                written |= await self._written_before(group, after)
        except BaseException as error:
            if len(group) > 1 and _refused_whole(error):
                for append in group:
                    await self._write([append])
                return
            _fail(group, error)
            if not isinstance(error, Exception):
                raise
        else:
            self._settle(group, written)

    async def _until_written(
        self, group: list[Append], after: list[int | None]
    ) -> tuple[list[Any], bool]:
        """The rows of the statement, and whether it was repeated.

        Each time it demands that nothing was written since, so that a try of which nothing was heard counts once.
        """
        give_up = time.monotonic() + PATIENCE_SECONDS
        repeated = False
        while True:
            try:
                return await self._database.fetch(sql.APPEND, *_columns(group, after)), repeated
            except RpcError as error:
                whole = len(group) > 1 and _refused_whole(error)
                if whole or None in after or time.monotonic() > give_up:
                    raise
            repeated = True
            await asyncio.sleep(AGAIN_SECONDS)

    async def _written_before(
        self, group: list[Append], after: list[int | None]
    ) -> dict[int, tuple[int, bool]]:
        """Which appends an earlier try has written after all."""
        last = [(seq or 0) + len(append.events) for append, seq in zip(group, after, strict=True)]
        ids, attempts = [each.stream_id for each in group], [each.attempt for each in group]
        rows = await self._database.fetch(sql.WRITTEN, ids, attempts, last)
        return {row[0]: (row[1], row[2]) for row in rows}

    def _settle(self, group: list[Append], written: dict[int, tuple[int, bool]]) -> None:
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


def _refused_whole(error: BaseException) -> bool:
    """Whether the server certainly wrote nothing: for one append's fault, a lock, or a deadlock."""
    cause = error.__cause__ if isinstance(error, RpcError) else error
    return isinstance(cause, asyncpg.PostgresError) and not isinstance(cause, OUTCOME_UNKNOWN)


def _fail(group: list[Append], error: BaseException) -> None:
    for append in group:
        if not append.done.done():
            append.done.set_exception(error)
            append.done.exception()  # its caller may have left


def to_json(value: Any) -> str:
    """Compact JSON; text stays as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
