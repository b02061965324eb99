"""Durable state of an actor: ETag conflicts, atomic commits, lost responses."""

from collections.abc import Sequence

import pytest
from pydantic import BaseModel

from services.kit.dapr.pubsub.outbox import OutboxEvent
from services.kit.dapr.state import DurableState, StateConflict, read_heads
from services.kit.dapr.state_rows import StateStoreError, StateWrite, StoredValue, WriteMode
from tests.requirements import requirement


class Head(BaseModel):
    count: int


class Row(BaseModel):
    text: str


class Store:
    """A transactional store in memory that can lose a response or a call; `returns_etags`: it returns new ETags."""

    def __init__(self, *, returns_etags: bool) -> None:
        self.returns_etags = returns_etags
        self.rows: dict[str, tuple[bytes, str]] = {}
        self.lose_reply = False
        self.lose_call = False
        self.lose_read = False
        self.reads = self.merged = 0
        self._version = 0

    async def read(self, key: str) -> StoredValue:
        self.reads += 1
        if self.lose_read:
            self.lose_read = False
            raise StateStoreError("read lost")
        return StoredValue(key, *self.rows.get(key, (b"", "")))

    async def read_many(self, keys: Sequence[str]) -> list[StoredValue]:
        return [await self.read(key) for key in keys]

    async def write(
        self,
        writes: Sequence[StateWrite],
        *,
        events: Sequence[OutboxEvent] = (),
        exclusive: bool = False,
    ) -> str:
        assert not events
        self.merged += not exclusive
        if self.lose_call:
            raise StateStoreError("not delivered")
        if not all(self._allowed(write) for write in writes):
            raise StateStoreError("etag mismatch")
        for write in writes:
            self._version += 1
            if write.data is None:
                self.rows.pop(write.key, None)
            else:
                self.rows[write.key] = (write.data, str(self._version))
        if self.lose_reply:
            raise StateStoreError("reply lost")
        return self.rows.get(writes[0].key, (b"", ""))[1] if self.returns_etags else ""

    read_deferred = read

    def flush_reads(self) -> None:
        pass

    def _allowed(self, write: StateWrite) -> bool:
        match write.mode:
            case WriteMode.NEW:
                return write.key not in self.rows
            case WriteMode.MATCH:
                return self.rows.get(write.key, (b"", ""))[1] == write.etag
            case WriteMode.ANY:
                return True


def owner(store: Store) -> DurableState[Head]:
    return DurableState(store, "actor", Head)


@pytest.fixture(params=[True, False], ids=["returns_etags", "silent"])
async def store(request: pytest.FixtureRequest) -> Store:
    store = Store(returns_etags=request.param)
    first = owner(store)
    assert await first.load() is None
    await first.commit(Head(count=1), add={"row/1": Row(text="one")})
    return store


@requirement("kit:durable-state")
async def test_only_one_of_two_owners_can_commit(store: Store) -> None:
    one, two = owner(store), owner(store)
    await one.load()
    await two.load()
    await one.commit(Head(count=2), add={"row/2": Row(text="one's")})
    with pytest.raises(StateConflict):
        await two.commit(Head(count=2), add={"row/3": Row(text="two's")}, remove=["row/1"])
    assert await two.load() == Head(count=2)
    assert await two.rows(["row/1", "row/2", "row/3"], Row) == [
        Row(text="one"),
        Row(text="one's"),
        None,
    ]


async def test_two_owners_that_create_the_state_write_one_head() -> None:
    store = Store(returns_etags=True)
    one, two = owner(store), owner(store)
    await one.load()
    await two.load()
    await one.commit(Head(count=1))
    with pytest.raises(StateConflict):
        await two.commit(Head(count=7))
    assert await read_heads(store, ["actor", "none"], Head) == [Head(count=1), None]


@requirement("kit:durable-state")
async def test_a_commit_with_a_lost_response_is_recognized(store: Store) -> None:
    state = owner(store)
    await state.load()
    store.lose_reply = True
    await state.commit(Head(count=2))
    store.lose_reply = False
    await state.commit(Head(count=3))
    assert await owner(store).load() == Head(count=3)


async def test_an_unsent_write_raises_and_discards_the_cache(store: Store) -> None:
    state = owner(store)
    await state.load()
    store.lose_call = True
    with pytest.raises(StateStoreError):
        await state.commit(Head(count=2))
    store.lose_call = False
    assert await state.load() == Head(count=1)


async def test_an_existing_row_refuses_the_whole_commit(store: Store) -> None:
    state = owner(store)
    await state.load()
    with pytest.raises(StateStoreError):
        await state.commit(Head(count=2), add={"row/1": Row(text="again")})
    assert await state.load() == Head(count=1)
    assert await state.row("row/1", Row) == Row(text="one")


async def test_the_head_is_read_once_and_its_new_etag_after_a_commit(store: Store) -> None:
    state = owner(store)
    await state.load()
    before = store.reads
    await state.load()
    assert store.reads == before
    for count in (2, 3, 4):
        await state.commit(Head(count=count), put={"last": Row(text=str(count))})
        assert await state.load() == Head(count=count)
    assert store.reads == before + (0 if store.returns_etags else 3)
    await state.drop(["last"])
    assert await state.row("last", Row) is None


async def test_an_unreadable_etag_is_read_at_the_next_load() -> None:
    store = Store(returns_etags=False)
    state = owner(store)
    await state.load()
    await state.commit(Head(count=2))
    store.lose_read = True
    assert await state.load() == Head(count=2)
    await state.commit(Head(count=3))
    assert await owner(store).load() == Head(count=3)


async def test_forget_discards_the_cache(store: Store) -> None:
    state, other = owner(store), owner(store)
    await state.load()
    await state.commit(Head(count=2))
    state.forget()
    await other.load()
    await other.commit(Head(count=5))
    assert await state.load() == Head(count=5)


@requirement("kit:group-commit")
async def test_only_the_last_writer_shares_transactions(
    store: Store,
) -> None:
    state, other = owner(store), owner(store)
    for count, merged in ((2, 0), (3, 1), (4, 2)):
        await state.load()
        await state.commit(Head(count=count))
        assert store.merged == merged
    await other.load()
    await other.commit(Head(count=5))
    with pytest.raises(StateConflict):
        await state.commit(Head(count=5))
    state.forget()
    await state.load()
    merged = store.merged
    await state.commit(Head(count=6))
    assert store.merged == merged
