"""Merges writes, and reads of single rows, that are asked for at the same time."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from services.kit.dapr.state_rows import StoredValue

MAX_IN_FLIGHT: Final = 4
"""Transactions under way; what comes meanwhile is merged into the next. One would idle while the other commits."""
MAX_OPERATIONS: Final = 64
MAX_BYTES: Final = 1024 * 1024
GATHER_SECONDS: Final = 0.005
"""How long reads that nobody waits for are gathered."""

W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class _Member(Generic[W]):
    """One caller's writes."""

    writes: Sequence[W]
    done: asyncio.Future[None] = field(default_factory=asyncio.Future[None])

    def end(self, error: Exception | None = None) -> None:
        if self.done.done():  # its caller left
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class GroupCommit(Generic[W]):
    """Writes all or nothing, merged with others' writes while transactions are under way.

    Each member keeps its own conditions. If a merged transaction is refused (`is_refusal`), each member is tried
    alone: one that broke a condition fails by itself. A failure that leaves the outcome unknown is every member's: a
    caller finds out whether it was written as it does for a transaction of its own.
    """

    def __init__(
        self,
        transact: Callable[[Sequence[W]], Awaitable[None]],
        *,
        is_refusal: Callable[[Exception], bool],
        key_of: Callable[[W], str],
        size_of: Callable[[W], int],
        in_flight: int = MAX_IN_FLIGHT,
        most: int = MAX_OPERATIONS,
    ) -> None:
        self._transact = transact
        self._is_refusal = is_refusal
        self._key_of = key_of
        self._size_of = size_of
        self._allowed = in_flight
        self._most = most
        self._waiting: deque[_Member[W]] = deque()
        self._in_flight = 0
        self._groups: set[asyncio.Task[None]] = set()

    async def write(self, writes: Sequence[W]) -> None:
        """Write all or nothing; fails as the transaction alone would."""
        if self._in_flight >= self._allowed:
            member = _Member(writes)
            self._waiting.append(member)
            await member.done
            return
        self._in_flight += 1
        try:
            await self._transact(writes)
        finally:
            self._next()

    def _next(self) -> None:
        """Hand the place of a transaction that has ended to those who wait."""
        group = self._take()
        if not group:
            self._in_flight -= 1
            return
        task = asyncio.create_task(self._commit(group))
        self._groups.add(task)
        task.add_done_callback(self._groups.discard)

    def _take(self) -> list[_Member[W]]:
        group: list[_Member[W]] = []
        operations = size = 0
        while self._waiting:
            member = self._waiting[0]
            operations += len(member.writes)
            size += sum(map(self._size_of, member.writes))
            if group and (operations > self._most or size > MAX_BYTES):
                break
            self._waiting.popleft()
            if not member.done.done():
                group.append(member)
        # In one order everywhere: two processes that write the same rows must not wait for each other.
        return sorted(group, key=lambda member: self._key_of(member.writes[0]))

    async def _commit(self, group: list[_Member[W]]) -> None:
        try:
            await self._transact([write for member in group for write in member.writes])
        except Exception as error:
            if len(group) > 1 and self._is_refusal(error):
                await asyncio.gather(*(self._commit_alone(member) for member in group))
                return
            for member in group:
                member.end(error)
        else:
            for member in group:
                member.end()
        finally:
            for member in group:
                member.done.cancel()  # the process stops: nobody else ends it
            self._next()

    async def _commit_alone(self, member: _Member[W]) -> None:
        try:
            await self._transact(member.writes)
        except Exception as error:
            member.end(error)
        else:
            member.end()


class GatheredReads:
    """Reads rows that nobody waits for yet by one request, after a moment, or as soon as somebody does."""

    def __init__(
        self,
        read: Callable[[str], Coroutine[Any, Any, StoredValue]],
        read_many: Callable[[Sequence[str]], Coroutine[Any, Any, list[StoredValue]]],
    ) -> None:
        self._read = read
        self._read_many = read_many
        self._wanted: dict[str, asyncio.Future[StoredValue]] = {}
        self._reads: set[asyncio.Task[None]] = set()
        self._beginning: asyncio.TimerHandle | None = None

    async def read(self, key: str) -> StoredValue:
        """One row; the same row wanted twice in one moment is read once."""
        if not self._wanted:
            loop = asyncio.get_running_loop()
            self._beginning = loop.call_later(GATHER_SECONDS, self.begin)
        if key not in self._wanted:
            self._wanted[key] = asyncio.Future()
        return await asyncio.shield(self._wanted[key])

    def begin(self) -> None:
        """Somebody waits: read now what is wanted."""
        if self._beginning is not None:
            self._beginning.cancel()
            self._beginning = None
        wanted, self._wanted = self._wanted, {}
        if not wanted:
            return
        task = asyncio.create_task(self._finish(wanted))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _finish(self, wanted: dict[str, asyncio.Future[StoredValue]]) -> None:
        keys = list(wanted)
        try:
            found = [await self._read(keys[0])] if len(keys) == 1 else await self._read_many(keys)
        except Exception as error:
            for future in wanted.values():
                future.set_exception(error)
                future.exception()  # nobody may be waiting for it
        else:
            for row in found:
                wanted[row.key].set_result(row)
        finally:
            for future in wanted.values():
                future.cancel()
