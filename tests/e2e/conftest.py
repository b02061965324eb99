"""One platform for all e2e tests: with certificates, sign-in by Firebase, traces and trusted back ends."""

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from services.auth.adapters.jose import JoseTokenSigner
from services.auth.adapters.postgres.signing import PostgresSigningKeys
from services.kit.eventlog import EventLog, HostLease
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from tests.support.dapr_command import find_dapr
from tests.support.diagnosis import pytest_runtest_makereport as pytest_runtest_makereport
from tests.support.firebase import FirebaseServer, running_firebase
from tests.support.foreign import PROGRAMS, ForeignSidecar, running_sidecars
from tests.support.host_platform import is_host
from tests.support.otlp import SpanReceiver
from tests.support.platform import (
    SHORT_RETENTION,
    Client,
    Platform,
    ReachablePlatform,
    find_host_platform,
)
from tests.support.port_offsets import PORTS, SIDECARS, offset_of

OFFSET = offset_of("e2e")
GOOGLE_PORT = PORTS["firebase e2e"]
KEY_SECRET = "encrypts the signing keys of these tests"
TRUSTED_APP = "shop"
"""A back end of somebody else that may call for any user."""
TRUSTED_APPS = (TRUSTED_APP, *(f"{TRUSTED_APP}-{each.language}" for each in PROGRAMS))
STRANGER = "stranger"
"""An app that the operator does not trust."""
SIDECAR_PORT = SIDECARS + OFFSET
"""Of the first foreign sidecar."""
SIDECAR_STREAM_SECONDS = 2
"""After which the edge ends a stream that came through the sidecar of another app."""
FIREBASE_SECONDS = 5
"""Seconds for which auth trusts a look-up of a user at Firebase; the least that it accepts."""
WAIT_SECONDS = 120
Begin = Callable[..., Coroutine[Any, Any, Any]]
DAPR = find_dapr()
collect_ignore = [] if DAPR else ["test_dapr_run.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of this folder."""
    for marker in (
        "waits(begin=f): `f` runs from the start beside other tests; the test gets its result as `waited`",
        "disturbs: stops or overloads a part of the platform, or holds the event loop, so it comes last",
    ):
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests last that began with the first, and behind them those that would disturb others."""
    last = ("waits", "disturbs")
    items.sort(key=lambda item: [bool(item.get_closest_marker(name)) for name in reversed(last)])


@pytest.fixture(scope="session", autouse=True)
async def begun(request: pytest.FixtureRequest) -> AsyncIterator[dict[Begin, asyncio.Task[Any]]]:
    """What the chosen tests wait for, begun before the first test; parameters are session fixtures."""
    marked = [marker for item in request.session.items for marker in item.iter_markers("waits")]
    tasks: dict[Begin, asyncio.Task[Any]] = {}
    for begin in dict.fromkeys(marker.kwargs["begin"] for marker in marked):
        names = inspect.signature(begin).parameters
        tasks[begin] = asyncio.create_task(begin(*map(request.getfixturevalue, names)))
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.fixture
async def waited(
    request: pytest.FixtureRequest,
    begun: dict[Begin, asyncio.Task[Any]],
    own_platform: Platform,
) -> Any:
    """The result of what the test waits for."""
    marker = request.node.get_closest_marker("waits")
    return await asyncio.wait_for(asyncio.shield(begun[marker.kwargs["begin"]]), WAIT_SECONDS)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not run; `tests/contract/test_run_template.py` runs everywhere."""
    if DAPR is None:
        terminalreporter.write_line(
            "`dapr` was not found by DAPR_CLI or on PATH: tests/e2e/test_dapr_run.py did not run"
        )


@pytest.fixture(scope="session")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file to which every app writes its spans."""
    return tmp_path_factory.mktemp("traces") / "spans.jsonl"


@pytest.fixture(scope="session")
def google() -> Iterator[FirebaseServer]:
    """Firebase, where users may sign in."""
    with running_firebase(GOOGLE_PORT) as server:
        yield server


@pytest.fixture(scope="session")
def spans() -> Iterator[SpanReceiver]:
    """The collector to which the edge, the apps and the sidecars export their spans."""
    with SpanReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def own_platform(
    tmp_path_factory: pytest.TempPathFactory,
    trace_file: Path,
    google: FirebaseServer,
    spans: SpanReceiver,
) -> Iterator[Platform]:
    """The platform of the tests: its model is scripted, and its processes, stores, logs and settings are theirs."""
    env = {
        "*": {"YOCASO_TRACE_FILE": str(trace_file)},
        "auth": {
            "AUTH_KEY_SECRET": KEY_SECRET,
            "AUTH_FIREBASE_REVOCATION_SECONDS": str(FIREBASE_SECONDS),
            **google.environment(),
        },
        "edge": {"EDGE_SIDECAR_STREAM_SECONDS": str(SIDECAR_STREAM_SECONDS)},
        **SHORT_RETENTION,
    }
    running = Platform(
        tmp_path_factory.mktemp("platform"),
        OFFSET,
        env=env,
        secure=True,
        trusted_apps=TRUSTED_APPS,
    )
    with pytest.MonkeyPatch.context() as environment:
        for name, value in spans.environment.items():
            environment.setenv(name, value)
        running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> ReachablePlatform:
    """The platform, for a test that only needs its edge and tokens; others name `own_platform` too."""
    if is_host(request.config):
        return find_host_platform()
    return request.getfixturevalue("own_platform")


@pytest.fixture(scope="session")
def sidecars(own_platform: Platform) -> Iterator[dict[str, ForeignSidecar]]:
    """A sidecar of each trusted back end and of an app that is not trusted, by app-id."""
    folder = own_platform.stack.state.path
    with running_sidecars(folder, SIDECAR_PORT, (*TRUSTED_APPS, STRANGER)) as running:
        yield running


@pytest.fixture
async def alice(platform: Platform) -> AsyncIterator[Client]:
    async with platform.client(f"alice-{uuid.uuid4().hex[:8]}") as client:
        yield client


@pytest.fixture
async def bob(platform: Platform) -> AsyncIterator[Client]:
    async with platform.client(f"bob-{uuid.uuid4().hex[:8]}") as client:
        yield client


@pytest.fixture
async def anonymous(platform: Platform) -> AsyncIterator[Client]:
    """A client without a credential."""
    async with aiohttp.ClientSession() as session:
        yield Client(platform.edge_url, "", session)


@pytest.fixture
async def conversation(alice: Client) -> str:
    return await alice.conversation()


@pytest.fixture
async def database(own_platform: Platform) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the platform's Postgres database."""
    connection = await asyncpg.connect(own_platform.stack.database_url())
    yield connection
    await connection.close()


@pytest.fixture
async def stores(own_platform: Platform) -> AsyncIterator[list[asyncpg.Connection]]:
    """Connections to both databases: the platform's and OpenFGA's."""
    url = own_platform.stack.database_url()
    opened = [await asyncpg.connect(url), await asyncpg.connect(url, database="openfga")]
    yield opened
    for connection in opened:
        await connection.close()


@pytest.fixture
async def log(own_platform: Platform) -> AsyncIterator[EventLog]:
    """The event log as another host uses it."""
    url = own_platform.stack.database_url()
    database, lease = Database(url), HostLease(url)
    wake_ups = WakeUps(own_platform.stack.url("valkey"))
    wake_ups.start()
    await lease.start()
    yield EventLog(database, wake_ups, lease.host_id)
    await lease.close()
    await wake_ups.close()
    await database.close()


@pytest.fixture
async def sign(own_platform: Platform) -> AsyncIterator[Callable[[dict[str, Any]], str]]:
    """Signs claims with the platform's signing key."""
    database = Database(own_platform.stack.database_url())
    key, *_ = await PostgresSigningKeys(database).all()
    signer = JoseTokenSigner(KEY_SECRET)
    yield lambda claims: signer.sign(key, claims)
    await database.close()
