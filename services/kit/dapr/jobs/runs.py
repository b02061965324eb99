"""Runs of jobs: once per due time, in one replica at a time, whatever the scheduler repeats.

A run holds a lease, which is renewed until its handler ends. A process that dies leaves it for `LEASE_SECONDS`.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from services.kit.background import background, every
from services.kit.dapr.deliveries import attempts_if_given_up
from services.kit.errors import ErrorCode, RpcError
from services.kit.failpoints import failpoint
from services.kit.storage.db import Database, Transaction

P = TypeVar("P")

LEASE_SECONDS: Final = 8.0
RENEWAL_SECONDS: Final = 2.5

# $1 app, $2 name
READ: Final = """
    WITH added AS (INSERT INTO events.jobs (app, name) VALUES ($1, $2) ON CONFLICT DO NOTHING)
    SELECT now() AS at, (SELECT last_run FROM events.jobs WHERE app = $1 AND name = $2) AS last_run
"""
# $1 app, $2 name, $3 owner, $4 the run that was the last one, $5 seconds
CLAIM: Final = """
    UPDATE events.jobs SET owner = $3, lease_until = now() + make_interval(secs => $5::double precision)
    WHERE app = $1 AND name = $2 AND last_run IS NOT DISTINCT FROM $4
        AND (owner IS NULL OR lease_until < now())
    RETURNING 1
"""
# $1 app, $2 name, $3 owner, $4 seconds
RENEW: Final = """
    UPDATE events.jobs SET lease_until = now() + make_interval(secs => $4::double precision)
    WHERE app = $1 AND name = $2 AND owner = $3
"""
_COMPLETE: Final = """
    UPDATE events.jobs
    SET last_run = {run}, owner = NULL, lease_until = NULL, attempts = 0, error = {error}, at = now()
    WHERE app = {app} AND name = {name} AND owner = {owner} RETURNING 1
"""
COMPLETE: Final = _COMPLETE.format(app="$1", name="$2", owner="$3", run="$4", error="$5")
COMPLETE_WITH: Final = _COMPLETE.format(
    app=":app", name=":name", owner=":owner", run=":run", error="NULL"
)
# $1 app, $2 name, $3 owner, $4 error
RELEASE: Final = """
    UPDATE events.jobs SET owner = NULL, lease_until = NULL, error = $4
    WHERE app = $1 AND name = $2 AND owner = $3
"""
# $1 app, $2 name, $3 owner
COUNT_FAILURE: Final = """
    UPDATE events.jobs SET attempts = attempts + 1
    WHERE app = $1 AND name = $2 AND owner = $3 RETURNING attempts
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DueRun(Generic[P]):
    """What a delivery asks for: `id` is equal for every delivery of it."""

    id: str
    due: datetime
    payload: P


class Decide(Protocol):
    """The run that a delivery asks for, or None if it was done."""

    def __call__(self, now: datetime, last_run: str | None, /) -> DueRun[Any] | None: ...


@dataclass(slots=True)
class JobRun(Generic[P]):
    """A run, for its handler."""

    id: str
    """Equal when the run is repeated, so effects outside the database can be made idempotent by it."""
    due: datetime
    """For `@every`, when the run began."""
    payload: P
    _complete: Callable[[Transaction], Awaitable[None]] = field(repr=False)
    _database: Database = field(repr=False)
    is_complete: bool = False

    @asynccontextmanager
    async def complete(self) -> AsyncIterator[Transaction]:
        """The transaction that records the run: its changes happen exactly once per run.

        Raises:
            RpcError: ABORTED, and nothing is committed, if the lease was lost; UNAVAILABLE.
        """
        async with self._database.transaction() as transaction:
            yield transaction
            await self._complete(transaction)
            await failpoint("jobs.before_commit")
        self.is_complete = True


Handler = Callable[[JobRun[Any]], Awaitable[None]]


class JobRuns:
    """The runs of one app's jobs. A failed run is logged, and repeated when the scheduler delivers it again."""

    def __init__(self, app_id: str, database: Database) -> None:
        self._app_id = app_id
        self._database = database

    async def run(self, name: str, decide: Decide, handler: Handler, seconds: float) -> bool:
        """Do the run that a delivery asks for; False if the scheduler has to repeat the delivery.

        Raises:
            RpcError: UNAVAILABLE while the database is away.
        """
        found = await self._database.fetch_one(READ, self._app_id, name)
        due = decide(found["at"], found["last_run"])
        if due is None:
            return True
        lease = _Lease(self._database, self._app_id, name, due)
        if not await lease.claim(found["last_run"]):
            log.info("job.is_running", job=name)
            return False
        await failpoint("jobs.before_handler")
        try:
            async with background(every(RENEWAL_SECONDS, lease.renew, "job lease")):
                await self._handle(lease, handler, seconds)
        except Exception as error:
            return await _failed(lease, error, age=found["at"] - due.due)
        except BaseException:  # the process stops: another one may begin at once
            await lease.release("cancelled")
            raise
        await failpoint("jobs.after_commit")
        return True

    async def _handle(self, lease: "_Lease", handler: Handler, seconds: float) -> None:
        due = lease.due
        run = JobRun(due.id, due.due, due.payload, lease.complete_with, self._database)
        async with asyncio.timeout(seconds):
            await handler(run)
        if not run.is_complete:
            await failpoint("jobs.before_commit")
            await lease.complete()


@dataclass(slots=True)
class _Lease:
    """The right to do a run."""

    database: Database
    app_id: str
    name: str
    due: DueRun[Any]
    owner: uuid.UUID = field(default_factory=uuid.uuid4)

    async def claim(self, last_run: str | None) -> bool:
        """Take the lease; False if another process has it, or has done a run meanwhile."""
        arguments = (self.app_id, self.name, self.owner, last_run, LEASE_SECONDS)
        return await self.database.fetch_one(CLAIM, *arguments) is not None

    async def renew(self) -> None:
        await self.database.fetch(RENEW, self.app_id, self.name, self.owner, LEASE_SECONDS)

    async def complete(self, error: str | None = None) -> None:
        """Record the run. ABORTED if the lease was lost."""
        arguments = (self.app_id, self.name, self.owner, self.due.id, error)
        if await self.database.fetch_one(COMPLETE, *arguments) is None:
            raise _lost()

    async def complete_with(self, transaction: Transaction) -> None:
        from sqlalchemy import text

        values = {"app": self.app_id, "name": self.name, "owner": self.owner, "run": self.due.id}
        recorded = await transaction.execute(text(COMPLETE_WITH), values)
        if recorded.first() is None:
            raise _lost()

    async def release(self, error: str) -> None:
        """Give the lease back, so that the run is repeated."""
        await self.database.fetch(RELEASE, self.app_id, self.name, self.owner, error)

    async def count_failure(self) -> int:
        """How often the run has failed; 0 if the lease was lost."""
        row = await self.database.fetch_one(COUNT_FAILURE, self.app_id, self.name, self.owner)
        return row[0] if row else 0


async def _failed(lease: _Lease, error: Exception, *, age: timedelta) -> bool:
    """Give the run back, or give it up; whether it was given up."""
    code = error.code if isinstance(error, RpcError) else type(error).__name__
    names = {"job": lease.name, "run": lease.due.id, "code": code}
    if await attempts_if_given_up(error, age=age, count_failure=lease.count_failure) is None:
        log.warning("job.failed", **names, exc_info=error)
        await lease.release(code)
        return False
    log.error("job.given_up", **names, exc_info=error)
    await lease.complete(code)
    return True


def _lost() -> RpcError:
    return RpcError(ErrorCode.ABORTED, "The run took too long to renew its lease.")
