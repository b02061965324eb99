"""One platform whose connections pass fault proxies; its calls work again before each test."""

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.cli.stack.ports import PortPlan
from tests.chaos.faults import until_writable
from tests.faults.links import API, environment, proxied_ports
from tests.support.diagnosis import pytest_runtest_makereport as pytest_runtest_makereport
from tests.support.platform import START_SECONDS, Client, Platform
from tests.support.port_offsets import offset_of
from tests.support.toxiproxy import Toxiproxy

OFFSET = offset_of("faults")


@pytest.fixture(scope="session")
def state(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The state folder; kept, with its logs, when a test failed."""
    folder = Path(tempfile.mkdtemp(prefix="yocaso-faults-"))
    yield folder
    if not request.session.testsfailed:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def proxies(state: Path) -> Iterator[Toxiproxy]:
    """The fault proxies; `platform` starts them."""
    plan = PortPlan(OFFSET)
    running = Toxiproxy(state, plan.shifted(API), proxied_ports(plan))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def platform(state: Path, proxies: Toxiproxy) -> Iterator[Platform]:
    """The platform, started once."""
    running = Platform(state, offset=OFFSET, env=environment(state, PortPlan(OFFSET)))
    running.start_model()
    try:
        running.stack.prepare()
        proxies.start()  # not before: `prepare` requires that llm's port is free, and the proxy listens there
        running.stack.launch(START_SECONDS)
        yield running
    finally:
        running.stop()


@pytest.fixture
async def alice(platform: Platform) -> AsyncIterator[Client]:
    await until_writable(platform)
    async with platform.client(f"alice-{uuid.uuid4().hex[:8]}") as client:
        yield client
