"""Streams: resume, cursors, long poll, heartbeat, and clients that do not read."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import aiohttp
import psutil
import pytest

from services.kit.eventlog import EventLog, NewEvent, NewStream
from tests.e2e.actions import ask, events_of, live_turn, missing, prompt, user_of
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.sse import SseParser
from tests.support.wait import wait_until

pytestmark = pytest.mark.usefixtures("own_platform")  # the model is scripted

HEARTBEAT_SECONDS = 15
STALLED_READERS = (10, 40)
"""How many stall before the first and before the second look at memory."""
STALLED_KIB = {"edge": 256, "edge-daprd": 6 * 1024, "llm": 8 * 1024, "llm-daprd": 8 * 1024}
"""Bound of what one more stalled reader costs each process; daprd's HTTP/2 client asks its app for 4 MiB ahead."""
LONG_STREAM_BYTES = 20 * 1024 * 1024


async def a_turn(client: Client, conversation: str, text: str = "hello there") -> dict[str, str]:
    """A turn that has ended."""
    sent = await client.must("SendMessage", conversationId=conversation, text=text)
    return {"conversationId": conversation, "turnId": sent["turn"]["turnId"]}


@requirement("events:resume", "events:gap-free")
async def test_a_stream_resumed_after_each_event_has_the_same_bytes(
    alice: Client, conversation: str
) -> None:
    said = prompt(tokens=12, delay_ms=50, unicode=True)
    live = await ask(alice, conversation, said.text)
    ref = {"conversationId": conversation, "turnId": live.events[0]["data"]["turnId"]}
    for after in range(live.seq):
        resumed = alice.reader("StreamEvents", {**ref, "after": after}, get=after % 2 == 1)
        resumed.fold.seq = after
        assert (await resumed.run()).raw == live.raw[after:]


@requirement("events:resume")
async def test_events_are_the_same_as_a_stream_and_as_a_list(
    alice: Client, conversation: str
) -> None:
    ref = await a_turn(alice, conversation)
    streamed = await events_of(alice, ref)
    listed = await alice.must("ListEvents", **ref)
    assert listed == {"events": streamed.events, "closed": True}


@requirement("events:resume")
async def test_a_stream_cut_during_generation_resumes_live(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"cut-{conversation}"
    said = prompt(tokens=8, gate=gate, gate_after=4)
    async with live_turn(alice, conversation, said, until_text=True) as turn:
        await own_platform.wait_held(gate)
    await own_platform.release_gate(gate)
    fold = await turn.stream.run()
    assert fold.text == "".join(f"token{number} " for number in range(8))
    assert turn.stream.connections == 2
    assert (await events_of(alice, turn.ref)).raw == fold.raw


@requirement("events:resume")
async def test_a_stream_accepts_its_fields_in_the_query(alice: Client, conversation: str) -> None:
    body = {"conversationId": conversation, "text": "by query", "temperature": "0.5"}
    fold = await alice.reader("StreamMessage", body, get=True).run()
    assert fold.text == "You said: by query"
    again = {"conversationId": conversation, "turnId": fold.events[0]["data"]["turnId"]}
    assert (await alice.reader("StreamEvents", again, get=True).run()).raw == fold.raw


@requirement("events:bad-cursor")
@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("999", "OUT_OF_RANGE"),
        ("9" * 18, "OUT_OF_RANGE"),
        ("9" * 40, "INVALID_ARGUMENT"),
        ("-1", "INVALID_ARGUMENT"),
        ("abc", "INVALID_ARGUMENT"),
        ("1.5", "INVALID_ARGUMENT"),
        ("1, 2", "INVALID_ARGUMENT"),
        ("١", "INVALID_ARGUMENT"),
    ],
)
async def test_an_unknown_last_event_id_is_refused(
    alice: Client, conversation: str, verb: str, sent: str, code: str
) -> None:
    ref = await a_turn(alice, conversation)
    headers = alice.headers({"accept": "text/event-stream", "last-event-id": sent})
    query, body = (ref, None) if verb == "GET" else (None, ref)
    path = alice.path("StreamEvents")
    async with alice.session.request(verb, path, params=query, json=body, headers=headers) as reply:
        assert (await reply.json())["error"]["code"] == code


@requirement("events:bad-cursor")
async def test_after_must_be_an_event_of_the_turn(alice: Client, conversation: str) -> None:
    ref = await a_turn(alice, conversation)
    for method in ("ListEvents", "StreamEvents"):
        assert (await alice.call(method, **ref, after=999)).code == "OUT_OF_RANGE"
        for value in (-1, "x", 1.5, 10**30):
            answer = await alice.call(method, **ref, after=value)
            assert answer.code == "INVALID_ARGUMENT", value
            assert answer.body["error"]["details"]["fieldViolations"][0]["field"] == "after"


@requirement("events:bad-cursor", "conversations:tenancy")
async def test_a_last_event_id_does_not_open_another_users_stream(
    alice: Client, bob: Client, conversation: str
) -> None:
    ref = await a_turn(alice, conversation)
    for headers in ({"last-event-id": "1"}, {}):
        foreign = await bob.call("StreamEvents", headers, **ref)
        absent = await bob.call(
            "StreamEvents", headers, conversationId=missing("conv"), turnId=missing("turn")
        )
        assert (foreign.status, foreign.body) == (absent.status, absent.body)
        assert foreign.code == "NOT_FOUND"


