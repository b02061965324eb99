"""The jobs of an app: their handlers, their registration, one-shot schedules, and the route of deliveries."""

import asyncio
import functools
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import pydantic
import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from services.kit.access.identity import refuse_invocation
from services.kit.contract import Empty, Message, rfc3339
from services.kit.dapr.deliveries import MAX_WAIT
from services.kit.dapr.jobs.runs import DueRun, Handler, JobRun, JobRuns
from services.kit.dapr.jobs.scheduler import Scheduler
from services.kit.dapr.sidecar import SidecarError
from services.kit.errors import ErrorCode, RpcError, unavailable
from services.kit.http.dependencies import get_dependency
from services.kit.http.draining import Draining
from services.kit.jobs import AnyJob, CronJob, OneShotJob
from services.kit.storage.db import Database

P = TypeVar("P", bound=Message)

PATH: Final = "/job/{name}"
MAX_PAYLOAD_BYTES: Final = 16 * 1024
"""Larger data is passed by reference."""
RETRY_SECONDS: Final = 5.0
"""How long a delivery that has to be repeated is held: the scheduler repeats one that is overdue at once."""
REGISTER_SECONDS: Final = 300.0
"""How often the registration is checked, for a scheduler that has lost its data."""
KEPT_DAYS: Final = 30
"""How long the run of a key of a one-shot job is remembered."""

_KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")

# $1 app, $2 cron jobs
REGISTER: Final = """
    INSERT INTO events.jobs (app, name) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING
"""
REMOVED: Final = """
    SELECT name FROM events.jobs WHERE app = $1 AND position(':' IN name) = 0 AND name <> ALL($2::text[])
"""
FORGET: Final = "DELETE FROM events.jobs WHERE app = $1 AND name = $2"
# $1 app, $2 days
PURGE: Final = """
    DELETE FROM events.jobs
    WHERE app = $1 AND position(':' IN name) > 0 AND at < now() - make_interval(days => $2)
"""

log = structlog.get_logger()


class _Scheduled(pydantic.BaseModel):
    """What the scheduler keeps for a key of a one-shot job."""

    due: pydantic.AwareDatetime
    payload: dict[str, Any]


class Jobs:
    """The jobs in an app's manifest."""

    def __init__(
        self, app_id: str, jobs: Iterable[AnyJob], database: Database, scheduler: Scheduler
    ) -> None:
        self._app_id = app_id
        self._jobs: dict[str, AnyJob] = {job.name: job for job in jobs}
        self._database = database
        self._scheduler = scheduler
        self._runs = JobRuns(app_id, database)
        self._handlers: dict[str, Handler] = {}

    def add(
        self, job: CronJob | OneShotJob[P], handler: Callable[[JobRun[P]], Awaitable[None]]
    ) -> None:
        """Handle a job. What the handler does outside `run.complete()` must be repeatable.

        A retryable error, a bug or the time limit repeats the run, after about 5 s; any other error gives it up.
        """
        if job is not self._jobs.get(job.name) or job.name in self._handlers:
            raise TypeError(f"{job.name} is not in `jobs` of the manifest, or has two handlers")
        self._handlers[job.name] = handler

    def require_handlers(self) -> None:
        """RuntimeError for a declared job without a handler."""
        if missing := self._jobs.keys() - self._handlers.keys():
            raise RuntimeError(f"{self._app_id}: no handler for the jobs {sorted(missing)}")

    async def schedule(
        self, job: OneShotJob[P], key: str, due: datetime, payload: P, *, replace: bool = False
    ) -> None:
        """Run a job at a time, or at once if it has passed. Safe to repeat: the same call runs the job once.

        Raises:
            RpcError: ALREADY_EXISTS if the key waits for another time or with another payload, unless `replace`;
                INVALID_ARGUMENT, PAYLOAD_TOO_LARGE; UNAVAILABLE, with unknown outcome.
        """
        name = self._name(job, key)
        if not isinstance(payload, job.payload):
            raise RpcError.invalid("payload", f"must be {job.payload.__name__}")
        if due.tzinfo is None:
            raise RpcError.invalid("due", "must have a time zone")
        data = _encode(due, payload)
        if len(data) > MAX_PAYLOAD_BYTES:
            raise RpcError(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"The payload has {len(data)} bytes; {MAX_PAYLOAD_BYTES} are allowed: pass a reference.",
            )
        try:
            added = await self._scheduler.add(name, due, data, replace=replace)
        except SidecarError as error:
            raise unavailable() from error
        if not added:
            raise RpcError(ErrorCode.ALREADY_EXISTS, f"{job.name} is scheduled for {key}.")

    async def cancel(self, job: OneShotJob[Any], key: str) -> None:
        """Remove a schedule that has not begun to run; a missing one is no error.

        Raises:
            RpcError: INVALID_ARGUMENT; UNAVAILABLE, with unknown outcome.
        """
        name = self._name(job, key)
        try:
            await self._scheduler.remove(name)
        except SidecarError as error:
            raise unavailable() from error

    async def keep_registered(self) -> None:
        """Register the jobs, as soon as the scheduler answers, and again every `REGISTER_SECONDS`."""
        while True:
            try:
                await self.register()
                pause = REGISTER_SECONDS
            except (RpcError, SidecarError) as error:
                log.warning("jobs.not_registered", error=str(error))
                pause = RETRY_SECONDS
            except Exception:
                log.exception("jobs.not_registered")
                pause = REGISTER_SECONDS
            await asyncio.sleep(pause)

    async def register(self) -> None:
        """Make the scheduler's cron jobs those of the manifest, and forget old runs of one-shot jobs."""
        cron = [job for job in self._jobs.values() if isinstance(job, CronJob)]
        names = [job.name for job in cron]
        await self._database.fetch(REGISTER, self._app_id, names)
        for job in cron:
            await self._scheduler.keep_cron(job.name, job.schedule)
        for row in await self._database.fetch(REMOVED, self._app_id, names):
            await self._scheduler.remove(row["name"])
            await self._database.fetch(FORGET, self._app_id, row["name"])
            log.info("jobs.removed", job=row["name"])
        await self._database.fetch(PURGE, self._app_id, KEPT_DAYS)

    async def deliver(self, name: str, body: bytes) -> bool:
        """Do the run that the scheduler asks for; False if it has to ask again.

        A job that another release declares is left to its replicas, until its one-shot runs are a day late.
        """
        job = self._jobs.get(name.partition(":")[0])
        if isinstance(job, CronJob) and ":" not in name:
            decide = functools.partial(_decide_cron, job)
        elif isinstance(job, OneShotJob) and ":" in name:
            decide = functools.partial(_decide_one_shot, job, name, body)
        else:
            log.warning("job.unknown", job=name)
            return _is_stale(body)
        return await self._runs.run(name, decide, self._handlers[job.name], job.seconds)

    def _name(self, job: OneShotJob[Any], key: str) -> str:
        if job is not self._jobs.get(job.name):
            raise TypeError(f"{job.name} is not in `jobs` of the manifest")
        if not _KEY.fullmatch(key):
            raise RpcError.invalid("key", f"must match {_KEY.pattern}")
        return f"{job.name}:{key}"


