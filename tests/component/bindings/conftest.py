"""The app with its sidecar, whose components are SMTP, cron and a clock, and a mail server."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from services.cli.stack import Stack
from services.codegen.dapr import set_scopes
from services.kit.storage.db import Database
from tests.component.bindings.app import APP
from tests.component.bindings.mail import Mailbox
from tests.support.app_stacks import AppCalls, write_template
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

OFFSET = offset_of("bindings")
MAIL_PORT = 7192 + OFFSET + 50
MAIL_SERVER = {"host": "127.0.0.1", "port": MAIL_PORT, "emailFrom": "yocaso@example.com"}
COMPONENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mail": ("bindings.smtp", MAIL_SERVER),
    "timed-mail": ("bindings.smtp", MAIL_SERVER),
    "clock": ("bindings.cron", {"schedule": "@every 1s"}),
}


def component(name: str, kind: str, metadata: Mapping[str, Any]) -> str:
    """A component whose scopes follow from the manifest."""
    values = [{"name": key, "value": str(value)} for key, value in metadata.items()]
    spec = {"type": kind, "version": "v1", "metadata": values}
    resource = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": spec,
        "scopes": [],
    }
    return set_scopes(yaml.safe_dump(resource), (APP,))


class Mailer:
    """Client of the app."""

    def __init__(
        self, stack: Stack, session: aiohttp.ClientSession, database: Database, mailbox: Mailbox
    ) -> None:
        self.stack = stack
        self.database = database
        self.mailbox = mailbox
        self._calls = AppCalls(stack, session)

    async def call(
        self,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> tuple[int, Any]:
        """Call the app as its sidecar does."""
        return await self._calls.call("llm", path, body, headers, method)

    async def send(self, **body: object) -> str:
        """Send mail; OK, or the code of the error."""
        metadata = {"emailTo": "ada@example.com", "subject": "s"}
        status, answer = await self.call("/send", {"metadata": metadata, **body})
        return "OK" if status == 200 else answer["error"]["code"]


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("bindings")
    template = write_template(Path(__file__).parent / "dapr.yaml", folder, APP)
    for name, (kind, metadata) in COMPONENTS.items():
        (folder / "components" / f"{name}.yaml").write_text(component(name, kind, metadata))
    stack = Stack(folder / "state", port_offset=OFFSET, dapr_yaml=template)
    stack.start(seconds=90)
    yield stack
    stack.stop()


@pytest.fixture
async def mailer(stack: Stack) -> AsyncIterator[Mailer]:
    """The app, with an empty mailbox that accepts."""
    database, mailbox = Database(stack.database_url()), Mailbox()
    await mailbox.open(MAIL_PORT)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        await wait_until(lambda: stack.is_ready("llm"), 60, "the app")
        for table in ("orders", "ticks", "broken", "events.inbox"):
            await database.fetch(f"DELETE FROM {table}")
        yield Mailer(stack, session, database, mailbox)
    await mailbox.close()
    await asyncio.shield(database.close())
