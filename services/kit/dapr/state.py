"""Durable state of an actor: a head row guarded by its ETag, and append-only rows beside it."""

import asyncio
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter

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
    """Another owner of the same actor wrote first; load again and decide again."""


class _Head(BaseModel, Generic[H]):
    """The head row: the value and the commit that wrote it, by which a lost reply is told from a lost race."""

    commit: str
    value: H


class DurableState(Generic[H]):
    """One actor's state: `<prefix>/head` and rows `<prefix>/<name>`.

    A commit is one transaction: the head under the ETag that was read, new rows that must not exist yet, and
    rows to put or remove. So two owners of an actor (Dapr may run two for a while) cannot both succeed.
    """

    def __init__(self, store: StateStore, prefix: str, head: type[H]) -> None:
        self._store = store
        self._prefix = prefix
        self._adapter: TypeAdapter[_Head[H]] = TypeAdapter(_head_of(head))
        self._head: H | None = None
        self._etag = ""
        self._fresh = False
        self._mine = False  # the last commit was this owner's, so no other one is known to write
        self._etag_read: asyncio.Task[None] | None = None

    async def load(self) -> H | None:
        """A copy of the head, or None where the actor has no state; it is read once and then kept.

        The copy is shallow: replace what is nested in it, do not change it.
        """
        if self._etag_read is not None:
            await self._join_etag_read()
        if not self._fresh:
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
    ) -> None:
        """Write all or nothing; `creates` are the first heads of other actors, by `first_head`.

        Raises:
            StateConflict: somebody else wrote since `load`; nothing was written.
            StateStoreError: the store could not be reached and the outcome is unknown; nothing is cached.
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
        self._fresh = False
        # Alone after a change of owners: the one before may have frozen amid a transaction, and whoever waits for its
        # row locks keeps the others of a merged transaction waiting.
        try:
            etag = await self._store.write(writes, alone=not self._mine)
        except StateStoreError as error:
            await self._settle(commit, error)
            return
        self._head, self._mine = head.model_copy(), True
        if etag:
            self._etag, self._fresh = etag, True
        else:  # it is read while the reply travels
            self._etag_read = asyncio.create_task(self._read_etag(commit))

    async def erase(self) -> None:
        """Remove the head; rows beside it are removed before.

        Raises:
            StateConflict, StateStoreError: as for `commit`.
        """
        if await self.load() is None:
            return
        etag, self._fresh = self._etag, False
        write = StateWrite(self._key("head"), None, WriteMode.MATCH, etag)
        try:
            await self._store.write([write], alone=True)
        except StateStoreError as error:
            stored = await self._store.read(self._key("head"))
            if stored.data and stored.etag != etag:
                raise StateConflict from error
            if stored.data:
                raise

    async def row(self, name: str, row: type[R]) -> R | None:
        """One row beside the head, or None."""
        found = await self._store.read(self._key(name))
        return row.model_validate_json(found.data) if found.data else None

    async def rows(self, names: Sequence[str], row: type[R]) -> list[R | None]:
        """Rows beside the head, in the order of `names`."""
        found = await self._store.read_many([self._key(name) for name in names])
        return [row.model_validate_json(item.data) if item.data else None for item in found]

    async def drop(self, names: Iterable[str]) -> None:
        """Remove rows outside of any commit: only for what the head no longer refers to."""
        await self._store.write([StateWrite(self._key(name), None) for name in names], alone=True)

    def forget(self) -> None:
        """Trust nothing that was read; the next `load` reads again."""
        self._fresh = self._mine = False
        if self._etag_read is not None:
            self._etag_read.cancel()
            self._etag_read = None

    async def _settle(self, commit: str, error: StateStoreError) -> None:
        stored = await self._store.read(self._key("head"))
        if stored.data and self._adapter.validate_json(stored.data).commit == commit:
            self._accept(stored)
            return
        if stored.etag != self._etag:
            raise StateConflict from error
        raise error

    async def _read_etag(self, commit: str) -> None:
        try:
            stored = await self._store.read_later(self._key("head"))
        except StateStoreError:
            return  # `load` reads again
        if stored.data and self._adapter.validate_json(stored.data).commit == commit:
            self._etag = stored.etag
            self._fresh = True

    async def _join_etag_read(self) -> None:
        task, self._etag_read = self._etag_read, None
        assert task is not None
        await asyncio.sleep(0)  # the task may not have begun
        self._store.begin_reads()
        try:
            await task
        except asyncio.CancelledError:
            if not task.done():
                raise
            self._fresh = False

    def _accept(self, stored: StoredValue) -> None:
        self._head = self._adapter.validate_json(stored.data).value if stored.data else None
        self._etag = stored.etag if stored.data else ""
        self._fresh, self._mine = True, False

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"


def first_head(prefix: str, head: BaseModel) -> StateWrite:
    """The head with which an actor that never was begins to exist; the write is refused where it has one."""
    first = _Head[Any](commit=uuid.uuid4().hex, value=head)
    return StateWrite(f"{prefix}/head", _dump(first), WriteMode.NEW)


async def read_heads(store: StateStore, prefixes: Sequence[str], head: type[H]) -> list[H | None]:
    """The committed heads of several actors, read without waking them."""
    adapter: TypeAdapter[_Head[H]] = TypeAdapter(_head_of(head))
    found = await store.read_many([f"{prefix}/head" for prefix in prefixes])
    return [adapter.validate_json(item.data).value if item.data else None for item in found]


def _head_of(head: type[H]) -> Any:
    generic: Any = _Head
    return generic[head]


def _dump(row: BaseModel) -> bytes:
    return row.model_dump_json(exclude_none=True).encode()
