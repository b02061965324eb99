"""Actors on a real sidecar: direct and sidecar calls, deactivation, drain, two hosts."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from services.cli.stack import Stack
from tests.component.kit.conftest import SECOND
from tests.requirements import requirement
from tests.support.wait import wait_until

APP = "workflows"
LEDGERS = 12


class Ledgers:
    """Client of ledgers on a chosen host of the app."""

    def __init__(self, stack: Stack, session: aiohttp.ClientSession) -> None:
        self._stack = stack
        self._session = session

    async def call(self, host: str, what: str, ledger: str, **body: Any) -> tuple[int, Any]:
        """The response, also an error."""
        headers = {"dapr-api-token": self._stack.app_token(host)}
        url = f"{self._stack.url(host)}/{what}/{ledger}"
        try:
            async with self._session.post(url, json=body, headers=headers) as reply:
                return reply.status, await reply.json()
        except aiohttp.ClientError as error:
            return 503, repr(error)

    async def must(self, host: str, what: str, ledger: str, **body: Any) -> Any:
        """The first successful response."""

        async def answered() -> tuple[Any] | None:
            status, answer = await self.call(host, what, ledger, **body)
            assert status in (200, 503), answer
            return (answer,) if status == 200 else None

        return (await wait_until(answered, 40, f"{what} of {ledger} through {host}", every=0.2))[0]

    async def is_active(self, host: str, ledger: str) -> bool:
        """Whether that host calls the ledger directly."""
        return (await self.must(host, "host", ledger))["active"]

    async def deactivate(self, host: str, ledger: str) -> None:
        """Deactivate an actor as the sidecar does."""
        headers = {"dapr-api-token": self._stack.app_token(host)}
        url = f"{self._stack.url(host)}/actors/LedgerActor/{ledger}"
        async with self._session.delete(url, headers=headers) as reply:
            assert reply.status == 200, await reply.text()


@pytest.fixture
async def ledgers(stack: Stack) -> AsyncIterator[Ledgers]:
    """The app's ledgers, after a first successful call."""
    async with aiohttp.ClientSession() as session:
        opened = Ledgers(stack, session)
        await opened.must(APP, "append", uuid.uuid4().hex, text="warm")
        yield opened


@pytest.fixture
def second(stack: Stack) -> Iterator[str]:
    """A second host, stopped afterwards."""
    if SECOND not in stack.names:
        stack.add_replica(APP, 2)
    else:
        stack.supervisor.start(f"{SECOND}-daprd")
        stack.restart(SECOND)
        stack.wait_ready(f"{SECOND}-daprd")
    yield SECOND
    for name in (SECOND, f"{SECOND}-daprd"):
        stack.halt(name)


@requirement("kit:actor-in-place")
async def test_the_first_call_activates_an_actor_and_later_ones_are_direct(
    ledgers: Ledgers,
) -> None:
    ledger = uuid.uuid4().hex
    assert not await ledgers.is_active(APP, ledger)
    await ledgers.must(APP, "append", ledger, text="by the sidecar")
    assert await ledgers.is_active(APP, ledger)
    status, refused = await ledgers.call(APP, "append", ledger, text="no")
    assert (status, refused["error"]["code"]) == (400, "FAILED_PRECONDITION")
    counts = await asyncio.gather(
        *(ledgers.must(APP, "append", ledger, text=str(n)) for n in range(20))
    )
    assert sorted(each["count"] for each in counts) == list(range(2, 22))
    await ledgers.deactivate(APP, ledger)
    assert not await ledgers.is_active(APP, ledger)
    assert (await ledgers.must(APP, "append", ledger, text="again"))["count"] == 22
    assert await ledgers.is_active(APP, ledger)


@requirement("kit:actor-in-place", "kit:durable-state")
@pytest.mark.timeout(150)
async def test_actors_that_move_between_hosts_lose_no_call_and_no_entry(
    stack: Stack, ledgers: Ledgers
) -> None:
    names = [uuid.uuid4().hex for _ in range(LEDGERS)]
    acknowledged: dict[str, list[str]] = {name: [] for name in names}
    stop = asyncio.Event()

    async def write(name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await ledgers.must(APP, "append", name, text=str(number))
            acknowledged[name].append(str(number))

    writers = [asyncio.ensure_future(write(name)) for name in names]
    await asyncio.to_thread(stack.add_replica, APP, 2)

    async def moved() -> list[str]:
        gone = [name for name in names if not await ledgers.is_active(APP, name)]
        return [name for name in gone if await ledgers.is_active(SECOND, name)]

    taken = await wait_until(moved, 40, "an actor to move to the second host")
    for name in (SECOND, f"{SECOND}-daprd"):
        await asyncio.to_thread(stack.halt, name)
    before = {name: len(acknowledged[name]) for name in taken}

    async def written() -> bool:
        return all(len(acknowledged[name]) > before[name] for name in taken)

    await wait_until(written, 40, "appends to the actors that moved back")
    stop.set()
    await asyncio.gather(*writers)
    for name in names:
        entries = await ledgers.must(APP, "entries", name)
        # An unacknowledged append may have been written before its retry.
        assert list(dict.fromkeys(entries)) == acknowledged[name]


@requirement("kit:actor-in-place", "kit:durable-state")
@pytest.mark.timeout(150)
async def test_a_replaced_owner_repeats_the_call_after_an_etag_conflict(
    ledgers: Ledgers, second: str
) -> None:
    ledger = uuid.uuid4().hex
    await ledgers.must(APP, "append", ledger, text="one")
    hosts = [APP, second]
    [owner] = [host for host in hosts if await ledgers.is_active(host, ledger)]
    [replaced] = [host for host in hosts if host != owner]
    await ledgers.must(replaced, "believe", ledger)
    assert await ledgers.must(replaced, "entries", ledger) == ["one"]
    await ledgers.must(owner, "append", ledger, text="two")
    # The replaced host still has one entry in memory, and detects the conflict when it writes.
    assert (await ledgers.must(replaced, "append", ledger, text="three"))["count"] == 3
    counts = await asyncio.gather(
        *(ledgers.must(host, "append", ledger, text=host) for host in hosts * 3)
    )
    assert sorted(each["count"] for each in counts) == list(range(4, 10))
    assert (await ledgers.must(replaced, "append", ledger, text="last"))["count"] == 10
    entries = await ledgers.must(replaced, "entries", ledger)
    assert entries[:3] == ["one", "two", "three"]
    assert sorted(entries[3:-1]) == sorted(hosts * 3)
