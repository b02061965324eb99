"""The app with its sidecar, the scheduler and Postgres."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.cli.stack import Stack
from services.kit.storage.db import Database
from tests.component.jobs.app import APP
from tests.support.app_stacks import AppCalls, write_template
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

OFFSET = offset_of("jobs")


class Works:
    """Client of the app, and reader of its tables."""

    def __init__(self, stack: Stack, session: aiohttp.ClientSession, database: Database) -> None:
        self.stack = stack
        self.database = database
        self._calls = AppCalls(stack, session)

    async def post(
        self,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        headers: dict[str, str] | None = None,
        app: str = "llm",
    ) -> tuple[int, Any]:
        """Call the app as its sidecar does; 0 if it does not answer."""
        return await self._calls.call(app, path, body, headers)

    async def schedule(
        self, number: int, *, seconds: float = 0, key: str = "", mode: str = ""
    ) -> str:
        """Schedule a task; repeated until the app has answered, which is harmless. Its key."""
        key = key or f"k-{uuid.uuid4().hex}"
        plan = a_plan(number, datetime.now(UTC) + timedelta(seconds=seconds), key, mode)

        async def scheduled() -> bool:
            return (await self.post("/schedule", plan))[0] == 200

        await wait_until(scheduled, 60, f"task {number} to be scheduled", every=0.2)
        return key

    async def effects(self, job: str = "work") -> list[Any]:
        """The effects of a job's runs."""
        return await self.database.fetch(
            "SELECT run, pid, at FROM effects WHERE job = $1 ORDER BY at", job
        )

    async def tries(self, number: int) -> list[int]:
        """The process of each try of a task."""
        rows = await self.database.fetch("SELECT pid FROM tries WHERE number = $1", number)
        return [row[0] for row in rows]

    async def wait_effects(self, count: int, job: str = "work", seconds: float = 60) -> None:
        """Wait until there are so many effects, and require that there are no more."""

        async def are_there() -> bool:
            return len(await self.effects(job)) >= count

        await wait_until(are_there, seconds, f"{count} effects of {job}", every=0.1)
        assert len(await self.effects(job)) == count

    async def wait_tries(self, number: int, count: int = 1, seconds: float = 60) -> None:
        async def are_there() -> bool:
            return len(await self.tries(number)) >= count

        await wait_until(are_there, seconds, f"{count} tries of task {number}", every=0.1)

    async def mend(self, number: int) -> None:
        """Let a task succeed, or end its wait."""
        await self.database.fetch("INSERT INTO mended VALUES ($1)", number)

    async def record_of(self, name: str) -> Any:
        """The row of a job or a key."""
        query = "SELECT * FROM events.jobs WHERE app = 'llm' AND name = $1"
        return await self.database.fetch_one(query, name)


def a_plan(
    number: int, due: datetime, key: str, mode: str = "", *, replace: bool = False
) -> dict[str, Any]:
    """The body of a call of `/schedule`."""
    task = {"number": number, "mode": mode}
    return {"key": key, "due": due.isoformat(), "task": task, "replace": replace}


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("jobs")
    template = write_template(Path(__file__).parent / "dapr.yaml", folder, APP)
    stack = Stack(folder / "state", port_offset=OFFSET, dapr_yaml=template)
    stack.start(seconds=90)
    yield stack
    stack.stop()


@pytest.fixture
async def works(stack: Stack) -> AsyncIterator[Works]:
    """The app, without effects, tries and mended tasks of earlier tests."""
    database = Database(stack.database_url())
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await wait_until(lambda: stack.is_ready("llm"), 60, "the app")
        for table in ("effects", "tries", "mended", "reports", "ended_trials"):
            await database.fetch(f"DELETE FROM {table}")
        yield Works(stack, session, database)
    await asyncio.shield(database.close())