@requirement("events:long-poll")
async def test_a_long_poll_returns_the_first_new_event(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"poll-{conversation}"
    async with live_turn(alice, conversation, prompt(tokens=2, gate=gate)) as turn:
        await own_platform.wait_held(gate)
        seen = turn.stream.fold.seq
        nothing = await alice.must("ListEvents", **turn.ref, after=seen)
        assert nothing == {"events": [], "closed": False}
        polling = asyncio.create_task(
            alice.must("ListEvents", **turn.ref, after=seen, waitSeconds=30)
        )
        await own_platform.release_gate(gate)
        page = await polling
    assert page["events"][0]["seq"] == str(seen + 1)


@requirement("events:long-poll")
async def test_events_are_listed_in_pages_and_the_last_page_says_closed(
    alice: Client, conversation: str
) -> None:
    ref = await a_turn(alice, conversation)
    seqs: list[int] = []
    closed = False
    while not closed:
        after = seqs[-1] if seqs else 0
        page = await alice.must("ListEvents", **ref, after=after, limit=1, waitSeconds=5)
        seqs += [int(event["seq"]) for event in page["events"]]
        closed = page["closed"]
        assert len(page["events"]) == 1
    assert seqs == list(range(1, len(seqs) + 1))
    async with asyncio.timeout(30):  # a closed stream is not waited for
        rest = await alice.must("ListEvents", **ref, after=seqs[-1], waitSeconds=60)
    assert rest == {"events": [], "closed": True}


async def idle_stream(own_platform: Platform) -> list[str]:
    """Read the stream of a held turn to its second comment; its events. The first comment opens the stream."""
    parser, events, gate = SseParser(), list[str](), f"idle-{uuid.uuid4().hex}"
    async with own_platform.client("idle") as client:
        said = prompt(tokens=1, gate=gate)
        async with live_turn(client, await client.conversation(), said) as turn:
            await own_platform.wait_held(gate)
            async with (
                asyncio.timeout(2 * HEARTBEAT_SECONDS),
                client.stream("StreamEvents", **turn.ref) as reply,
            ):
                async for piece in reply.content.iter_any():
                    events += [event.event for event in parser.feed(piece)]
                    if parser.comments == 2:
                        break
            await own_platform.release_gate(gate)
    return events


@requirement("events:heartbeat")
@pytest.mark.waits(begin=idle_stream)
async def test_an_idle_stream_carries_a_comment(waited: list[str]) -> None:
    assert waited == ["run.started"]


@pytest.fixture
async def long_stream(
    alice: Client, conversation: str, log: EventLog
) -> AsyncIterator[dict[str, str]]:
    """A turn with more events than any buffer may hold."""
    ref = await a_turn(alice, conversation)
    await log.forget([ref["turnId"]])
    stream = NewStream(ref["turnId"], "turn", user_of(alice), conversation)
    attempt = await log.open_with_attempt(stream, [])
    assert attempt is not None
    piece = NewEvent("text.delta", {"text": "x" * 1000})
    for _ in range(LONG_STREAM_BYTES // 500_000):
        await log.append(ref["turnId"], attempt.number, [piece] * 500)
    await log.append(ref["turnId"], attempt.number, [NewEvent("run.completed", {}, terminal=True)])
    yield ref
    await log.forget([ref["turnId"]])


@requirement("events:slow-client")
async def test_clients_that_do_not_read_cost_bounded_memory(
    own_platform: Platform, alice: Client, long_stream: dict[str, str]
) -> None:
    assert (await events_of(alice, long_stream)).terminal == "run.completed"
    processes = tuple(STALLED_KIB)
    looks: list[dict[str, int]] = []
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=1024) as session:
        headers = alice.headers({"accept": "text/event-stream"})
        replies: list[aiohttp.ClientResponse] = []
        for stalled in STALLED_READERS:
            while len(replies) < stalled:
                reply = await session.get(
                    alice.path("StreamEvents"), params=long_stream, headers=headers
                )
                assert reply.status == 200
                replies.append(reply)
            await quiet(own_platform, processes)
            looks.append({name: memory(own_platform, name) for name in processes})
        for reply in replies:
            reply.close()
    few, many = looks
    more = STALLED_READERS[1] - STALLED_READERS[0]
    each = {name: (many[name] - few[name]) // more // 1024 for name in processes}
    assert {name: size for name, size in each.items() if size > STALLED_KIB[name]} == {}


def memory(platform: Platform, name: str) -> int:
    return psutil.Process(platform.stack.pid(name)).memory_info().rss


async def quiet(platform: Platform, names: tuple[str, ...]) -> None:
    """Wait until no process grows any more: every buffer is full."""
    peak = dict.fromkeys(names, 0)
    since = 0

    def still() -> bool:
        nonlocal since
        now = {name: memory(platform, name) >> 20 for name in names}
        since = since + 1 if all(now[name] <= peak[name] for name in names) else 0
        peak.update({name: max(now[name], peak[name]) for name in names})
        return since >= 10

    await wait_until(still, 20, "memory to stop growing", every=0.1)
