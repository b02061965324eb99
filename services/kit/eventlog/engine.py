"""Durable work: begun at once by the process that admits it, recovered by any other when that process dies.

A piece of work is a stream of the event log. The row that admits it names its host, so that from that commit on
somebody is responsible: the host, while its lease holds; then recovery, in every replica, each second. What an
engine is needed for (a wait, another app's or language's worker) is up to the kind of work.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol

import structlog

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
"""How many ticks between two looks for streams that this host holds and does not work on."""
BATCH: Final = 50
LOOK_AGAIN_SECONDS: Final = 5.0
MAX_LOOK_AGAIN_SECONDS: Final = 15.0
EXPIRY_GRACE_SECONDS: Final = 10.0
"""How long after its deadline work is left to end itself."""
FAILED_ATTEMPT_WAIT: Final = timedelta(seconds=1)
SETTLE_AGAIN_SECONDS: Final = 5.0

log = structlog.get_logger()


class WorkKind(Protocol):
    """What the engine has to know of one kind of durable work."""

    name: str

    async def run(self, segment: Segment) -> Any:
        """Make one attempt: see the work to its end, or raise. What it returns is told to who awaits the attempt.

        Raises:
            RetryLater: another attempt shall be made.
        """
        ...

    async def recover(self, head: StreamHead) -> bool:
        """Look at a stream that nobody works on; whether an attempt shall be made at it now."""
        ...

    async def settle(self, stream_id: str, owed: Any) -> None:
        """Do what a stream left owed at its end; repeatable."""
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
        self._tasks: set[asyncio.Task[Any]] = set()
        self._suspects: set[str] = set()
        self._nudge = asyncio.Event()
        self._ticking: asyncio.Task[None] | None = None
        self._recovering: asyncio.Task[None] | None = None

    def host(self, kind: WorkKind) -> None:
        """Run, recover and settle this kind of work here."""
        self._kinds[kind.name] = kind

    async def start(self) -> None:
        """Begin to recover, and to hear of cancels."""
        self._ticking = asyncio.create_task(self._tick_for_ever(), name="engine")

    async def close(self, grace: timedelta) -> None:
        """Let what was begun here end for a while, then leave it to another host at once."""
        for task in filter(None, (self._ticking, self._recovering)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace.total_seconds())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- admitting and running ---

    async def admit(self, stream: NewStream, opening: Sequence[NewEvent]) -> Segment | None:
        """Open a stream and begin its first attempt, in one commit; None where the stream exists.

        The caller goes on with `begin`, or with `withdraw` where the work was refused after all.
        """
        self._admitting.add(stream.stream_id)
        try:
            attempt = await self.log.open_begun(stream, opening)
        except BaseException:
            self._admitting.discard(stream.stream_id)  # it may stand; then this host reconciles it
            raise
        if attempt is None:
            self._admitting.discard(stream.stream_id)
            return None
        return Segment(self.log, attempt)

    async def withdraw(self, segment: Segment, *, unused: bool) -> None:
        """Give an admitted stream up: delete it where it is certainly `unused`, else leave it to recovery."""
        try:
            if unused:
                await self.log.discard(segment.stream_id, segment.number)
            else:
                await self.log.release(segment.stream_id, segment.number, FAILED_ATTEMPT_WAIT)
        finally:
            self._admitting.discard(segment.stream_id)

    def begin(self, segment: Segment, work: Work | None = None) -> asyncio.Task[Any]:
        """Work on a stream, in the background; `work` where its maker knows more than its kind does."""
        if segment.stream_id in self._segments:  # an older attempt, which can write nothing more
            self._segments[segment.stream_id][1].cancel()
        run = work or self._kinds[segment.attempt.stream.kind].run
        task = self._spawn(self._drive(segment, run))
        self._segments[segment.stream_id] = segment, task
        self._admitting.discard(segment.stream_id)
        return task

    async def take(self, stream_id: str, work: Work | None = None) -> asyncio.Task[Any] | None:
        """Begin a newer attempt at a stream that nobody writes; None where somebody does, or it is closed."""
        self._admitting.add(stream_id)
        try:
            attempt = await self.log.begin_attempt(stream_id)
            return None if attempt is None else self.begin(Segment(self.log, attempt), work)
        finally:
            self._admitting.discard(stream_id)

    async def cancel(self, stream_id: str) -> bool:
        """Ask the writer of a stream to stop, wherever it is; whether the stream is open."""
        is_open, host = await self.log.request_cancel(stream_id)
        if host == self._lease.host_id:
            self._stop(stream_id)
        elif is_open and host is None:
            self.look_now()
        return is_open

    def look_now(self) -> None:
        """Look for abandoned work now rather than at the next tick."""
        self._nudge.set()

    async def _drive(self, segment: Segment, work: Work) -> Any:
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
        """Whatever fails here is found by `_reconcile`: the host holds a stream that it does not work on."""
        current = self._segments.get(segment.stream_id)
        if current is not None and current[0] is segment:
            del self._segments[segment.stream_id]
        try:
            if not segment.finished:
                await self.log.release(segment.stream_id, segment.number, wait)
            elif segment.owed is not None:
                self._spawn(
                    self._settle(segment.stream_id, segment.attempt.stream.kind, segment.owed)
                )
        except RpcError as error:
            log.warning("work.not_released", stream=segment.stream_id, code=error.code)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _stop(self, stream_id: str) -> None:
        current = self._segments.get(stream_id)
        if current is not None:
            current[0].stop.set()

    # --- each second, one look for the whole process ---

    async def _tick_for_ever(self) -> None:
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
        """Until the next tick, or a cancel here, or a nudge."""
        waits = [asyncio.ensure_future(cancelled.wait()), asyncio.ensure_future(self._nudge.wait())]
        await asyncio.wait(waits, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        cancelled.clear()
        self._nudge.clear()

    async def _tick(self, *, reconcile: bool) -> None:
        await self.log.poll()
        if self._segments:
            for row in await self._database.fetch(sql.CANCELS, self._lease.host_id):
                self._stop(row[0])
        if reconcile:
            await self._reconcile()
        if self._recovering is None or self._recovering.done():
            # Beside the ticks: it may wait for a sidecar that is away, and cancels must not.
            self._recovering = asyncio.create_task(self._recover(), name="recovery")

    async def _reconcile(self) -> None:
        """Release what this host holds and does not work on; stop what it works on and does not hold."""
        rows = await self._database.fetch(sql.HOSTED, self._lease.host_id)
        held = {row[0]: row[1] for row in rows}
        idle = {one for one in held if one not in self._segments and one not in self._admitting}
        lost = {one for one in self._segments if one not in held}
        for stream_id in idle & self._suspects:
            await self.log.release(stream_id, held[stream_id])
        for stream_id in lost & self._suspects & self._segments.keys():
            self._segments[stream_id][1].cancel()  # a model call, say, that is silent for long
        self._suspects = idle | lost
        if self._lease.may_judge:
            await self._database.fetch(sql.ABANDON_HOMELESS)

    async def _recover(self) -> None:
        try:
            if self._lease.may_judge:
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
        again = (LOOK_AGAIN_SECONDS, MAX_LOOK_AGAIN_SECONDS)
        due = await self._database.fetch(sql.CLAIM_DUE, kinds, BATCH, *again)
        await asyncio.gather(*(self._recover_one(StreamHead(*row)) for row in due))
        owed = await self._database.fetch(sql.CLAIM_OWED, kinds, BATCH, SETTLE_AGAIN_SECONDS)
        await asyncio.gather(*(self._settle(row[0], row[1], json.loads(row[2])) for row in owed))
        if len(due) == BATCH:
            self.look_now()

    async def _recover_one(self, head: StreamHead) -> None:
        try:
            if await self._kinds[head.kind].recover(head):
                await self.take(head.stream_id)
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
