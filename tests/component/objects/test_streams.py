"""Streams in both directions: huge, failing, cancelled, of a killed process."""

import asyncio
import hashlib
import os
import signal
import sys
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.cli.stack import Stack
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.objects import ByteRange, ObjectStore
from services.kit.storage.objects.store import PART_BYTES
from tests.component.objects.conftest import APP
from tests.component.objects.contents import ALWAYS, MIB, is_stored, leftovers, stream
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl

ROOT = Path(__file__).parents[3]
HUGE = 128 * MIB
MEMORY = 48 * MIB


class Interrupted(Exception):
    """The failure of a source."""


@requirement("kit:objects:streams")
async def test_a_huge_stream_passes_in_bounded_memory(objects: ObjectStore) -> None:
    await objects.put("streams/warm", b"x")  # opens the client
    expected = hashlib.sha256()
    async for chunk in stream(HUGE):
        expected.update(chunk)
    tracemalloc.start()
    stored = await objects.put_stream("streams/huge", stream(HUGE))
    found, largest = hashlib.sha256(), 0
    async with objects.open("streams/huge") as reader:
        async for chunk in reader:
            found.update(chunk)
            largest = max(largest, len(chunk))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (stored.size, stored.sha256) == (HUGE, expected.hexdigest())
    assert found.digest() == expected.digest()
    assert largest <= 256 * 1024
    assert peak < MEMORY
    await objects.delete("streams/huge")


@pytest.mark.parametrize("size", [1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES])
async def test_a_stream_of_any_size_is_stored_whole(objects: ObjectStore, size: int) -> None:
    content = b"".join([chunk async for chunk in stream(size, 999_999)])
    stored = await objects.put_stream(
        f"streams/{size}", stream(size, 999_999), content_type="text/plain"
    )
    assert (stored.size, stored.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert await objects.get(f"streams/{size}") == content
    assert (await objects.head(f"streams/{size}")).content_type == "text/plain"


@requirement("kit:objects:streams")
async def test_a_stream_that_fails_stores_nothing(objects: ObjectStore) -> None:
    async def failing() -> AsyncIterator[bytes]:
        async for chunk in stream(20 * MIB):
            yield chunk
        raise Interrupted

    with pytest.raises(Interrupted):
        await objects.put_stream("failing/a", failing())
    assert not await is_stored(objects, "failing/a")
    assert await leftovers(objects, "failing") == []


@requirement("kit:objects:streams")
async def test_a_cancelled_stream_stores_nothing(objects: ObjectStore) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        async for chunk in stream(20 * MIB):
            yield chunk
        waiting.set()
        await asyncio.Event().wait()

    storing = asyncio.create_task(objects.put_stream("cancelled/a", endless()))
    await waiting.wait()
    assert await leftovers(objects, "cancelled") == ["cancelled/a"]
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    assert not await is_stored(objects, "cancelled/a")
    assert await leftovers(objects, "cancelled") == []


async def test_a_put_that_is_cancelled_while_it_sends_stores_nothing(
    stack: Stack, objects: ObjectStore
) -> None:
    await objects.put("cancelled/warm", b"x")
    stack.pause("versitygw")
    try:
        storing = asyncio.create_task(objects.put("cancelled/b", b"x" * (PART_BYTES - 1)))
        done, _ = await asyncio.wait([storing], timeout=0.3)
        assert not done
        storing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await storing
    finally:
        stack.resume("versitygw")
    stack.wait_ready("versitygw")
    assert not await is_stored(objects, "cancelled/b")


async def test_a_stream_over_the_limit_is_refused(objects: ObjectStore) -> None:
    with pytest.raises(RpcError) as refused:
        await objects.put_stream("limit/a", stream(20 * MIB), max_bytes=19 * MIB)
    assert refused.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert not await is_stored(objects, "limit/a")
    assert await leftovers(objects, "limit") == []


@requirement("kit:objects:leftovers")
@pytest.mark.parametrize("step", ["objects.after_part:2:kill", "objects.before_complete:1:kill"])
async def test_parts_of_a_killed_process_are_found_and_deleted(
    stack: Stack, objects: ObjectStore, tmp_path: Path, step: str
) -> None:
    began = datetime.now(UTC).replace(microsecond=0)
    with FailpointControl(tmp_path / "points", step) as control:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.component.objects.uploader", "killed/a", str(20 * MIB)),
            cwd=ROOT,
            env={**os.environ, **stack.environment.for_app(APP), **control.environment},
        )
        await control.wait_for(step.partition(":")[0], timeout=30)
        assert await process.wait() == -signal.SIGKILL
    assert not await is_stored(objects, "killed/a")
    assert [each async for each in objects.uploads.leftovers(began, "killed")] == []
    for each in [each async for each in objects.uploads.leftovers(ALWAYS, "killed")]:
        assert each.started_at >= began
        await objects.uploads.abort(each.upload)
        await objects.uploads.abort(each.upload)
    assert await leftovers(objects, "killed") == []


async def test_an_early_end_of_reading_frees_the_connection(objects: ObjectStore) -> None:
    await objects.put_stream("streams/early", stream(20 * MIB))
    for _ in range(100):  # more than there are connections
        async with objects.open("streams/early") as reader:
            async for _ in reader:
                break
    assert await objects.get("streams/early", ByteRange(0, 1)) == b"\0"
