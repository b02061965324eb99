"""`RpcClient` between two apps with real sidecars: identity, errors, time limits, streams over kills."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import pytest

from services.cli.stack import Stack
from services.contracts.events import Event, EventType
from services.kit.access.identity import CallerIdentity
from services.kit.contract import Empty
from services.kit.dapr.client import RpcClient
from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import EventLog, NewEvent, NewStream, migrate_event_log
from services.kit.http.access_log import hash_user
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from tests.component.kit.rpc_client.contract import (
    ADMIN,
    BREAK,
    CALLER,
    CLOSED,
    COUNT,
    FAIL,
    LIST_DENIALS,
    LIST_STREAMS,
    OPEN_GATE,
    READ,
    WAIT,
    WATCH,
    WHO_AM_I,
    FailRequest,
    Named,
    WatchRequest,
)
from tests.requirements import requirement
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

OFFSET: Final = offset_of("rpc client")
TEMPLATE: Final = Path(__file__).parent / "rpc_client" / "dapr.yaml"
ADA: Final = CallerIdentity("ada", "adä@example.com", frozenset({READ, "x:y"}), "key_1")
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The two apps."""
    stack = Stack(tmp_path_factory.mktemp("pair"), port_offset=OFFSET, dapr_yaml=TEMPLATE)
    stack.start(seconds=90)
    yield stack
    stack.stop()


@pytest.fixture
async def client(pair: Stack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RpcClient]:
    """A client of the calling app's sidecar."""
    monkeypatch.setenv("DAPR_HTTP_PORT", pair.url(f"{CALLER}-daprd").rpartition(":")[2])
    monkeypatch.setenv("DAPR_API_TOKEN", pair.api_token(CALLER))
    client = RpcClient()

    async def answers() -> bool:
        try:
            await client.call(LIST_STREAMS, Empty())
        except RpcError:
            return False
        return True

    await wait_until(answers, 60, "the called app", every=0.2)
    yield client
    await client.close()


@pytest.fixture
async def log(pair: Stack) -> AsyncIterator[EventLog]:
    """The event log that the called app reads."""
    database, wake_ups = Database(pair.database_url()), WakeUps(pair.url("valkey"))
    await migrate_event_log(database)
    wake_ups.start()
    yield EventLog(database, wake_ups, "tests")
    await wake_ups.close()
    await database.close()


