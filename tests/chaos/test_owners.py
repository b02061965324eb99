"""Two owners of one actor, by Dapr's own doing and by force: nothing is lost and nothing is doubled.

Each is shown twice: with the guard nothing is damaged, and without it (tests/support/blind) the same schedule does
damage, so the test would notice if the guard were gone.
"""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.faults import restart, until_begun
from tests.chaos.owners import (
    BLIND,
    ROOT,
    Appender,
    Log,
    NeverCame,
    begin_turn,
    damage,
    double_activation,
    one_host,
    two_hosts,
)
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.owner import opened
from tests.support.patience import until_ok
from tests.support.platform import Client, Platform

ACTORS = 8
ROWS = 150
MUTANT_ROUNDS = 8


@pytest.fixture
async def appender(platform: Platform) -> AsyncIterator[Appender]:
    """Calls actors beside the sidecars."""
    opened = Appender(platform)
    yield opened
    await opened.close()


@pytest.fixture(params=[False, True], ids=["guarded", "blind"])
async def blind(platform: Platform, request: pytest.FixtureRequest) -> AsyncIterator[bool]:
    """Two hosts, with the guard and without; one again afterwards."""
    await two_hosts(platform, blind=request.param)
    yield request.param
    await one_host(platform)


@requirement("chaos:double-activation", "kit:durable-state")
async def test_two_hosts_of_an_actor_damage_nothing_while_the_guard_stands(
    platform: Platform, alice: Client, appender: Appender, blind: bool
) -> None:
    made = [await until_ok(alice, "CreateConversation") for _ in range(ACTORS)]
    logs = [Log(one["conversationId"]) for one in made]
    damaged: list[str] = []
    for _ in range(MUTANT_ROUNDS if blind else 1):  # a race that the mutant may win once by luck
        try:
            taken = await double_activation(platform, appender, logs)
        except NeverCame as error:
            damaged = [str(error)]  # the mutant may also block its own stores for good
            break
        assert taken > 0, "the other host acknowledged nothing while the first one was frozen"
        damaged = [each for log in logs for each in await damage(platform, log)]
        if damaged:
            break
    assert bool(damaged) == blind, damaged


@requirement("chaos:double-activation", "kit:durable-state")
@pytest.mark.parametrize("blind_owners", [False, True], ids=["guarded", "blind"])
async def test_two_processes_that_own_one_state_lose_no_commit_while_the_guard_stands(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, blind_owners: bool
) -> None:
    key = f"Owners/{uuid.uuid4().hex}"
    monkeypatch.setenv("DAPR_API_TOKEN", platform.stack.api_token("llm"))
    monkeypatch.setenv("PYTHONPATH", f"{BLIND}:{ROOT}" if blind_owners else str(ROOT))
    stores = _stores(platform)
    acknowledged = await _owners(stores, key)
    assert len(acknowledged) == len(stores) * ROWS
    found = await _rows(stores[0], key, len(acknowledged))
    assert (sorted(found) == sorted(acknowledged)) == (not blind_owners)


@requirement("chaos:caller-aborts")
async def test_a_caller_that_leaves_does_not_let_two_calls_overlap(
    platform: Platform, alice: Client, appender: Appender, socket: Path
) -> None:
    async with FailpointControl(socket) as control:
        await restart(platform, "llm", control.environment("turn.after_user_commit:1:stop"))
        await until_begun(platform)
        log, other = [Log(await alice.conversation()) for _ in range(2)]
        leaving = asyncio.create_task(
            appender.actor("llm", log.conversation, "begin_turn", begin_turn(log))
        )
        hit = await control.wait_for("turn.after_user_commit")
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        next_call = asyncio.create_task(appender.append(log, "llm", keyed=True))
        for _ in range(20):
            await appender.append(other, "llm", keyed=True)
        assert not next_call.done(), "two calls of one actor overlapped"
        await hit.release()
        assert await next_call
    messages = (await alice.must("ListMessages", conversationId=log.conversation))["messages"]
    assert [each["text"] for each in messages[:2]] == [
        "hello",
        log.history.operations("append")[0].value,
    ]


async def _owners(stores: list[str], key: str) -> list[str]:
    owners = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.owner", store, key, f"owner{number}", str(ROWS)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for number, store in enumerate(stores)
    ]
    for owner in owners:
        assert owner.stdout is not None
        assert await owner.stdout.readline() == b"loaded\n"
    outputs = await asyncio.gather(*(owner.communicate(b"go\n") for owner in owners))
    assert [owner.returncode for owner in owners] == [0] * len(stores)
    return [line for output, _ in outputs for line in output.decode().split()]


async def _rows(store: str, key: str, count: int) -> list[str]:
    async with opened(store) as rows:
        found = await rows.read_many([f"{key}/row/{number + 1}" for number in range(count)])
    return [json.loads(row.data)["text"] for row in found if row.data]


def _stores(platform: Platform) -> list[str]:
    """Llm's rows by each way: owners that use another one meet at the same guard."""
    ports = platform.stack.spec("llm-daprd").ports
    address = f"127.0.0.1:{ports['gRPC of the sidecar of llm']}"
    return [f"component:{address}", f"postgres:{platform.stack.database_url()}"]
