"""Group commit: writes that wait for a free transaction are merged into the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from services.kit.background import TaskSet

MAX_IN_FLIGHT: Final = 4
"""Concurrent transactions; with one, the process would idle during its commit."""
MAX_OPERATIONS: Final = 64
MAX_BYTES: Final = 1024 * 1024

W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class _Member(Generic[W]):
    """The writes of one caller."""

    writes: Sequence[W]
    done: asyncio.Future[None] = field(default_factory=asyncio.Future[None])

    def end(self, error: Exception | None = None) -> None:
        if self.done.done():  # its caller was cancelled
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class GroupCommit(Generic[W]):
    """Atomic writes per caller, merged with other callers' writes while `max_in_flight` transactions run.

    If the store refuses a merged transaction (`is_refusal`), each member is retried in its own, so that only the one
    with a broken condition fails. Any other failure leaves the outcome unknown and is raised to every member.
    """

    def __init__(
        self,
        transact: Callable[[Sequence[W]], Awaitable[None]],
        *,
        is_refusal: Callable[[Exception], bool],
        key_of: Callable[[W], str],
        size_of: Callable[[W], int],
        max_in_flight: int = MAX_IN_FLIGHT,
        max_operations: int = MAX_OPERATIONS,
    ) -> None:
        self._transact = transact
        self._is_refusal = is_refusal
        self._key_of = key_of
        self._size_of = size_of
        self._max_in_flight = max_in_flight
        self._max_operations = max_operations
        self._waiting: deque[_Member[W]] = deque()
        self._in_flight = 0
        self._commits = TaskSet()

    async def write(self, writes: Sequence[W]) -> None:
        """Write all or nothing; raises what a separate transaction would."""
        if self._in_flight >= self._max_in_flight:
            member = _Member(writes)
            self._waiting.append(member)
            await member.done
            return
        self._in_flight += 1
        try:
            await self._transact(writes)
        finally:
            self._begin_next()

    def _begin_next(self) -> None:
        """Begin the next transaction in place of one that ended."""
        group = self._next_group()
        if group:
            self._commits.spawn(self._commit(group))
        else:
            self._in_flight -= 1

    def _next_group(self) -> list[_Member[W]]:
        group: list[_Member[W]] = []
        operations = size = 0
        while self._waiting:
            member = self._waiting[0]
            operations += len(member.writes)
            size += sum(map(self._size_of, member.writes))
            if group and (operations > self._max_operations or size > MAX_BYTES):
                break
            self._waiting.popleft()
            if not member.done.done():
                group.append(member)
        # One order in every process, so that two that write the same rows do not deadlock.
        return sorted(group, key=lambda member: self._key_of(member.writes[0]))

    async def _commit(self, group: list[_Member[W]]) -> None:
        try:
            await self._transact([write for member in group for write in member.writes])
        except Exception as error:
            if len(group) > 1 and self._is_refusal(error):
                await asyncio.gather(*(self._commit_separately(member) for member in group))
                return
            for member in group:
                member.end(error)
        else:
            for member in group:
                member.end()
        finally:
            for member in group:
                member.done.cancel()  # at shutdown: its caller would wait forever
            self._begin_next()

    async def _commit_separately(self, member: _Member[W]) -> None:
        try:
            await self._transact(member.writes)
        except Exception as error:
            member.end(error)
        else:
            member.end()
