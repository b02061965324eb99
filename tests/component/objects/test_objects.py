"""Objects: put, get, head, delete."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI

from services.contracts.apps import app_of
from services.kit.errors import ErrorCode, RpcError
from services.kit.settings import PlatformSettings, load_settings
from services.kit.storage.objects import ByteRange, ObjectStore, ObjectStoreSettings
from services.platform.platform import Platform
from tests.component.objects.conftest import APP
from tests.component.objects.contents import is_stored, leftovers
from tests.requirements import requirement


@requirement("kit:objects")
async def test_an_object_is_read_as_it_was_stored(objects: ObjectStore) -> None:
    stored = await objects.put("basic/a.txt", b"hello", content_type="text/plain")
    assert (stored.size, stored.sha256) == (5, hashlib.sha256(b"hello").hexdigest())
    assert await objects.get("basic/a.txt") == b"hello"
    info = await objects.head("basic/a.txt")
    assert (info.size, info.content_type, info.etag) == (5, "text/plain", stored.etag)
    assert info.sha256 == stored.sha256
    assert abs(datetime.now(UTC) - info.modified_at) < timedelta(minutes=1)


async def test_a_second_put_replaces_the_object(objects: ObjectStore) -> None:
    first = await objects.put("basic/replaced", b"first")
    second = await objects.put("basic/replaced", b"second!")
    assert await objects.get("basic/replaced") == b"second!"
    assert first.etag != second.etag


async def test_an_object_may_be_empty(objects: ObjectStore) -> None:
    assert (await objects.put("basic/empty", b"")).size == 0
    assert await objects.get("basic/empty") == b""
    assert (await objects.head("basic/empty")).size == 0


@pytest.mark.parametrize(
    ("byte_range", "expected"),
    [
        (ByteRange(0, 4), b"0123"),
        (ByteRange(3), b"3456789"),
        (ByteRange(8, 100), b"89"),
        (ByteRange(9, 1), b"9"),
    ],
)
async def test_a_range_is_read(
    objects: ObjectStore, byte_range: ByteRange, expected: bytes
) -> None:
    await objects.put("basic/range", b"0123456789")
    assert await objects.get("basic/range", byte_range) == expected
    async with objects.open("basic/range", byte_range) as reader:
        assert (reader.size, reader.info.size) == (len(expected), 10)


async def test_a_range_behind_the_end_is_out_of_range(objects: ObjectStore) -> None:
    await objects.put("basic/range", b"0123456789")
    with pytest.raises(RpcError) as refused:
        await objects.get("basic/range", ByteRange(10))
    assert refused.value.code is ErrorCode.OUT_OF_RANGE


@requirement("kit:objects")
async def test_a_missing_object_is_not_found_and_its_deletion_no_error(
    objects: ObjectStore,
) -> None:
    for call in (objects.get, objects.head):
        with pytest.raises(RpcError) as missing:
            await call("basic/missing")
        assert missing.value.code is ErrorCode.NOT_FOUND
        assert "missing" not in missing.value.message
    await objects.delete("basic/missing")
    await objects.delete_many([])


async def test_objects_are_deleted_by_more_than_one_batch(objects: ObjectStore) -> None:
    kept = ["many/0", "many/500", "many/1000"]
    await asyncio.gather(*(objects.put(key, b"x") for key in kept))
    keys = [f"many/{number}" for number in range(1001)]
    await objects.delete_many(keys)
    assert [await is_stored(objects, key) for key in kept] == [False] * 3
    await objects.delete_many(keys)


async def test_a_key_cannot_be_a_folder_of_another_key(objects: ObjectStore) -> None:
    await objects.put("folder/a/b", b"x")
    for key in ("folder/a", "folder/a/b/c"):
        with pytest.raises(RpcError) as refused:
            await objects.put(key, b"x")
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT
        assert refused.value.violations[0].field == "key"


@requirement("kit:objects:checksum")
async def test_content_with_another_hash_than_given_is_not_stored(objects: ObjectStore) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(RpcError) as refused:
        await objects.put("basic/hash", b"content", sha256=other)
    assert refused.value.violations[0].field == "sha256"
    with pytest.raises(RpcError):
        await objects.put("basic/hash", b"x" * (9 * 1024**2), sha256=other)
    assert not await is_stored(objects, "basic/hash")
    assert await leftovers(objects, "basic") == []
    right = hashlib.sha256(b"content").hexdigest()
    assert (await objects.put("basic/hash", b"content", sha256=right)).sha256 == right


async def test_content_over_the_readers_limit_is_refused(objects: ObjectStore) -> None:
    await objects.put("basic/large", b"0123456789")
    with pytest.raises(RpcError) as refused:
        await objects.get("basic/large", max_bytes=9)
    assert refused.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert await objects.get("basic/large", ByteRange(1), max_bytes=9) == b"123456789"


async def test_a_reader_of_a_replaced_object_does_not_mix_two_contents(
    objects: ObjectStore,
) -> None:
    first = await objects.put("basic/versions", b"first")
    await objects.put("basic/versions", b"other")
    with pytest.raises(RpcError) as refused:
        async with objects.open("basic/versions", ByteRange(2), etag=first.etag):
            pass
    assert refused.value.code is ErrorCode.FAILED_PRECONDITION


@requirement("kit:objects")
async def test_concurrent_writers_leave_one_whole_object(objects: ObjectStore) -> None:
    contents = [bytes([number]) * 300_000 for number in range(20)]
    await asyncio.gather(*(objects.put("basic/contested", content) for content in contents))
    assert await objects.get("basic/contested") in contents


async def test_more_calls_than_connections_are_all_answered(objects: ObjectStore) -> None:
    await objects.put("basic/busy", b"x")
    found = await asyncio.gather(*(objects.get("basic/busy") for _ in range(200)))
    assert found == [b"x"] * 200


async def test_the_platform_opens_the_store_on_first_use_and_closes_it(
    settings: ObjectStoreSettings,
) -> None:
    app = FastAPI()
    async with Platform.open(app_of(APP), load_settings(PlatformSettings), app) as platform:
        await platform.objects.put("platform/a", b"x")
        assert await platform.objects.get("platform/a") == b"x"
        assert platform.objects is platform.objects