class Stream:
    """A stream of the event log, written by the test."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.id = uuid.uuid4().hex

    async def begin(self) -> "Stream":
        assert await self._log.open_with_attempt(NewStream(self.id, "test", "ada", "s"), [])
        return self

    async def write(self, count: int) -> None:
        piece = NewEvent(EventType.TEXT_DELTA, {"text": uuid.uuid4().hex})
        await self._log.append(self.id, 1, [piece] * count)

    async def end(self) -> None:
        await self._log.append(self.id, 1, [NewEvent(EventType.RUN_COMPLETED, {}, terminal=True)])


@pytest.fixture
async def stream(log: EventLog) -> Stream:
    return await Stream(log).begin()


def refused(error: RpcError) -> tuple[ErrorCode, str]:
    return ErrorCode(error.code), error.message


@requirement("kit:rpc-client", "kit:identity")
async def test_a_call_on_behalf_of_a_user_arrives_as_that_users(client: RpcClient) -> None:
    found = await client.call(WHO_AM_I, Empty(), on_behalf_of=ADA)
    assert (found.user_id, found.email, found.key_id) == ("ada", ADA.email, "key_1")
    assert found.scopes == sorted(ADA.scopes)
    assert found.app == CALLER


@requirement("kit:rpc-client", "access:trusted-apps")
async def test_a_denial_is_the_users_and_names_the_app(client: RpcClient) -> None:
    with pytest.raises(RpcError) as denied:
        await client.call(ADMIN, Empty(), on_behalf_of=ADA)
    assert denied.value.code is ErrorCode.PERMISSION_DENIED

    async def recorded() -> bool:
        seen = (await client.call(LIST_DENIALS, Empty())).seen
        return f"ada by {CALLER}: scope probe:admin" in seen

    await wait_until(recorded, 10, "the denial in the audit")


@requirement("access:trusted-apps")
async def test_the_access_log_names_the_app_and_hides_the_user(
    client: RpcClient, pair: Stack
) -> None:
    user = CallerIdentity(f"user-{uuid.uuid4().hex}", "", frozenset())
    with pytest.raises(RpcError):
        await client.call(WHO_AM_I, Empty(), on_behalf_of=user)

    def entry() -> dict[str, Any] | None:
        lines = [line for line in pair.log("llm").read_text().splitlines() if line.startswith("{")]
        entries = [json.loads(line) for line in lines]
        return next((each for each in entries if each.get("user") == hash_user(user.user_id)), None)

    found: dict[str, Any] = await wait_until(entry, 10, "the entry of the access log")
    wanted = {"event": "request", "caller": CALLER, "route": WHO_AM_I.path, "status": 403}
    assert {name: found[name] for name in wanted} == wanted
    assert user.user_id not in pair.log("llm").read_text()


@requirement("kit:rpc-client", "kit:identity")
async def test_a_user_is_not_blamed_for_an_app_that_may_not_call(
    client: RpcClient, pair: Stack
) -> None:
    with pytest.raises(RpcError) as unavailable:
        await client.call(CLOSED, Empty(), on_behalf_of=ADA)
    assert unavailable.value.code is ErrorCode.UNAVAILABLE

    def logged() -> bool:
        lines = pair.log("llm").read_text().splitlines()
        return any("access.app_refused" in line and CLOSED.path in line for line in lines)

    await wait_until(logged, 10, "the refusal in the log")


@requirement("kit:rpc-client")
async def test_an_error_arrives_as_it_was(client: RpcClient) -> None:
    with pytest.raises(RpcError) as failed:
        await client.call(FAIL, FailRequest(code="QUOTA_EXCEEDED"), on_behalf_of=ADA)
    error = failed.value
    assert (error.code, error.message) == (ErrorCode.QUOTA_EXCEEDED, "It failed as asked.")
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() == 1.5
    assert [(each.field, each.description) for each in error.violations] == [("a.b", "is wrong")]
    assert error.upstream is not None
    assert (error.upstream.status_code, error.upstream.body) == (418, "teapot")


@requirement("kit:rpc-client", "kit:idempotency")
async def test_a_repeated_key_repeats_the_reply_for_users_and_for_apps(client: RpcClient) -> None:
    key, eve = uuid.uuid4().hex, CallerIdentity("eve", "", frozenset({READ}))
    first, again = [
        await client.call(WHO_AM_I, Empty(), on_behalf_of=eve, idempotency_key=key)
        for _ in range(2)
    ]
    assert first == again
    assert (await client.call(WHO_AM_I, Empty(), on_behalf_of=eve)).counted == first.counted + 1
    named = Named(name=key)
    counted = [(await client.call(COUNT, named, idempotency_key=key)).counted for _ in range(2)]
    assert counted == [1, 1]
    assert (await client.call(COUNT, named)).counted == 2


@requirement("kit:rpc-client")
async def test_the_contracts_time_limit_holds_and_can_be_shortened(client: RpcClient) -> None:
    gate = Named(name=uuid.uuid4().hex)
    waiting = asyncio.create_task(client.call(WAIT, gate))
    with pytest.raises(RpcError) as late:
        await client.call(WAIT, gate, timeout=0.5)
    assert late.value.code is ErrorCode.UNAVAILABLE
    ended, _ = await asyncio.wait([waiting], timeout=11)  # longer than a limit of 10 s
    assert not ended
    await client.call(OPEN_GATE, gate)
    assert await waiting == gate


@requirement("kit:rpc-client")
async def test_streams_do_not_use_the_connections_of_calls(
    client: RpcClient, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.kit.dapr.client.MAX_CONNECTIONS", 1)
    small = RpcClient()
    await stream.write(1)
    request = WatchRequest(stream_id=stream.id)
    readers = [small.stream(WATCH, request, on_behalf_of=ADA) for _ in range(4)]
    assert [(await anext(reader)).seq for reader in readers] == [1, 1, 1, 1]
    await small.call(LIST_STREAMS, Empty(), timeout=10)
    for reader in readers:
        await reader.aclose()
    await small.close()


@requirement("kit:rpc-client")
@pytest.mark.parametrize("victim", ["llm", "llm-daprd", f"{CALLER}-daprd"])
async def test_a_stream_is_resumed_after_a_kill_without_a_repeat_or_a_gap(
    client: RpcClient, pair: Stack, stream: Stream, victim: str
) -> None:
    await stream.write(3)
    request = WatchRequest(stream_id=stream.id)
    read: list[Event] = []
    async with aclosing(client.stream(WATCH, request, on_behalf_of=ADA)) as events:
        read += [await anext(events) for _ in range(2)]
        pid = pair.kill(victim)
        pair.wait_exited(victim, pid)
        await stream.write(2)
        read += [await anext(events) for _ in range(3)]
        await stream.write(1)
        await stream.end()
        read += [event async for event in events]
    whole = [event async for event in client.stream(WATCH, request, on_behalf_of=ADA)]
    assert [event.to_json() for event in read] == [event.to_json() for event in whole]
    assert [event.seq for event in read] == [1, 2, 3, 4, 5, 6, 7]
    assert read[-1].is_terminal
    pair.wait_ready(victim)


@requirement("kit:rpc-client")
async def test_reconnects_are_followed_and_a_reader_of_the_end_gets_nothing(
    client: RpcClient, stream: Stream
) -> None:
    request = WatchRequest(stream_id=stream.id, rotate_seconds=0.2)
    before = (await client.call(LIST_STREAMS, Empty())).opened
    read: list[int] = []
    async with aclosing(client.stream(WATCH, request, on_behalf_of=ADA)) as events:
        for number in range(4):
            await stream.write(1)
            read.append((await anext(events)).seq)

            async def rotated(wanted: int = before + number + 2) -> bool:
                return (await client.call(LIST_STREAMS, Empty())).opened >= wanted

            following = asyncio.ensure_future(anext(events))
            await wait_until(rotated, 20, "another connection")
            await stream.write(1)
            read.append((await following).seq)
        await stream.end()
        read += [event.seq async for event in events]
    assert read == list(range(1, 10))
    late = client.stream(WATCH, request, on_behalf_of=ADA, after=9)
    assert [event async for event in late] == []
    late = client.stream(WATCH, request, on_behalf_of=ADA, after=7)
    assert [event.seq async for event in late] == [8, 9]


@requirement("kit:rpc-client")
async def test_an_error_before_or_within_a_stream_is_raised(client: RpcClient) -> None:
    missing = WatchRequest(stream_id="missing")
    with pytest.raises(RpcError) as absent:
        await anext(client.stream(WATCH, missing, on_behalf_of=ADA))
    assert refused(absent.value) == (ErrorCode.NOT_FOUND, "No such stream.")
    broken = client.stream(BREAK, missing, on_behalf_of=ADA)
    assert (await anext(broken)).seq == 1
    with pytest.raises(RpcError) as ended:
        await anext(broken)
    assert refused(ended.value) == (ErrorCode.QUOTA_EXCEEDED, "No more.")
    assert ended.value.retry_after is not None


@requirement("kit:rpc-client")
async def test_closing_a_stream_disconnects_from_the_app(client: RpcClient, stream: Stream) -> None:
    await stream.write(1)
    request = WatchRequest(stream_id=stream.id)

    async def open_streams() -> int:
        return (await client.call(LIST_STREAMS, Empty())).open

    async def none_is_open() -> bool:
        return await open_streams() == 0

    await wait_until(none_is_open, 20, "earlier streams to end")
    async with aclosing(client.stream(WATCH, request, on_behalf_of=ADA)) as events:
        await anext(events)
        assert await open_streams() == 1
    await wait_until(none_is_open, 20, "the app to notice the disconnect")


@requirement("kit:rpc-client")
async def test_an_app_that_does_not_run_is_unavailable(client: RpcClient, pair: Stack) -> None:
    pair.halt("llm")
    try:
        with pytest.raises(RpcError) as away:
            await client.call(WHO_AM_I, Empty(), on_behalf_of=ADA)
        assert away.value.code is ErrorCode.UNAVAILABLE
        with pytest.raises(RpcError) as away:
            await anext(client.stream(WATCH, WatchRequest(stream_id="x"), on_behalf_of=ADA))
        assert away.value.code is ErrorCode.UNAVAILABLE
    finally:
        pair.restart("llm")
