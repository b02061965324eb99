"""Two hosts of one actor: appends through either sidecar, recorded as a history."""

import asyncio
import json
import os
import signal
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import grpc.aio

from services.llm.domain.commands import BeginTurnCommand
from tests.chaos.faults import kill, restart, running
from tests.support.actors import ActorCalls
from tests.support.checkers import check_seqs, check_set
from tests.support.history import History
from tests.support.platform import Platform
from tests.support.wait import wait_until

ROOT: Final = Path(__file__).parents[2]
BLIND: Final = str(ROOT / "tests" / "support" / "blind")
HOSTS: Final = ("llm", "llm-2")
BATCH: Final = 3
PATIENCE: Final = 4.0
"""How long a caller waits for an answer before it asks again."""
MESSAGES: Final = "SELECT value FROM dapr.state WHERE key LIKE $1"


@dataclass
class Log:
    """The messages of one conversation, appended by many."""

    conversation: str
    history: History = field(default_factory=History)


def begin_turn(log: Log) -> dict[str, object]:
    """The command that begins a turn of a conversation."""
    command = BeginTurnCommand.model_validate(
        {
            "turn_id": f"turn_{uuid.uuid4().hex}",
            "repeatable": True,
            "model": "scripted/one",
            "request": {"conversationId": log.conversation, "text": "hello"},
        }
    )
    return command.model_dump(mode="json", by_alias=True, exclude_none=True)


class NeverCame(AssertionError):
    """An append with a key was not acknowledged within the bound of I11."""


class Appender:
    """Calls ConversationActor through a chosen sidecar, as the app beside that sidecar would."""

    def __init__(self, platform: Platform) -> None:
        self._calls = ActorCalls(platform.stack)

    async def actor(
        self, host: str, conversation: str, method: str, body: Any, patience: float = PATIENCE
    ) -> Any:
        """The method's Reply; raises grpc.aio.AioRpcError where its outcome is unknown."""
        actor = ("ConversationActor", conversation)
        return await self._calls.invoke(host, actor, method, body, patience)

    async def close(self) -> None:
        """Close the connections."""
        await self._calls.close()

    async def append(self, log: Log, host: str, *, keyed: bool, patience: float = PATIENCE) -> bool:
        """Append a message; one with a key is repeated until its outcome is known, one without is not."""
        text = f"{host}-{uuid.uuid4().hex}"
        body = {
            "message_id": f"msg_{uuid.uuid4().hex}",
            "repeatable": keyed,
            "request": {"conversationId": log.conversation, "role": "USER", "text": text},
        }
        async with log.history.operation(host, "append", log.conversation, text) as attempt:
            acknowledged = await self._attempt(host, log, body, patience)
            if keyed and not acknowledged:
                await self._until_acknowledged(host, log, body)
                acknowledged = True
            if acknowledged:
                attempt.ok()
        return acknowledged

    async def _until_acknowledged(self, host: str, log: Log, body: Any) -> None:
        try:
            await wait_until(
                lambda: self._attempt(host, log, body), 60, "an append with a key", every=0.2
            )
        except AssertionError as error:
            raise NeverCame(str(error)) from None

    async def _attempt(self, host: str, log: Log, body: Any, patience: float = PATIENCE) -> bool:
        try:
            reply = await self.actor(host, log.conversation, "append_message", body, patience)
        except (grpc.aio.AioRpcError, TimeoutError):
            return False
        return reply.get("error") is None


async def damage(platform: Platform, log: Log) -> list[str]:
    """What the log lost or doubled, as the store has it: while two hosts act for an actor, either may show old news."""
    connection = await asyncpg.connect(platform.stack.database_url())
    try:
        rows = await connection.fetch(MESSAGES, f"%ConversationActor/{log.conversation}/message/%")
    finally:
        await connection.close()
    messages = sorted((json.loads(row["value"]) for row in rows), key=lambda each: int(each["seq"]))
    report = check_set([each["text"] for each in messages], log.history.operations("append"))
    return report.problems + check_seqs([int(each["seq"]) for each in messages])


async def two_hosts(platform: Platform, *, blind: bool) -> None:
    """Both hosts of llm run and answer; with `blind` they write without the guard."""
    path = os.pathsep.join([BLIND, str(ROOT)]) if blind else str(ROOT)
    env = {"PYTHONPATH": path}
    if HOSTS[1] in platform.stack.apps:
        await asyncio.to_thread(platform.stack.supervisor.start, f"{HOSTS[1]}-daprd")
        await restart(platform, HOSTS[1], env)
    else:
        await asyncio.to_thread(platform.stack.add_replica, "llm", 2, env=env)
    await restart(platform, HOSTS[0], env)
    await running(platform, *HOSTS, *(f"{host}-daprd" for host in HOSTS))


async def one_host(platform: Platform) -> None:
    """The second host is gone; the first one is as it was."""
    for name in (HOSTS[1], f"{HOSTS[1]}-daprd"):
        await asyncio.to_thread(platform.stack.halt, name)
    await restart(platform, HOSTS[0], {"PYTHONPATH": str(ROOT)})
    await restart(platform, f"{HOSTS[0]}-daprd")  # without what a mutant may have left in it


async def double_activation(platform: Platform, appender: Appender, logs: list[Log]) -> int:
    """Both hosts act for the same actors.

    The first host freezes amid a burst of calls: first its app, which has read its actors' state and has not written
    it yet, then its sidecar. Placement is killed, and its successor gives the actors to the other host, which
    writes. Then the first host wakes: it still believes that it owns them, and goes on where it stood. Returns how
    many appends the second host acknowledged while the first one was frozen.
    """
    first, second = HOSTS
    stack = platform.stack
    await asyncio.gather(
        *(appender.append(log, host, keyed=True) for log in logs for host in HOSTS)
    )
    app, sidecar = stack.process(first), stack.process(f"{first}-daprd")
    assert app is not None
    assert sidecar is not None
    burst = [
        asyncio.create_task(appender.append(log, first, keyed=keyed, patience=60))
        for log in logs
        for keyed in (True, False) * BATCH
    ]
    await asyncio.wait(burst, return_when=asyncio.FIRST_COMPLETED)
    os.kill(app, signal.SIGSTOP)
    assert not all(each.done() for each in burst), "nothing was under way"
    await asyncio.to_thread(stack.pause, f"{first}-daprd")
    try:
        await kill(platform, "placement")
        taken = await asyncio.gather(*(_append_some(appender, log, second) for log in logs))
    finally:
        os.kill(app, signal.SIGCONT)
        os.kill(sidecar, signal.SIGCONT)
    await asyncio.gather(*burst)
    await running(platform, "placement", *HOSTS)
    await asyncio.gather(
        *(
            appender.append(log, host, keyed=keyed)
            for log in logs
            for host in HOSTS
            for keyed in (True, False)
        )
    )
    return sum(taken)


async def _append_some(appender: Appender, log: Log, host: str) -> int:
    """Appends through one host, one after another."""
    return sum([await appender.append(log, host, keyed=True) for _ in range(BATCH)])
