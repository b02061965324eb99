"""The server is away, frozen, or dies in the middle."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from services.cli.stack import Stack
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.objects import ByteRange, ObjectStore
from services.kit.storage.objects.connection import CALL_SECONDS
from tests.component.objects.contents import ALWAYS, MIB, is_stored, leftovers, stream
from tests.requirements import requirement

SERVER = "versitygw"


@pytest.fixture(autouse=True)
def server(stack: Stack) -> Iterator[None]:
    """Runs again after the test."""
    yield
    if stack.supervisor.state(SERVER) != "RUNNING":
        stack.restart(SERVER)
    stack.wait_ready(SERVER)


def kill(stack: Stack) -> None:
    """Kill the server; it is restarted."""
    pid = stack.kill(SERVER)
    stack.wait_exited(SERVER, pid)


@requirement("kit:objects:faults")
async def test_calls_without_a_server_are_unavailable_and_work_after_its_start(
    stack: Stack, objects: ObjectStore
) -> None:
    await objects.put("faults/kept", b"kept")
    stack.halt(SERVER)
    for call in (objects.get("faults/kept"), objects.put("faults/new", b"x")):
        with pytest.raises(RpcError) as away:
            await call
        assert away.value.code is ErrorCode.UNAVAILABLE
        assert "127.0.0.1" not in str(away.value)
    stack.restart(SERVER)
    assert await objects.get("faults/kept") == b"kept"
    assert not await is_stored(objects, "faults/new")


@requirement("kit:objects:faults")
async def test_a_stream_survives_a_kill_of_the_server_or_fails_and_can_be_repeated(
    stack: Stack, objects: ObjectStore
) -> None:
    async def killing() -> AsyncIterator[bytes]:
        sent = 0
        async for chunk in stream(24 * MIB):
            if sent == 17 * MIB:
                await asyncio.to_thread(kill, stack)
            sent += len(chunk)
            yield chunk

    [outcome] = await asyncio.gather(
        objects.put_stream("faults/stream", killing()), return_exceptions=True
    )
    await asyncio.to_thread(stack.wait_ready, SERVER)
    if isinstance(outcome, BaseException):
        assert isinstance(outcome, RpcError)
        assert outcome.code is ErrorCode.UNAVAILABLE
        assert not await is_stored(objects, "faults/stream")
    await objects.put_stream("faults/stream", stream(24 * MIB))
    found = await objects.get("faults/stream")
    assert found == b"".join([chunk async for chunk in stream(24 * MIB)])
    async for each in objects.uploads.leftovers(ALWAYS, "faults"):
        await objects.uploads.abort(each.upload)
    assert await leftovers(objects, "faults") == []


@requirement("kit:objects:faults")
async def test_a_stream_without_a_server_leaves_parts_that_are_found_after_its_start(
    stack: Stack, objects: ObjectStore
) -> None:
    async def halting() -> AsyncIterator[bytes]:
        sent = 0
        async for chunk in stream(20 * MIB):
            if sent == 17 * MIB:
                await asyncio.to_thread(stack.halt, SERVER)
            sent += len(chunk)
            yield chunk

    with pytest.raises(RpcError) as away:
        await objects.put_stream("faults/halted", halting())
    assert away.value.code is ErrorCode.UNAVAILABLE
    await asyncio.to_thread(stack.restart, SERVER)
    assert not await is_stored(objects, "faults/halted")
    assert await leftovers(objects, "faults") == ["faults/halted"]
    async for each in objects.uploads.leftovers(ALWAYS, "faults"):
        await objects.uploads.abort(each.upload)


@requirement("kit:objects:faults")
async def test_a_reader_of_a_killed_server_gets_an_error_and_reads_on_by_range(
    stack: Stack, objects: ObjectStore
) -> None:
    await objects.put_stream("faults/read", stream(24 * MIB))
    etag = (await objects.head("faults/read")).etag
    received = bytearray()

    async def read_while_killing() -> None:
        async with objects.open("faults/read") as reader:
            async for chunk in reader:
                if not received:
                    await asyncio.to_thread(kill, stack)
                received.extend(chunk)

    with pytest.raises(RpcError) as broken:
        await read_while_killing()
    assert broken.value.code is ErrorCode.UNAVAILABLE
    assert 0 < len(received) < 24 * MIB
    await asyncio.to_thread(stack.wait_ready, SERVER)
    rest = ByteRange(len(received))
    async with objects.open("faults/read", rest, etag=etag) as reader:
        received += await reader.read()
    assert bytes(received) == b"".join([chunk async for chunk in stream(24 * MIB)])


@requirement("kit:objects:faults")
async def test_a_call_to_a_frozen_server_ends(stack: Stack, objects: ObjectStore) -> None:
    await objects.put("faults/frozen", b"x")
    stack.pause(SERVER)
    began = time.monotonic()
    try:
        with pytest.raises(RpcError) as frozen:
            await objects.head("faults/frozen")
    finally:
        stack.resume(SERVER)
    assert frozen.value.code is ErrorCode.UNAVAILABLE
    assert time.monotonic() - began < CALL_SECONDS + 5
    assert (await objects.head("faults/frozen")).size == 1