def route_jobs(app: FastAPI) -> None:
    """Add the route by which the sidecar delivers jobs."""
    app.add_api_route(PATH, _receive, methods=["POST"], include_in_schema=False)


async def _receive(request: Request) -> Response:
    """Answer 200 when the run is done or given up, else 503: daprd takes 404 as done."""
    refuse_invocation(request, "Jobs are delivered by the scheduler only.")
    jobs, body = get_dependency(request.app, Jobs), await request.body()
    try:
        is_done = await jobs.deliver(request.path_params["name"], body)
    except RpcError as error:
        log.warning("job.failed", job=request.path_params["name"], code=error.code)
        is_done = False
    if is_done:
        return JSONResponse({})
    await _hold(get_dependency(request.app, Draining))
    raise unavailable()


async def _hold(draining: Draining) -> None:
    """Wait `RETRY_SECONDS`, or until the process is to stop."""
    begun = asyncio.Event()
    with draining.on_begin(begun.set), suppress(TimeoutError):
        async with asyncio.timeout(RETRY_SECONDS):
            await begun.wait()


def _decide_cron(job: CronJob, now: datetime, last_run: str | None) -> DueRun[Empty] | None:
    last = datetime.fromisoformat(last_run) if last_run else None
    due = job.due.due(now, last)
    return DueRun(due.astimezone(UTC).isoformat(), due, Empty()) if due else None


def _decide_one_shot(
    job: OneShotJob[Any], name: str, body: bytes, now: datetime, last_run: str | None
) -> DueRun[Any] | None:
    del now
    run = hashlib.sha256(body).hexdigest()[:32]
    if run == last_run:
        return None
    try:
        scheduled = _Scheduled.model_validate_json(body)
        payload = job.payload.model_validate(scheduled.payload, extra="ignore")
    except pydantic.ValidationError:
        log.error("job.malformed", job=name)
        return None
    return DueRun(run, scheduled.due, payload)


def _encode(due: datetime, payload: Message) -> bytes:
    content = payload.model_dump_json(by_alias=True, exclude_none=True)
    return f'{{"due":"{rfc3339(due)}","payload":{content}}}'.encode()


def _is_stale(body: bytes) -> bool:
    try:
        return datetime.now(UTC) - _Scheduled.model_validate_json(body).due > MAX_WAIT
    except pydantic.ValidationError:
        return False
