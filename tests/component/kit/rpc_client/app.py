"""The called app."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI
from typing_extensions import override

from services.contracts.apps import EDGE
from services.contracts.events import EventType
from services.kit.access.authorization import AccessControl, Caller, CallingApp, DenialAudit
from services.kit.access.cache import AccessCache, AccessChanges, AccessCheck
from services.kit.access.identity import CallerIdentity, TrustedApps
from services.kit.access.limits import RateLimiter, SlidingWindows
from services.kit.contract import Empty
from services.kit.errors import ErrorCode, FieldViolation, RpcError, UpstreamError, code_of
from services.kit.eventlog import EventLog, StoredEvent, migrate_event_log
from services.kit.http.app import create_service
from services.kit.http.dependencies import get_dependency, provide, provided
from services.kit.http.draining import Draining
from services.kit.http.idempotency import IdempotencyRecords
from services.kit.http.rpc import LastEventId, RpcRouter
from services.kit.http.sse import follow_as_sse, to_sse
from services.kit.settings import PlatformSettings, load_settings
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from tests.component.kit.rpc_client.contract import (
    CALLER,
    CLOSED,
    PROBE,
    Denials,
    FailRequest,
    Identity,
    Named,
    NewerIdentity,
    Streams,
    WatchRequest,
)

HEARTBEAT: Final = 0.5
"""Seconds; short, so that the app soon notices a reader that has left."""
rpc: Final = RpcRouter(PROBE)


class Denied(DenialAudit):
    """Keeps denials in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    @override
    async def record(self, caller: CallerIdentity, relation: str, target: str) -> None:
        self.seen.append(f"{caller.user_id} by {caller.app}: {relation}")


class Gates:
    """Events by name, and counters of calls."""

    def __init__(self) -> None:
        self.open: dict[str, asyncio.Event] = {}
        self.calls: Counter[str] = Counter()

    def __getitem__(self, name: str) -> asyncio.Event:
        return self.open.setdefault(name, asyncio.Event())


Log = Annotated[EventLog, Depends(provided(EventLog))]
State = Annotated[Gates, Depends(provided(Gates))]


class NoSource:
    """`AccessSource` of routes without relations."""

    async def check(self, check: AccessCheck) -> bool:
        return False

    async def changes(self, after: int | None) -> AccessChanges:
        return AccessChanges(0, [])


def create_app() -> FastAPI:
    settings = load_settings(PlatformSettings)
    callers = {method.path: (CALLER,) for method in PROBE.methods if method is not CLOSED}
    return create_service(
        "llm",
        settings,
        routers=[rpc],
        lifespan=_opened(settings),
        document=dict,
        trusted=TrustedApps(EDGE.id, callers),
    )


def _opened(settings: PlatformSettings) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(settings.database_url.get_secret_value())
        await migrate_event_log(database)
        wake_ups = WakeUps(settings.valkey_url.get_secret_value())
        wake_ups.start()
        windows = SlidingWindows(settings.valkey_url.get_secret_value())
        limiter = RateLimiter(windows, name="probe", limit=100_000, window=timedelta(minutes=1))
        denied = Denied()
        control = AccessControl(AccessCache(NoSource()), limiter, denied)
        log = EventLog(database, wake_ups)
        provide(app, control, denied, log, IdempotencyRecords(database), Gates())
        rpc_streams.draining = get_dependency(app, Draining)
        yield
        await windows.close()
        await wake_ups.close()
        await database.close()

    return lifespan


class OpenStreams:
    """Counts the app's streams."""

    draining: Draining

    def __init__(self) -> None:
        self.open = self.opened = 0

    async def counted(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.open += 1
        self.opened += 1
        try:
            async for piece in events:
                yield piece
        finally:
            self.open -= 1


rpc_streams: Final = OpenStreams()


@rpc.method
async def who_am_i(request: Empty, caller: Caller, state: State) -> Identity:
    state.calls[caller.user_id] += 1
    return NewerIdentity(
        user_id=caller.user_id,
        email=caller.email,
        scopes=sorted(caller.scopes),
        key_id=caller.key_id,
        app=caller.app,
        counted=state.calls[caller.user_id],
        since=datetime.now(UTC),
        tags=["new"],
    )


@rpc.method
async def admin(request: Empty, _: Caller) -> Empty:
    return Empty()


@rpc.method
async def closed(request: Empty, _: Caller) -> Empty:
    return Empty()


@rpc.method
async def fail(request: FailRequest, _: Caller) -> Empty:
    raise RpcError(
        code_of(request.code),
        "It failed as asked.",
        retry_after=timedelta(seconds=1.5),
        violations=[FieldViolation(field="a.b", description="is wrong")],
        upstream=UpstreamError(status_code=418, body="teapot"),
    )


@rpc.method
async def wait(request: Named, _: CallingApp, state: State) -> Named:
    await state[request.name].wait()
    return request


@rpc.method
async def open_gate(request: Named, _: CallingApp, state: State) -> Empty:
    state[request.name].set()
    return Empty()


@rpc.method
async def count(request: Named, app: CallingApp, state: State) -> Identity:
    state.calls[request.name] += 1
    counted = state.calls[request.name]
    return Identity(user_id=app.user_id, email="", scopes=[], counted=counted)


@rpc.method
async def list_denials(
    request: Empty, _: CallingApp, denied: Annotated[Denied, Depends(provided(Denied))]
) -> Denials:
    return Denials(seen=denied.seen)


@rpc.method
async def list_streams(request: Empty, _: CallingApp) -> Streams:
    return Streams(open=rpc_streams.open, opened=rpc_streams.opened)


@rpc.stream
async def watch(
    request: WatchRequest, _: Caller, last: LastEventId, log: Log
) -> AsyncIterator[bytes] | None:
    after = request.after if last is None else last
    head = await log.head(request.stream_id)
    if head is None:
        raise RpcError(ErrorCode.NOT_FOUND, "No such stream.")
    if head.closed_at is not None and after == head.last_seq:
        return None
    return rpc_streams.counted(
        follow_as_sse(
            log,
            request.stream_id,
            after,
            is_terminal=lambda kind: EventType(kind).is_terminal,
            draining=rpc_streams.draining,
            watch=lambda _: nullcontext(),
            max_seconds=request.rotate_seconds,
            heartbeat=HEARTBEAT,
        )
    )


@rpc.stream
async def break_(request: WatchRequest, _: Caller) -> AsyncIterator[bytes]:
    return _one_event_then_an_error()


async def _one_event_then_an_error() -> AsyncIterator[bytes]:
    event = StoredEvent(1, EventType.TEXT_DELTA, 1, '{"text":"x"}', datetime.now(UTC))
    yield to_sse(event)
    raise RpcError(ErrorCode.QUOTA_EXCEEDED, "No more.", retry_after=timedelta(seconds=3))
