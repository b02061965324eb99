"""Durable work: begun by the process that admits it, recovered by another when that process dies.

Each piece of work is a stream of the event log whose row names its host. The host is responsible while its lease holds;
after that, every replica looks for abandoned work each second.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol

import structlog

from services.kit.background import TaskSet
from services.kit.errors import RpcError
from services.kit.eventlog import statements as sql
from services.kit.eventlog.host import FROZEN_SECONDS, LEASE_SECONDS, HostLease
from services.kit.eventlog.log import EventLog, control_channel
from services.kit.eventlog.records import NewEvent, NewStream, StaleAttempt, StreamHead
from services.kit.eventlog.segment import RetryLater, Segment
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps

TICK_SECONDS: Final = 1.0
RECONCILE_TICKS: Final = 3
"""Ticks between two comparisons of the streams held in the table with the segments running here."""
BATCH: Final = 50
RECOVERY_RETRY_SECONDS: Final = 5.0
MAX_RECOVERY_RETRY_SECONDS: Final = 15.0
EXPIRY_GRACE_SECONDS: Final = 10.0
"""How long after its deadline a host may still end its work before it is taken from it."""
FAILED_ATTEMPT_WAIT: Final = timedelta(seconds=1)
SETTLE_RETRY_SECONDS: Final = 5.0

log = structlog.get_logger()


class WorkKind(Protocol):
    """Port to one kind of durable work."""

    name: str

    async def run(self, segment: Segment) -> Any:
        """Make one attempt: finish the work, or raise. The result is that of the attempt's task.

        Raises:
            RetryLater: another attempt is needed.
        """
        ...

    async def recover(self, head: StreamHead) -> bool:
        """Whether the engine shall make an attempt at an abandoned stream now."""
        ...

    async def settle(self, stream_id: str, owed: Any) -> None:
        """Do the effect that a finished stream still owes; idempotent."""
        ...


Work = Callable[[Segment], Awaitable[Any]]


class Engine:
    """Runs durable work in this process."""

    def __init__(
        self, database: Database, log: EventLog, wake_ups: WakeUps, lease: HostLease
    ) -> None:
        self.log = log
        self._database = database
        self._wake_ups = wake_ups
        self._lease = lease
        self._kinds: dict[str, WorkKind] = {}
        self._admitting: set[str] = set()
        self._segments: dict[str, tuple[Segment, asyncio.Task[Any]]] = {}
        self._tasks = TaskSet()
        self._mismatched: set[str] = set()
        self._recovery_wanted = asyncio.Event()
        self._ticking: asyncio.Task[None] | None = None
        self._recovering: asyncio.Task[None] | None = None

    def host(self, kind: WorkKind) -> None:
        """Run, recover and settle this kind of work in this process."""
        self._kinds[kind.name] = kind

    async def start(self) -> None:
        """Begin recovery and cancellation."""
        self._ticking = asyncio.create_task(self._tick_forever(), name="engine")

    async def close(self, grace: timedelta) -> None:
        """Wait for running segments, then cancel them and release their streams to other hosts."""
        for task in filter(None, (self._ticking, self._recovering)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._tasks.close(grace.total_seconds())

    async def admit(self, stream: NewStream, opening: Sequence[NewEvent]) -> Segment | None:
        """Open a stream and begin its first attempt, in one commit; None if the stream exists.

        The caller continues with `begin`, or with `withdraw` if the work is refused afterwards.
        """
        self._admitting.add(stream.stream_id)
        try:
            attempt = await self.log.open_with_attempt(stream, opening)
        except BaseException:
            self._admitting.discard(
                stream.stream_id
            )  # if it was committed, `_reconcile` releases it
            raise
        if attempt is None:
            self._admitting.discard(stream.stream_id)
            return None
        return Segment(self.log, attempt)

    async def withdraw(self, segment: Segment, *, unused: bool) -> None:
        """Delete an admitted stream if it is certainly `unused`, else release it for recovery."""
        try:
            if unused:
                await self.log.discard(segment.stream_id, segment.number)
            else:
                await self.log.release(segment.stream_id, segment.number, FAILED_ATTEMPT_WAIT)
        finally:
            self._admitting.discard(segment.stream_id)

    def begin(self, segment: Segment, work: Work | None = None) -> asyncio.Task[Any]:
        """Run a segment in the background, by `work` instead of its kind's `run` if given."""
        if segment.stream_id in self._segments:  # an older attempt, already fenced off
            self._segments[segment.stream_id][1].cancel()
        run = work or self._kinds[segment.attempt.stream.kind].run
        task = self._tasks.spawn(self._run(segment, run))
        self._segments[segment.stream_id] = segment, task
        self._admitting.discard(segment.stream_id)
        return task

    async def take_over(self, stream_id: str, work: Work | None = None) -> asyncio.Task[Any] | None:
        """Begin a newer attempt at an abandoned stream; None if it has a host or is closed."""
        self._admitting.add(stream_id)
        try:
            attempt = await self.log.begin_attempt(stream_id)
            return None if attempt is None else self.begin(Segment(self.log, attempt), work)
        finally:
            self._admitting.discard(stream_id)

    async def cancel(self, stream_id: str) -> bool:
        """Request cancellation of a stream in whatever process; returns whether it is open."""
        is_open, host = await self.log.request_cancel(stream_id)
        if host == self._lease.host_id:
            self._stop(stream_id)
        elif is_open and host is None:
            self.recover_now()
        return is_open

    def recover_now(self) -> None:
        """Look for abandoned work now, not at the next tick."""
        self._recovery_wanted.set()

    async def _run(self, segment: Segment, work: Work) -> Any:
        wait = FAILED_ATTEMPT_WAIT * min(segment.number, 10)
        try:
            return await work(segment)
        except StaleAttempt:
            return None
        except RetryLater as later:
            wait = later.after
        except asyncio.CancelledError:
            wait = timedelta()
            raise
        except RpcError as error:
            log.warning("work.attempt_failed", stream=segment.stream_id, code=error.code)
        except Exception:
            log.warning("work.attempt_failed", stream=segment.stream_id, exc_info=True)
        finally:
            await self._end(segment, wait)
        return None

    async def _end(self, segment: Segment, wait: timedelta) -> None:
        """Release an unfinished stream or settle a finished one; on failure `_reconcile` releases it later."""
        current = self._segments.get(segment.stream_id)
        if current is not None and current[0] is segment:
            del self._segments[segment.stream_id]
        try:
            if not segment.finished:
                await self.log.release(segment.stream_id, segment.number, wait)
            elif segment.owed is not None:
                self._tasks.spawn(
                    self._settle(segment.stream_id, segment.attempt.stream.kind, segment.owed)
                )
        except RpcError as error:
            log.warning("work.not_released", stream=segment.stream_id, code=error.code)

    def _stop(self, stream_id: str) -> None:
        current = self._segments.get(stream_id)
        if current is not None:
            current[0].stop.set()

    async def _tick_forever(self) -> None:
        async with self._wake_ups.listen(control_channel(self._lease.host_id)) as cancelled:
            ticks = 0
            while True:
                ticks += 1
                try:
                    await self._tick(reconcile=ticks % RECONCILE_TICKS == 0)
                except RpcError as error:
                    log.warning("engine.tick_failed", code=error.code)
                except Exception:
                    log.warning("engine.tick_failed", exc_info=True)
                await self._pause(cancelled)

    async def _pause(self, cancelled: asyncio.Event) -> None:
        """Wait for the next tick, a cancel request or `recover_now`."""
        waits = [
            asyncio.ensure_future(cancelled.wait()),
            asyncio.ensure_future(self._recovery_wanted.wait()),
        ]
        await asyncio.wait(waits, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        cancelled.clear()
        self._recovery_wanted.clear()

    async def _tick(self, *, reconcile: bool) -> None:
        await self.log.poll()
        if self._segments:
            for row in await self._database.fetch(sql.CANCELS, self._lease.host_id):
                self._stop(row[0])
        if reconcile:
            await self._reconcile()
        if self._recovering is None or self._recovering.done():
            # A separate task: it may wait for an unavailable sidecar, and must not delay cancels.
            self._recovering = asyncio.create_task(self._recover(), name="recovery")

    async def _reconcile(self) -> None:
        """Release streams held here without a segment, and cancel segments whose stream is not held; after two looks."""
        rows = await self._database.fetch(sql.HOSTED, self._lease.host_id)
        held = {row[0]: row[1] for row in rows}
        idle = {one for one in held if one not in self._segments and one not in self._admitting}
        lost = {one for one in self._segments if one not in held}
        for stream_id in idle & self._mismatched:
            await self.log.release(stream_id, held[stream_id])
        for stream_id in lost & self._mismatched & self._segments.keys():
            self._segments[stream_id][1].cancel()  # it may not write, and so not notice, for long
        self._mismatched = idle | lost
        if self._lease.is_stable:
            await self._database.fetch(sql.ABANDON_WITHOUT_HOST_ROW)

    async def _recover(self) -> None:
        try:
            if self._lease.is_stable:
                await self._abandon_dead()
            if self._kinds:
                await self._recover_due(list(self._kinds))
        except RpcError as error:
            log.warning("engine.recovery_failed", code=error.code)
        except Exception:
            log.warning("engine.recovery_failed", exc_info=True)

    async def _abandon_dead(self) -> None:
        dead = await self._database.fetch(
            sql.DEAD_HOSTS, self._lease.host_id, LEASE_SECONDS, FROZEN_SECONDS
        )
        if dead:
            await self._database.fetch(sql.ABANDON, [row[0] for row in dead])
        await self._database.fetch(sql.EXPIRE, EXPIRY_GRACE_SECONDS)

    async def _recover_due(self, kinds: list[str]) -> None:
        retry = (RECOVERY_RETRY_SECONDS, MAX_RECOVERY_RETRY_SECONDS)
        due = await self._database.fetch(sql.CLAIM_DUE, kinds, BATCH, *retry)
        await asyncio.gather(*(self._recover_one(StreamHead(*row)) for row in due))
        owed = await self._database.fetch(sql.CLAIM_OWED, kinds, BATCH, SETTLE_RETRY_SECONDS)
        await asyncio.gather(*(self._settle(row[0], row[1], json.loads(row[2])) for row in owed))
        if len(due) == BATCH:
            self.recover_now()

    async def _recover_one(self, head: StreamHead) -> None:
        try:
            if await self._kinds[head.kind].recover(head):
                await self.take_over(head.stream_id)
        except RpcError as error:
            log.warning("work.recovery_postponed", stream=head.stream_id, code=error.code)
        except Exception:
            log.warning("work.recovery_failed", stream=head.stream_id, exc_info=True)

    async def _settle(self, stream_id: str, kind: str, owed: Any) -> None:
        try:
            await self._kinds[kind].settle(stream_id, owed)
            await self._database.fetch(sql.SETTLE, stream_id)
        except RpcError as error:
            log.warning("work.not_settled", stream=stream_id, code=error.code)
        except Exception:
            log.warning("work.not_settled", stream=stream_id, exc_info=True)
