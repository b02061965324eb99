"""A platform of today on the state folder of an earlier release."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.cli.stack.state import StateFolder
from tests.component.upgrade.archive import unpack
from tests.component.upgrade.kept import ALICE, BOB, DAVE, Kept
from tests.support.platform import SHORT_RETENTION, Client, Platform
from tests.support.port_offsets import offset_of

OFFSET = offset_of("upgrade")
ARCHIVES = sorted((Path(__file__).parent / "archives").glob("*.tar.xz"))


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The platform, and what the earlier release was given to keep."""

    platform: Platform
    kept: Kept


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.split(".")[0])
def upgraded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Upgraded]:
    folder = tmp_path_factory.mktemp("upgrade")
    kept = unpack(request.param, StateFolder(folder), OFFSET)
    platform = Platform(folder, OFFSET, env=SHORT_RETENTION)
    platform.start()
    yield Upgraded(platform, kept)
    platform.stop()


@pytest.fixture
async def alice(upgraded: Upgraded) -> AsyncIterator[Client]:
    async with upgraded.platform.client(ALICE) as client:
        yield client


@pytest.fixture
async def bob(upgraded: Upgraded) -> AsyncIterator[Client]:
    async with upgraded.platform.client(BOB) as client:
        yield client


@pytest.fixture
async def dave(upgraded: Upgraded) -> AsyncIterator[Client]:
    async with upgraded.platform.client(DAVE) as client:
        yield client
