"""A process that appends rows to one actor's state: `python -m tests.support.state_writer STORE KEY NAME COUNT`.

STORE is `component:` with the gRPC address of a sidecar of llm, or `postgres:` with the database URL. Each append
loads, commits under the ETag, retries after a conflict, and prints the acknowledged row.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import BaseModel

from services.kit.dapr.sidecar import Sidecar
from services.kit.dapr.state import DurableState, StateConflict
from services.kit.dapr.state_component import ComponentStateStore
from services.kit.dapr.state_postgres import PostgresStateStore
from services.kit.dapr.state_rows import StateStore
from services.kit.storage.db import Database


class Log(BaseModel):
    """The head row: the number of rows."""

    count: int = 0


class Row(BaseModel):
    """One row."""

    text: str


@asynccontextmanager
async def open_store(store: str) -> AsyncIterator[StateStore]:
    """Llm's rows through Dapr's state component or through SQL."""
    kind, _, address = store.partition(":")
    if kind == "component":
        sidecar = Sidecar(address)
        yield ComponentStateStore(sidecar, Database(""))  # the rows have no events
        await sidecar.close()
    else:
        database = Database(address)
        yield PostgresStateStore(database, "llm")
        await database.close()


async def append(store: str, key: str, name: str, count: int) -> None:
    """Append rows; waits for a line on stdin first, so that writers overlap."""
    async with open_store(store) as rows:
        state = DurableState(rows, key, Log)
        await state.load()
        print("loaded", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for number in range(count):
            await _append_one(state, f"{name}-{number}")
            print(f"{name}-{number}", flush=True)


async def _append_one(state: DurableState[Log], text: str) -> None:
    while True:
        log = await state.load() or Log()
        after = Log(count=log.count + 1)
        try:
            await state.commit(after, add={f"row/{after.count}": Row(text=text)})
        except StateConflict:
            state.forget()
        else:
            return


if __name__ == "__main__":
    asyncio.run(append(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
