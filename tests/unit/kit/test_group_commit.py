"""Group commit and deferred reads: each caller gets the outcome of its own write or read."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from services.kit.dapr.sidecar import SidecarError
from services.kit.dapr.state_component import DeferredReads
from services.kit.dapr.state_rows import StateWrite, StoredValue
from services.kit.group_commit import (
    MAX_BYTES,
    MAX_IN_FLIGHT,
    MAX_OPERATIONS,
    GroupCommit,
)
from tests.requirements import requirement
from tests.support.wait import wait_until


class Store:
    """A store whose transactions wait for the test; one with a bad row is refused."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self.open = asyncio.Event()
        self.refused: set[str] = set()
        self.away: SidecarError | None = None
        self.read_requests: list[list[str]] = []

    async def write(self, writes: Sequence[StateWrite]) -> None:
        keys = [write.key for write in writes]
        self.transactions.append(keys)
        await self.open.wait()
        if self.away:
            raise self.away
        if self.refused.intersection(keys):
            raise SidecarError("etag mismatch", answered=True)

    async def read(self, key: str) -> StoredValue:
        return (await self.read_many([key]))[0]

    async def read_many(self, keys: Sequence[str]) -> list[StoredValue]:
        self.read_requests.append(list(keys))
        await self.open.wait()
        if self.away:
            raise self.away
        return [StoredValue(key, key.encode(), "1") for key in keys]


def row(key: str, size: int = 1) -> StateWrite:
    return StateWrite(key, b"x" * size)


def group_of(store: Store) -> GroupCommit[StateWrite]:
    return GroupCommit(
        store.write,
        is_refusal=lambda error: isinstance(error, SidecarError) and error.answered,
        key_of=lambda write: write.key,
        size_of=lambda write: write.size,
    )


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def group(store: Store) -> AsyncIterator[GroupCommit[StateWrite]]:
    """A group commit with the maximum of transactions in flight."""
    group = group_of(store)
    first = [group.write([row(f"first-{number}")]) for number in range(MAX_IN_FLIGHT)]
    under_way = [asyncio.ensure_future(each) for each in first]
    await wait_until(lambda: len(store.transactions) == MAX_IN_FLIGHT)
    store.transactions.clear()
    yield group
    store.open.set()
    await asyncio.gather(*under_way, return_exceptions=True)


async def written(
    group: GroupCommit[StateWrite], store: Store, *members: list[StateWrite]
) -> list[BaseException | None]:
    tasks = [asyncio.ensure_future(group.write(member)) for member in members]
    await asyncio.sleep(0)
    store.open.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


@requirement("kit:group-commit")
async def test_writes_that_wait_share_one_transaction(
    group: GroupCommit[StateWrite], store: Store
) -> None:
    members = [[row(f"{name}/head"), row(f"{name}/row")] for name in ("c", "a", "b")]
    assert await written(group, store, *members) == [None] * 3
    assert store.transactions == [["a/head", "a/row", "b/head", "b/row", "c/head", "c/row"]]


@requirement("kit:group-commit")
async def test_a_single_write_does_not_wait(store: Store) -> None:
    store.open.set()
    group = group_of(store)
    for number in range(3):
        await group.write([row(str(number))])
    assert store.transactions == [["0"], ["1"], ["2"]]


@requirement("kit:group-commit")
async def test_a_broken_condition_fails_its_own_writer_only(
    group: GroupCommit[StateWrite], store: Store
) -> None:
    store.refused = {"b"}
    outcomes = await written(group, store, [row("a")], [row("b")], [row("c")])
    assert [type(each) for each in outcomes] == [type(None), SidecarError, type(None)]
    assert store.transactions == [["a", "b", "c"], ["a"], ["b"], ["c"]]


@requirement("kit:group-commit")
async def test_an_unknown_outcome_is_raised_to_every_writer_without_a_retry(
    group: GroupCommit[StateWrite], store: Store
) -> None:
    store.away = SidecarError("UNAVAILABLE")
    outcomes = await written(group, store, [row("a")], [row("b")])
    assert outcomes == [store.away] * 2
    assert store.transactions == [["a", "b"]]


@requirement("kit:group-commit")
async def test_a_transaction_stays_within_its_limits(
    group: GroupCommit[StateWrite], store: Store
) -> None:
    many = [[row(f"{number:02}-{part}") for part in range(2)] for number in range(40)]
    large = [[row(f"x{number}", MAX_BYTES // 2)] for number in range(3)]
    assert await written(group, store, *many, *large) == [None] * 43
    assert max(len(keys) for keys in store.transactions) <= MAX_OPERATIONS
    assert all(sum(key[0] == "x" for key in keys) <= 2 for keys in store.transactions)
    assert sum(len(keys) for keys in store.transactions) == 83


async def test_an_oversize_write_gets_its_own_transaction(
    group: GroupCommit[StateWrite], store: Store
) -> None:
    assert await written(group, store, [row("a", MAX_BYTES + 1)], [row("b")]) == [None] * 2
    assert sorted(store.transactions) == [["a"], ["b"]]


@requirement("kit:group-commit")
async def test_a_cancelled_writer_does_not_affect_the_others(
    group: GroupCommit[StateWrite], store: Store
) -> None:
    tasks = [asyncio.ensure_future(group.write([row(key)])) for key in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    store.open.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in outcomes] == [type(None), asyncio.CancelledError, type(None)]
    assert store.transactions == [["a", "c"]]
    await group.write([row("d")])
    assert store.transactions[-1] == ["d"]


@requirement("kit:group-commit")
async def test_deferred_reads_share_one_request(store: Store) -> None:
    store.open.set()
    reads = DeferredReads(store.read, store.read_many)
    found = await asyncio.gather(*(reads.read(key) for key in ("a", "b", "a")))
    assert [each.key for each in found] == ["a", "b", "a"]
    assert (await reads.read("c")).data == b"c"
    assert store.read_requests == [["a", "b"], ["c"]]


@requirement("kit:group-commit")
async def test_deferred_reads_are_collected_until_flush(store: Store) -> None:
    store.open.set()
    reads = DeferredReads(store.read, store.read_many)
    wanted = [asyncio.ensure_future(reads.read(key)) for key in "ab"]
    await asyncio.sleep(0)
    wanted.append(asyncio.ensure_future(reads.read("c")))
    await asyncio.sleep(0)
    assert store.read_requests == []
    reads.flush()
    reads.flush()
    assert [(await each).key for each in wanted] == ["a", "b", "c"]
    assert store.read_requests == [["a", "b", "c"]]


async def test_a_failed_read_fails_all_its_readers(store: Store) -> None:
    store.open.set()
    store.away = SidecarError("UNAVAILABLE")
    reads = DeferredReads(store.read, store.read_many)
    outcomes = await asyncio.gather(*(reads.read(key) for key in "ab"), return_exceptions=True)
    assert outcomes == [store.away] * 2
