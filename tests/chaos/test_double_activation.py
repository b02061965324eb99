"""Two writers of one actor's state, as Dapr's placement and as processes cause them: nothing is lost or duplicated.

Each test also runs with ETags disabled (tests/support/unguarded_writes), where the same schedule must cause damage:
otherwise it would not detect a missing guard.
"""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.chaos.actor_hosts import (
    UNGUARDED,
    Appender,
    AppendNotAcknowledged,
    Log,
    begin_turn,
    double_activation,
    find_damage,
    start_two_hosts,
    stop_second_host,
)
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.platform import ROOT, Client, Platform
from tests.support.retries import until_ok
from tests.support.state_writer import open_store

ACTORS = 8
ROWS = 60
MUTANT_ROUNDS = 8
"""Unguarded, one round of the race may cause no damage."""


@pytest.fixture
async def appender(platform: Platform) -> AsyncIterator[Appender]:
    """Calls actors through the sidecars of llm."""
    appender = Appender(platform)
    yield appender
    await appender.close()


@pytest.fixture(params=[True, False], ids=["guarded", "unguarded"])
async def guarded(platform: Platform, request: pytest.FixtureRequest) -> AsyncIterator[bool]:
    """Runs two hosts of llm, with ETags and without."""
    await start_two_hosts(platform, guarded=request.param)
    yield request.param
    await stop_second_host(platform, guarded=request.param)


@requirement("chaos:double-activation", "kit:durable-state")
async def test_two_hosts_of_an_actor_lose_and_duplicate_nothing_under_etags(
    platform: Platform, alice: Client, appender: Appender, guarded: bool
) -> None:
    made = [await until_ok(alice, "CreateConversation") for _ in range(ACTORS)]
    logs = [Log(one["conversationId"]) for one in made]
    damage: list[str] = []
    for _ in range(1 if guarded else MUTANT_ROUNDS):
        try:
            acknowledged = await double_activation(platform, appender, logs)
        except AppendNotAcknowledged as error:
            damage = [str(error)]  # unguarded writes can also make every later append fail
            break
        assert acknowledged > 0, "the second host acknowledged nothing while the first was frozen"
        damage = [each for log in logs for each in await find_damage(platform, log)]
        if damage:
            break
    assert bool(damage) != guarded, damage


@requirement("chaos:double-activation", "kit:durable-state")
@pytest.mark.parametrize("guarded_writes", [True, False], ids=["guarded", "unguarded"])
async def test_two_processes_that_write_one_state_lose_no_commit_under_etags(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, guarded_writes: bool
) -> None:
    key = f"Writers/{uuid.uuid4().hex}"
    monkeypatch.setenv("DAPR_API_TOKEN", platform.stack.api_token("llm"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT) if guarded_writes else f"{UNGUARDED}:{ROOT}")
    stores = _stores(platform)
    acknowledged, exits = await _write(stores, key)
    found = await _rows(stores[0], key, len(acknowledged))
    # A guarded writer can also fail, when an unguarded one has written over its row.
    is_damaged = any(exits) or sorted(found) != sorted(acknowledged)
    assert is_damaged != guarded_writes, (exits, len(found))
    if guarded_writes:
        assert len(acknowledged) == len(stores) * ROWS


@requirement("chaos:caller-aborts")
async def test_calls_of_an_actor_do_not_overlap_when_a_caller_disconnects(
    alice: Client, appender: Appender, failpoints: FailpointControl
) -> None:
    failpoints.arm("turn.after_user_commit:1:stop")
    log, other = [Log(await alice.conversation()) for _ in range(2)]
    leaving = asyncio.create_task(
        appender.actor("llm", log.conversation, "begin_turn", begin_turn(log))
    )
    hit = await failpoints.wait_for("turn.after_user_commit")
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    next_call = asyncio.create_task(appender.append(log, "llm", keyed=True))
    for _ in range(20):
        await appender.append(other, "llm", keyed=True)
    assert hit.is_standing
    assert not next_call.done(), "two calls of one actor overlapped"
    hit.release()
    assert await next_call
    messages = (await alice.must("ListMessages", conversationId=log.conversation))["messages"]
    assert [each["text"] for each in messages[:2]] == [
        "hello",
        log.history.operations("append")[0].value,
    ]


async def _write(stores: list[str], key: str) -> tuple[list[str], list[int | None]]:
    """Append from one process for each store at once; the acknowledged rows, and exit codes."""
    module = "tests.support.state_writer"
    writers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, store, key, f"writer{number}", str(ROWS)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for number, store in enumerate(stores)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"loaded\n"
    outputs = await asyncio.gather(*(writer.communicate(b"go\n") for writer in writers))
    lines = [line for output, _ in outputs for line in output.decode().split()]
    return lines, [writer.returncode for writer in writers]


async def _rows(store: str, key: str, count: int) -> list[str]:
    async with open_store(store) as rows:
        found = await rows.read_many([f"{key}/row/{number + 1}" for number in range(count)])
    return [json.loads(row.data)["text"] for row in found if row.data]


def _stores(platform: Platform) -> list[str]:
    """Llm's rows through each implementation of `StateStore`, which detect each other's writes."""
    ports = platform.stack.spec("llm-daprd").ports
    address = f"127.0.0.1:{ports['gRPC of the sidecar of llm']}"
    return [f"component:{address}", f"postgres:{platform.stack.database_url()}"]
