"""Durable state of an actor: a head row, written under its ETag, and further rows."""

import asyncio
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter

from services.kit.dapr.pubsub.outbox import OutboxEvent
from services.kit.dapr.state_rows import (
    StateStore,
    StateStoreError,
    StateWrite,
    StoredValue,
    WriteMode,
)

H = TypeVar("H", bound=BaseModel)
R = TypeVar("R", bound=BaseModel)


class StateConflict(Exception):
    """Another owner of the actor wrote first; reload and repeat the call."""


class _Head(BaseModel, Generic[H]):
    """The head row. The commit id shows whether a write with a lost response was committed."""

    commit: str
    value: H


class DurableState(Generic[H]):
    """One actor's state: the row `<prefix>/head` and rows `<prefix>/<name>`.

    Each commit is one transaction that includes the head under its ETag. So of two owners of an actor, which Dapr may
    run for a while, only one can commit.
    """

    def __init__(self, store: StateStore, prefix: str, head: type[H]) -> None:
        self._store = store
        self._prefix = prefix
        self._adapter: TypeAdapter[_Head[H]] = TypeAdapter(_head_of(head))
        self._head: H | None = None
        self._etag = ""
        self._is_loaded = False
        self._wrote_last = False  # the last known commit was made here, so no other owner is known
        self._etag_read: asyncio.Task[None] | None = None

    async def load(self) -> H | None:
        """A shallow copy of the cached head, or None without state; nested objects must not be mutated."""
        if self._etag_read is not None:
            await self._join_etag_read()
        if not self._is_loaded:
            self._accept(await self._store.read(self._key("head")))
        return self._head.model_copy() if self._head else None

    async def commit(
        self,
        head: H,
        *,
        add: Mapping[str, BaseModel] | None = None,
        put: Mapping[str, BaseModel] | None = None,
        remove: Iterable[str] = (),
        creates: Iterable[StateWrite] = (),
        events: Sequence[OutboxEvent] = (),
    ) -> None:
        """Write all or nothing; `creates` are the first heads of other actors, by `first_head`.

        `events`, made by `outbox_event`, are published after the commit.

        Raises:
            StateConflict: another owner wrote since `load`; nothing was written.
            StateStoreError: the store is unreachable and the outcome unknown; the cache is discarded.
        """
        commit = uuid.uuid4().hex
        mode = WriteMode.MATCH if self._etag else WriteMode.NEW
        value = self._adapter.dump_json(_Head(commit=commit, value=head), exclude_none=True)
        writes = [StateWrite(self._key("head"), value, mode, self._etag)]
        writes += [
            StateWrite(self._key(k), _dump(v), WriteMode.NEW) for k, v in (add or {}).items()
        ]
        writes += [StateWrite(self._key(k), _dump(v)) for k, v in (put or {}).items()]
        writes += [StateWrite(self._key(k), None) for k in remove]
        writes += creates
        self._is_loaded = False
        # After a change of owners, no shared transaction: the former owner may have frozen while holding row locks,
        # and the other writes would wait for them too.
        try:
            etag = await self._store.write(writes, events=events, exclusive=not self._wrote_last)
        except StateStoreError as error:
            await self._check_committed(commit, error)
            return
        self._head, self._wrote_last = head.model_copy(), True
        if etag:
            self._etag, self._is_loaded = etag, True
        else:  # read while the response is sent
            self._etag_read = asyncio.create_task(self._read_etag(commit))

    async def erase(self) -> None:
        """Delete the head; delete the other rows before.

        Raises:
            StateConflict, StateStoreError: as for `commit`.
        """
        if await self.load() is None:
            return
        etag, self._is_loaded = self._etag, False
        write = StateWrite(self._key("head"), None, WriteMode.MATCH, etag)
        try:
            await self._store.write([write], exclusive=True)
        except StateStoreError as error:
            stored = await self._store.read(self._key("head"))
            if stored.data and stored.etag != etag:
                raise StateConflict from error
            if stored.data:
                raise

    async def row(self, name: str, row: type[R]) -> R | None:
        """A row, or None."""
        found = await self._store.read(self._key(name))
        return row.model_validate_json(found.data) if found.data else None

    async def rows(self, names: Sequence[str], row: type[R]) -> list[R | None]:
        """Rows in the order of `names`."""
        found = await self._store.read_many([self._key(name) for name in names])
        return [row.model_validate_json(item.data) if item.data else None for item in found]

    async def drop(self, names: Iterable[str]) -> None:
        """Delete rows outside a commit: only rows that the head no longer refers to."""
        await self._store.write(
            [StateWrite(self._key(name), None) for name in names], exclusive=True
        )

    def forget(self) -> None:
        """Discard the cache; the next `load` reads again."""
        self._is_loaded = self._wrote_last = False
        if self._etag_read is not None:
            self._etag_read.cancel()
            self._etag_read = None

    async def _check_committed(self, commit: str, error: StateStoreError) -> None:
        """Resolve an unknown outcome by reading the head; raises unless the commit was written."""
        stored = await self._store.read(self._key("head"))
        if stored.data and self._adapter.validate_json(stored.data).commit == commit:
            self._accept(stored)
            return
        if stored.etag != self._etag:
            raise StateConflict from error
        raise error

    async def _read_etag(self, commit: str) -> None:
        try:
            stored = await self._store.read_deferred(self._key("head"))
        except StateStoreError:
            return  # `load` reads again
        if stored.data and self._adapter.validate_json(stored.data).commit == commit:
            self._etag = stored.etag
            self._is_loaded = True

    async def _join_etag_read(self) -> None:
        task, self._etag_read = self._etag_read, None
        assert task is not None
        await asyncio.sleep(0)  # the task may not have begun
        self._store.flush_reads()
        try:
            await task
        except asyncio.CancelledError:
            if not task.done():
                raise
            self._is_loaded = False

    def _accept(self, stored: StoredValue) -> None:
        self._head = self._adapter.validate_json(stored.data).value if stored.data else None
        self._etag = stored.etag if stored.data else ""
        self._is_loaded, self._wrote_last = True, False

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"


def first_head(prefix: str, head: BaseModel) -> StateWrite:
    """The write that creates an actor's first head; it fails if the actor has one."""
    first = _Head[Any](commit=uuid.uuid4().hex, value=head)
    return StateWrite(f"{prefix}/head", _dump(first), WriteMode.NEW)


async def read_heads(store: StateStore, prefixes: Sequence[str], head: type[H]) -> list[H | None]:
    """The committed heads of several actors, read without activating them."""
    adapter: TypeAdapter[_Head[H]] = TypeAdapter(_head_of(head))
    found = await store.read_many([f"{prefix}/head" for prefix in prefixes])
    return [adapter.validate_json(item.data).value if item.data else None for item in found]


def _head_of(head: type[H]) -> Any:
    generic: Any = _Head
    return generic[head]


def _dump(row: BaseModel) -> bytes:
    return row.model_dump_json(exclude_none=True).encode()
