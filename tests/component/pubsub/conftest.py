"""The shop and the ledger with their servers."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.cli.stack import Stack
from services.codegen.dapr import component_files, set_scopes
from services.kit.storage.db import Database
from tests.component.pubsub.topics import LEDGER, SHOP
from tests.support.app_stacks import ROOT, AppCalls, write_template
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

OFFSET = offset_of("pubsub")


def write_files(folder: Path) -> Path:
    """The template, with components whose scopes follow from the two manifests."""
    template = write_template(Path(__file__).parent / "dapr.yaml", folder)
    components = folder / "components"
    for file in component_files():
        if file.parent.name == "local":
            (components / file.name).write_text(set_scopes(file.read_text(), (SHOP, LEDGER)))
    for name in ("resiliency.yaml", "config.yaml"):
        text = (ROOT / "components" / "common" / name).read_text()
        (components if name == "resiliency.yaml" else folder).joinpath(name).write_text(text)
    return template


class Apps:
    """Client of both apps, and reader of the ledger's tables."""

    def __init__(self, stack: Stack, session: aiohttp.ClientSession, database: Database) -> None:
        self.stack = stack
        self.database = database
        self._calls = AppCalls(stack, session)
        self._session = session

    async def post(
        self, app: str, path: str, headers: dict[str, str] | None = None, **body: Any
    ) -> tuple[int, Any]:
        """Call an app as its sidecar does; 0 if it does not answer."""
        return await self._calls.call(app, path, body, headers)

    async def deliver(self, path: str, event: dict[str, Any] | bytes) -> str:
        """Deliver a message to the ledger as its sidecar does; the answer."""
        message = event if isinstance(event, bytes) else json.dumps(event).encode()
        wrapped: dict[str, Any] = {
            "specversion": "1.0",
            "data_base64": base64.b64encode(message).decode(),
        }
        sent = {"dapr-api-token": self.stack.app_token("auth")}
        url = f"{self.stack.url('auth')}{path}"
        async with self._session.post(url, json=wrapped, headers=sent) as reply:
            return {204: "SUCCESS", 503: "RETRY"}.get(reply.status, f"HTTP {reply.status}")

    async def place(self, *numbers: int, **body: Any) -> None:
        """Place orders; repeated until the shop has answered, which is harmless."""

        async def placed() -> bool:
            status, _ = await self.post("llm", "/place", numbers=list(numbers), **body)
            return status == 200

        await wait_until(placed, 60, f"orders {numbers[:3]} to be placed", every=0.2)

    async def entries(self, *numbers: int) -> list[int]:
        """The entries of these orders, one per handled event."""
        rows = await self.database.fetch(
            "SELECT number FROM ledger.entries WHERE number = ANY($1::int[]) ORDER BY number",
            list(numbers),
        )
        return [row[0] for row in rows]

    async def wait_entered(self, *numbers: int, seconds: float = 40) -> None:
        """Wait until each has an entry, and require that none has two."""

        async def entered() -> bool:
            return set(numbers) <= set(await self.entries(*numbers))

        await wait_until(entered, seconds, f"entries of {numbers[:3]}", every=0.1)
        assert await self.entries(*numbers) == sorted(numbers)

    async def dead_letters(self, **request: Any) -> list[dict[str, Any]]:
        """The ledger's dead letters."""
        return (await self.letters("ListDeadLetters", **request))["deadLetters"]

    async def letters(self, method: str, **request: Any) -> Any:
        """Call the ledger's service as its operator."""
        path = f"/yocaso.auth.v1.DeadLetterService/{method}"
        status, answer = await self.post("auth", path, {"dapr-caller-app-id": "auth"}, **request)
        assert status == 200, answer
        return answer

    async def refused(self, method: str, **request: Any) -> dict[str, Any]:
        """The error of such a call."""
        path = f"/yocaso.auth.v1.DeadLetterService/{method}"
        status, answer = await self.post("auth", path, {"dapr-caller-app-id": "auth"}, **request)
        assert status != 200, answer
        return answer["error"]


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("pubsub")
    stack = Stack(folder / "state", port_offset=OFFSET, dapr_yaml=write_files(folder))
    stack.start(seconds=90)
    yield stack
    stack.stop()


@pytest.fixture
async def apps(stack: Stack) -> AsyncIterator[Apps]:
    """Both apps, with an empty ledger that is not mended."""
    database = Database(stack.database_url())
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        opened = Apps(stack, session, database)
        await wait_until(lambda: stack.is_ready("auth") and stack.is_ready("llm"), 60, "both apps")
        for table in ("ledger.entries", "ledger.tries", "ledger.mended", "ledger.moves"):
            await database.fetch(f"DELETE FROM {table}")
        await database.fetch("DELETE FROM events.dead_letters")
        await database.fetch("DELETE FROM shop.orders")
        yield opened
    await asyncio.shield(database.close())
