"""Actor state by Dapr's state API: any component with transactions and ETags."""

import asyncio
from collections.abc import Sequence
from typing import Final

from services.kit.dapr.sidecar import Sidecar
from services.kit.dapr.state_rows import StateStoreError, StateWrite, StoredValue, TooLarge
from services.kit.group_commit import GatheredReads, GroupCommit

READS_AT_ONCE: Final = 16


class ComponentStateStore:
    """The component `statestore` behind this app's sidecar.

    A transaction of the API returns nothing, so a new ETag has to be read.
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._group = GroupCommit[StateWrite](
            sidecar.write,
            is_refusal=lambda error: isinstance(error, StateStoreError) and error.answered,
            key_of=lambda write: write.key,
            size_of=lambda write: write.size,
        )
        self._reads = GatheredReads(self.read, self.read_many)

    async def read(self, key: str) -> StoredValue:
        """Read one row."""
        return await self._sidecar.read(key)

    async def read_many(self, keys: Sequence[str]) -> list[StoredValue]:
        """Read rows in the order of `keys`; a missing row has no data.

        Each row that seems to be missing is read again by itself: where the store's connection breaks midway, daprd
        1.18 answers with what it has got so far, and says nothing.
        """
        found = await self._read_in_parts(keys)
        missing = [row.key for row in found if not row.data]
        again = dict[str, StoredValue]()
        for first in range(0, len(missing), READS_AT_ONCE):
            some = missing[first : first + READS_AT_ONCE]
            again |= zip(some, await asyncio.gather(*map(self.read, some)), strict=True)
        return [again.get(row.key, row) for row in found]

    async def _read_in_parts(self, keys: Sequence[str]) -> list[StoredValue]:
        """In halves what does not fit into one message, so that all can be read that can be read one by one."""
        if not keys:
            return []
        try:
            return await self._sidecar.read_at_once(keys)
        except TooLarge:
            if len(keys) == 1:
                raise
        half = len(keys) // 2
        return [*await self._read_in_parts(keys[:half]), *await self._read_in_parts(keys[half:])]

    async def write(self, writes: Sequence[StateWrite], *, alone: bool = False) -> str:
        """Write all or nothing; the API does not tell the new ETag."""
        if alone:
            await self._sidecar.write(writes)
        else:
            await self._group.write(writes)
        return ""

    async def read_later(self, key: str) -> StoredValue:
        """Read one row in a moment, together with others."""
        return await self._reads.read(key)

    def begin_reads(self) -> None:
        """Read now what `read_later` has gathered."""
        self._reads.begin()
