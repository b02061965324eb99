"""Outbound calls: four distinct timeouts, a size limit, immediate close of sockets."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest

from services.kit.outbound.client import (
    BetweenChunksTimeout,
    BodyTooLarge,
    FirstByteTimeout,
    OutboundRefused,
    OutboundTimeouts,
    TotalTimeout,
    open_outbound,
)
from tests.requirements import requirement
from tests.support.model_server import ModelServer, script_text
from tests.support.wait import wait_until

# Real slowness takes real time.
pytestmark = [pytest.mark.loopback, pytest.mark.timeout(20)]


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as running:
        yield running


def body(text: str, *, stream: bool = True) -> dict[str, Any]:
    return {"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]}


async def read(client: httpx2.AsyncClient, server: ModelServer, text: str) -> bytes:
    async with client.stream(
        "POST", f"{server.base_url}/chat/completions", json=body(text)
    ) as response:
        return b"".join([chunk async for chunk in response.aiter_bytes()])


async def test_a_trusted_endpoint_is_reachable(server: ModelServer) -> None:
    async with open_outbound(OutboundTimeouts(), trusted=[server.base_url]) as client:
        assert b"token2" in await read(client, server, script_text(tokens=3))


async def test_an_untrusted_endpoint_gets_no_connection(server: ModelServer) -> None:
    async with open_outbound(OutboundTimeouts()) as client:
        with pytest.raises(OutboundRefused):
            await read(client, server, "x")
    assert server.journal.entries == []


@requirement("kit:outbound")
@pytest.mark.parametrize(
    ("timeouts", "script", "error"),
    [
        (OutboundTimeouts(connect=0, first_byte=1), {"first_byte_ms": 60_000}, FirstByteTimeout),
        (
            OutboundTimeouts(connect=0, first_byte=1),
            {"first_token_ms": 60_000, "comments": 0},
            FirstByteTimeout,
        ),
        (
            OutboundTimeouts(between_chunks=0.05),
            {"tokens": 3, "cut": "hang", "cut_after": 1},
            BetweenChunksTimeout,
        ),
        (OutboundTimeouts(total=1), {"tokens": 12_000, "delay_ms": 5}, TotalTimeout),
    ],
)
async def test_each_timeout_raises_its_own_error(
    server: ModelServer, timeouts: OutboundTimeouts, script: dict[str, Any], error: type[Exception]
) -> None:
    async with open_outbound(timeouts, trusted=[server.base_url]) as client:
        with pytest.raises(error) as caught:
            await read(client, server, script_text(**script))
        assert type(caught.value) is error
        entry = server.journal.entries[0]
        await wait_until(lambda: entry.outcome == "client_closed", what="the close")


async def test_a_stream_may_last_longer_than_the_timeout_between_chunks(
    server: ModelServer,
) -> None:
    timeouts = OutboundTimeouts(between_chunks=2, first_byte=2)
    async with open_outbound(timeouts, trusted=[server.base_url]) as client:
        assert b"token9" in await read(client, server, script_text(tokens=10, delay_ms=250))


async def test_a_connection_that_is_not_accepted_is_a_connect_error(server: ModelServer) -> None:
    base_url = server.base_url
    await server.close()
    async with open_outbound(OutboundTimeouts(), trusted=[base_url]) as client:
        with pytest.raises(httpx2.ConnectError):
            await read(client, server, "x")


async def test_a_cancelled_call_closes_its_socket_at_once(server: ModelServer) -> None:
    async with open_outbound(OutboundTimeouts(), trusted=[server.base_url]) as client:
        said = script_text(tokens=5, cut="hang", cut_after=2)
        reading = asyncio.create_task(read(client, server, said))
        entry = await wait_until(
            lambda: next(iter(server.journal.entries), None), what="the request"
        )
        await wait_until(lambda: entry.tokens_sent == 2, what="two tokens")
        cancelled = time.monotonic()
        reading.cancel()
        closed_at = await wait_until(lambda: entry.client_closed_at, what="the close", every=0.001)
        assert closed_at - cancelled < 5  # other causes of a close come later
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_a_call_cancelled_before_the_first_byte_closes_its_socket_too(
    server: ModelServer,
) -> None:
    async with open_outbound(OutboundTimeouts(), trusted=[server.base_url]) as client:
        reading = asyncio.create_task(read(client, server, script_text(first_byte_ms=60_000)))
        entry = await wait_until(
            lambda: next(iter(server.journal.entries), None), what="the request"
        )
        reading.cancel()
        await wait_until(lambda: entry.outcome == "client_closed", what="the close")


async def test_closing_a_response_early_closes_its_socket(server: ModelServer) -> None:
    async with open_outbound(OutboundTimeouts(), trusted=[server.base_url]) as client:
        url, said = (
            f"{server.base_url}/chat/completions",
            script_text(tokens=5, cut="hang", cut_after=2),
        )
        async with client.stream("POST", url, json=body(said)) as response:
            await anext(response.aiter_bytes())
        entry = server.journal.entries[0]
        await wait_until(lambda: entry.outcome == "client_closed", what="the close")


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_truncated_body_is_an_error(server: ModelServer, how: str) -> None:
    async with open_outbound(OutboundTimeouts(), trusted=[server.base_url]) as client:
        with pytest.raises(httpx2.TransportError):
            await read(client, server, script_text(tokens=5, cut=how, cut_after=2))


async def test_a_body_over_the_limit_is_refused_while_it_arrives(server: ModelServer) -> None:
    async with open_outbound(
        OutboundTimeouts(), trusted=[server.base_url], max_body_bytes=50_000
    ) as client:
        with pytest.raises(BodyTooLarge):
            await read(client, server, script_text(raw="long_line", raw_bytes=5_000_000))


async def test_connections_are_kept_alive(server: ModelServer) -> None:
    async with open_outbound(OutboundTimeouts(), trusted=[server.base_url]) as client:
        for _ in range(3):
            await read(client, server, "x")
        assert len(server._connections) == 1


async def test_proxies_of_the_environment_are_ignored(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with open_outbound(OutboundTimeouts(), trusted=[server.base_url]) as client:
        assert b"said" in await read(client, server, "x")


async def test_the_openai_sdk_streams_through_the_client_and_raises_its_timeouts(
    server: ModelServer,
) -> None:
    timeouts = OutboundTimeouts(connect=0, first_byte=2)
    async with open_outbound(timeouts, trusted=[server.base_url]) as client:
        sdk = openai.AsyncOpenAI(
            api_key="k", base_url=server.base_url, http_client=client, max_retries=0
        )
        asked: list[Any] = [{"role": "user", "content": script_text(tokens=3)}]
        stream = await sdk.chat.completions.create(model="m", messages=asked, stream=True)
        text = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
        assert "".join(each or "" for each in text) == "token0 token1 token2 "
        slow: list[Any] = [{"role": "user", "content": script_text(first_byte_ms=60_000)}]
        with pytest.raises(openai.APITimeoutError) as caught:
            await sdk.chat.completions.create(model="m", messages=slow, stream=True)
        assert isinstance(caught.value.__cause__, FirstByteTimeout)
