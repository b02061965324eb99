"""Two hosts of the same actors: appends through either sidecar, recorded as a history."""

import asyncio
import json
import os
import signal
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import grpc.aio

from services.llm.domain.commands import BeginTurnCommand
from tests.chaos.faults import halt, kill, restart, run_replica, until_ready
from tests.support.actors import ActorCalls
from tests.support.checkers import check_append_log, check_seqs
from tests.support.history import History
from tests.support.platform import ROOT, Platform
from tests.support.retries import RECOVERY_SECONDS
from tests.support.wait import wait_until

UNGUARDED: Final = str(ROOT / "tests" / "support" / "unguarded_writes")
HOSTS: Final = ("llm", "llm-2")
BATCH: Final = 3
CALL_SECONDS: Final = 4.0
"""How long a caller waits for a reply before it retries."""
MESSAGES: Final = "SELECT value FROM dapr.state WHERE key LIKE $1"


@dataclass
class Log:
    """Appends of several clients to one conversation."""

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


class AppendNotAcknowledged(AssertionError):
    """A keyed append was not acknowledged within `RECOVERY_SECONDS`."""


class Appender:
    """Calls ConversationActor through a chosen sidecar, as the app beside that sidecar does."""

    def __init__(self, platform: Platform) -> None:
        self._calls = ActorCalls(platform.stack)

    async def actor(
        self, host: str, conversation: str, method: str, body: Any, timeout: float = CALL_SECONDS
    ) -> Any:
        """The method's Reply; raises grpc.aio.AioRpcError or TimeoutError if its outcome is unknown."""
        actor = ("ConversationActor", conversation)
        return await self._calls.invoke(host, actor, method, body, timeout)

    async def close(self) -> None:
        await self._calls.close()

    async def append(
        self, log: Log, host: str, *, keyed: bool, timeout: float = CALL_SECONDS
    ) -> bool:
        """Append a message and return whether it was acknowledged; a keyed append is retried until it is."""
        text = f"{host}-{uuid.uuid4().hex}"
        body = {
            "message_id": f"msg_{uuid.uuid4().hex}",
            "repeatable": keyed,
            "request": {"conversationId": log.conversation, "role": "USER", "text": text},
        }
        async with log.history.operation(host, "append", log.conversation, text) as operation:
            acknowledged = await self._attempt(host, log, body, timeout)
            if keyed and not acknowledged:
                await self._until_acknowledged(host, log, body)
                acknowledged = True
            if acknowledged:
                operation.ok()
        return acknowledged

    async def _until_acknowledged(self, host: str, log: Log, body: Any) -> None:
        try:
            await wait_until(
                lambda: self._attempt(host, log, body),
                RECOVERY_SECONDS,
                "a keyed append",
                every=0.2,
            )
        except AssertionError as error:
            raise AppendNotAcknowledged(str(error)) from None

    async def _attempt(self, host: str, log: Log, body: Any, timeout: float = CALL_SECONDS) -> bool:
        try:
            reply = await self.actor(host, log.conversation, "append_message", body, timeout)
        except (grpc.aio.AioRpcError, TimeoutError):
            return False
        return reply.get("error") is None


async def find_damage(platform: Platform, log: Log) -> list[str]:
    """Lost, duplicated or misplaced messages, read from Postgres: with two hosts of an actor, either may serve stale reads."""
    connection = await asyncpg.connect(platform.stack.database_url())
    try:
        rows = await connection.fetch(MESSAGES, f"%ConversationActor/{log.conversation}/message/%")
    finally:
        await connection.close()
    messages = sorted((json.loads(row["value"]) for row in rows), key=lambda each: int(each["seq"]))
    problems = check_append_log(
        [each["text"] for each in messages], log.history.operations("append")
    )
    return problems + check_seqs([int(each["seq"]) for each in messages])


async def start_two_hosts(platform: Platform, *, guarded: bool) -> None:
    """Run two hosts of llm; unguarded ones write actor state without ETags."""
    if guarded:
        await run_replica(platform, HOSTS[0], {"PYTHONPATH": str(ROOT)})
    else:
        env = {"PYTHONPATH": os.pathsep.join([UNGUARDED, str(ROOT)])}
        await asyncio.gather(run_replica(platform, HOSTS[0], env), restart(platform, HOSTS[0], env))
    await until_ready(platform, *HOSTS, *(f"{host}-daprd" for host in HOSTS))


async def stop_second_host(platform: Platform, *, guarded: bool = True) -> None:
    """Stop the second host; an unguarded first one gets its guard back."""
    await halt(platform, HOSTS[1], f"{HOSTS[1]}-daprd")
    if not guarded:
        await restart(platform, HOSTS[0], {"PYTHONPATH": str(ROOT)})
        await restart(platform, f"{HOSTS[0]}-daprd")  # drops actor state that it left


async def double_activation(platform: Platform, appender: Appender, logs: list[Log]) -> int:
    """Make two hosts write for the same actors; returns the appends acknowledged by the second host meanwhile.

    The first host freezes during a burst of calls: its app after reading and before writing actor state, then its
    sidecar. Placement is killed and its successor assigns the actors to the second host, which writes. The first host
    resumes, still believes that it owns the actors, and continues its writes.
    """
    first, second = HOSTS
    stack = platform.stack
    await asyncio.gather(
        *(appender.append(log, host, keyed=True) for log in logs for host in HOSTS)
    )
    app, sidecar = stack.pid(first), stack.pid(f"{first}-daprd")
    assert app is not None
    assert sidecar is not None
    burst = [
        asyncio.create_task(appender.append(log, first, keyed=keyed, timeout=60))
        for log in logs
        for keyed in (True, False) * BATCH
    ]
    await asyncio.wait(burst, return_when=asyncio.FIRST_COMPLETED)
    os.kill(app, signal.SIGSTOP)
    assert not all(each.done() for each in burst), "no call was in flight"
    await asyncio.to_thread(stack.pause, f"{first}-daprd")
    try:
        await kill(platform, "placement")
        acknowledged = await asyncio.gather(*(_append_batch(appender, log, second) for log in logs))
    finally:
        os.kill(app, signal.SIGCONT)
        os.kill(sidecar, signal.SIGCONT)
    await asyncio.gather(*burst)
    await until_ready(platform, "placement", *HOSTS)
    await asyncio.gather(
        *(
            appender.append(log, host, keyed=keyed)
            for log in logs
            for host in HOSTS
            for keyed in (True, False)
        )
    )
    return sum(acknowledged)


async def _append_batch(appender: Appender, log: Log, host: str) -> int:
    """Sequential appends through one host."""
    return sum([await appender.append(log, host, keyed=True) for _ in range(BATCH)])
