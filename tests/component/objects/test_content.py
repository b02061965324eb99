"""Content-addressed objects."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from services.cli.stack import Stack
from services.kit.claim_check import MAX_CONTENT_BYTES
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.objects import (
    ContentCorrupt,
    ContentMissing,
    ContentReference,
    ContentStore,
    ObjectStore,
)
from tests.requirements import requirement
from tests.support.readme import example_of

README = Path(__file__).parents[3] / "services" / "kit" / "README.md"


@pytest.fixture
def contents(objects: ObjectStore) -> ContentStore:
    return ContentStore(objects, "claims")


def files_of(stack: Stack, prefix: str) -> list[Path]:
    """The files of the objects below a prefix."""
    return [path for path in (_bucket(stack) / prefix).rglob("*") if path.is_file()]


def _bucket(stack: Stack) -> Path:
    return stack.state.data / "objects" / "yocaso"


@requirement("kit:objects:content")
async def test_content_is_read_by_a_reference_that_fits_in_a_message(
    contents: ContentStore,
) -> None:
    reference = await contents.put(b"a long result", content_type="text/plain")
    wire = reference.to_json()
    assert await contents.get(ContentReference.model_validate_json(wire)) == b"a long result"
    assert len(wire) < 128
    assert await contents.get(await contents.put(b"")) == b""


@requirement("kit:objects:content")
async def test_the_same_content_is_one_object_also_when_stored_concurrently(
    stack: Stack, objects: ObjectStore
) -> None:
    contents = ContentStore(objects, "claims-same")
    references = await asyncio.gather(*(contents.put(b"same" * 100_000) for _ in range(20)))
    assert len(set(references)) == 1
    assert await contents.put(b"same" * 100_000) == references[0]
    assert len(files_of(stack, "claims-same")) == 1
    assert await contents.get(references[0]) == b"same" * 100_000


@requirement("kit:objects:content")
@pytest.mark.parametrize("tampered", [b"a long resulT", b"a long", b"a long result, and more"])
async def test_changed_content_is_detected_and_repaired_by_storing_it_again(
    stack: Stack, contents: ContentStore, tampered: bytes
) -> None:
    reference = await contents.put(b"a long result")
    (_bucket(stack) / contents.key_of(reference)).write_bytes(tampered)
    with pytest.raises(ContentCorrupt) as corrupt:
        await contents.get(reference)
    assert corrupt.value.code is ErrorCode.INTERNAL
    await contents.put(b"a long result")
    assert await contents.get(reference) == b"a long result"


@requirement("kit:objects:content")
async def test_missing_content_is_a_typed_error(
    contents: ContentStore, objects: ObjectStore
) -> None:
    reference = await contents.put(b"deleted")
    await objects.delete(contents.key_of(reference))
    with pytest.raises(ContentMissing) as missing:
        await contents.get(reference)
    assert missing.value.code is ErrorCode.NOT_FOUND


async def test_content_of_another_prefix_is_not_found(
    contents: ContentStore, objects: ObjectStore
) -> None:
    reference = await contents.put(b"of another tenant")
    with pytest.raises(ContentMissing):
        await ContentStore(objects, "claims-other").get(reference)


async def test_too_large_content_is_refused(contents: ContentStore) -> None:
    with pytest.raises(RpcError) as refused:
        await contents.put(bytes(MAX_CONTENT_BYTES + 1))
    assert refused.value.code is ErrorCode.PAYLOAD_TOO_LARGE


async def test_the_example_of_the_readme_runs(objects: ObjectStore, contents: ContentStore) -> None:
    example = example_of(README, "Store objects")

    async def lines() -> AsyncIterator[bytes]:
        yield b"a,b\n"
        yield b"1,2\n"

    url = await example["publish"](objects, "q3", lines())
    async with aiohttp.ClientSession() as session, session.get(URL(url, encoded=True)) as reply:
        assert (reply.status, await reply.read()) == (200, b"a,b\n1,2\n")
    reference = await example["check_in"](objects, b"a large result")
    assert await ContentStore(objects, "results").get(reference) == b"a large result"
