"""The strict SSE reader: any split gives the same events, and every broken promise is seen."""

import json
import random
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sse import Fold, MalformedStream, SseEvent, SseParser, StreamClient

lines = st.sampled_from(
    ["data: a", "data:b", "data", "data: é🙂\u2028", "id: 7", "event: x", ": c", "", "", "retry: 5"]
)
ends = st.sampled_from(["\n", "\r", "\r\n"])
streams = st.lists(st.tuples(lines, ends)).map(
    lambda found: "".join(a + b for a, b in found).encode()
)


def an_event(seq: int, kind: str, **data: object) -> SseEvent:
    return SseEvent(
        json.dumps({"seq": str(seq), "type": kind, "attempt": 1, "data": data}), kind, str(seq)
    )


def fold(*events: SseEvent) -> Fold:
    folded = Fold()
    for each in events:
        folded.take(each)
    return folded


@given(streams, st.booleans(), st.data())
def test_any_split_of_a_stream_gives_the_same_events(
    stream: bytes, bom: bool, data: st.DataObject
) -> None:
    whole = b"\xef\xbb\xbf" * bom + stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    parser = SseParser()
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert [each for piece in pieces for each in parser.feed(piece)] == SseParser().feed(whole)


def test_an_event_is_its_fields() -> None:
    events = SseParser().feed(b": hi\n\nid: 3\nevent: text.delta\ndata: a\ndata: b\n\ndata: open")
    assert events == [SseEvent("a\nb", "text.delta", "3")]


@pytest.mark.parametrize("line", [b"date: x\n\n", b"data: \xff\n\n", b"nonsense\n\n"])
def test_what_the_format_does_not_know_is_refused(line: bytes) -> None:
    with pytest.raises(MalformedStream):
        SseParser().feed(line)


def test_a_restart_drops_the_text_since_its_seq() -> None:
    folded = fold(
        an_event(1, "text.delta", text="kept "),
        an_event(2, "text.delta", text="dropped"),
        an_event(3, "attempt.restarted", fromSeq=2),
        an_event(4, "text.delta", text="new"),
        an_event(5, "run.completed"),
    )
    assert (folded.text, folded.restarts, folded.terminal, folded.seq) == (
        "kept new",
        1,
        "run.completed",
        5,
    )


@pytest.mark.parametrize(
    "events",
    [
        [an_event(2, "text.delta", text="gap")],
        [an_event(1, "run.started"), an_event(1, "run.started")],
        [an_event(1, "run.completed"), an_event(2, "run.failed")],
        [SseEvent('{"seq":"1","type":"usage"}', "usage", "2")],
        [SseEvent('{"seq":"1","type":"usage"}', "custom", "1")],
    ],
)
def test_a_stream_that_breaks_its_promises_is_refused(events: list[SseEvent]) -> None:
    with pytest.raises(MalformedStream):
        fold(*events)


LOG = [
    an_event(1, "run.started"),
    *(an_event(seq, "text.delta", text=f"é{seq} ") for seq in range(2, 60)),
    an_event(60, "run.completed"),
]


async def replay(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for each in LOG[int(request.headers.get("last-event-id", "0")) :]:
        await response.write(f"id: {each.id}\nevent: {each.event}\ndata: {each.data}\n\n".encode())
        if int(each.id or 0) % 25 == 0:
            await response.write(b"event: reconnect\ndata: {}\n\n")
            break
    return response


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/", replay)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}/"
    await runner.cleanup()


@pytest.mark.loopback
async def test_a_client_that_cuts_itself_everywhere_reads_the_same_bytes(url: str) -> None:
    async with aiohttp.ClientSession() as http:
        client = StreamClient(http, url, random_cuts=random.Random(7), cut_probability=0.4)
        folded = await client.run()
    assert folded.raw == [each.data for each in LOG]
    assert client.connections > 5


@pytest.mark.loopback
async def test_an_answer_that_is_no_stream_is_told(url: str) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(MalformedStream, match="404"):
            await StreamClient(http, url + "missing").run()
