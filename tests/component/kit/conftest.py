"""An app with one actor, on a real sidecar."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.cli.stack import Stack
from services.kit.eventlog import migrate_event_log
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from tests.support.port_offsets import offset_of

OFFSET = offset_of("actors")
SECOND = "workflows-2"
TEMPLATE = Path(__file__).parent / "actors" / "dapr.yaml"


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The app with its sidecar and servers."""
    stack = Stack(
        tmp_path_factory.mktemp("actors"),
        port_offset=OFFSET,
        dapr_yaml=TEMPLATE,
        unsupervised=(SECOND, f"{SECOND}-daprd"),
    )
    stack.start(seconds=90)
    yield stack
    stack.stop()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with the tables of the event log."""
    opened = Database(database_url)
    await migrate_event_log(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def wake_ups(servers: Stack) -> AsyncIterator[WakeUps]:
    opened = WakeUps(servers.url("valkey"))
    opened.start()
    yield opened
    await opened.close()
