"""Kill -9 at every named step of a turn, for every process that takes part in it.

Twelve turns stand at twelve different steps at once; then the target dies. So one kill shows a whole column of the
matrix, and no cell waits for another.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import Recovery, kill, restart, running, until_begun
from tests.chaos.turns import (
    MIDDLE,
    TurnUnderFire,
    held_at,
    next_turn_works,
    release,
    script,
)
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.model_server import script_text
from tests.support.patience import HEAL_SECONDS, until_ok
from tests.support.platform import Client, Platform

STEPS = (
    "turn.before_begin",  # T0
    "turn.after_user_commit",  # T2, T3: the actor call in flight, the message committed
    "turn.after_begin",  # T4
    "turn.before_model",  # T5
    "turn.after_chunk",  # T6, the first chunk
    "turn.after_generate",  # T11, before the commit
    "turn.after_commit",
    "turn.before_terminal",
    "turn.after_terminal",
)
BY_ACTIVITY = "turn.after_terminal"
"""At this step stands a turn whose first try failed, so that the workflow's activity drives it (W2)."""
GENERATED = STEPS[STEPS.index("turn.after_generate") :]
"""At these the answer is checkpointed: whoever takes over does not ask the model again."""
BY_WORKFLOW = ("workflows", "workflows-daprd", "scheduler")
"""Targets that a turn only misses when its first try has failed."""


@dataclass
class Column:
    """The turns of one kill."""

    platform: Platform
    client: Client
    gate: str
    turns: dict[str, TurnUnderFire] = field(default_factory=dict[str, TurnUnderFire])
    calls: list[asyncio.Task[object]] = field(default_factory=list[asyncio.Task[object]])

    async def stand(self, control: FailpointControl) -> None:
        """Bring a turn to each step; fails when a step is not reached."""
        for step in STEPS:
            tries = script()
            if step == BY_ACTIVITY:
                tries[0] = {"status": 500}
            self.turns[step] = await TurnUnderFire.begin(self.client, tries)
            await control.wait_for(step, 20)
        held = script(gate=self.gate, gate_after=MIDDLE)
        self.turns["middle"] = await TurnUnderFire.begin(self.client, held)
        self.turns["cancelled"] = await TurnUnderFire.begin(
            self.client, held, may_be_cancelled=True
        )
        for name in ("middle", "cancelled"):
            await self.turns[name].shows(MIDDLE)
        self.calls.append(asyncio.create_task(self._cancel("cancelled")))
        await control.wait_for("turn.after_cancel_recorded", 20)
        self.calls.append(asyncio.create_task(self._send_unary()))
        await held_at(self.platform, self.gate, 3)
        self.turns["race"] = await TurnUnderFire.begin(
            self.client, script(delay_ms=10), may_be_cancelled=True
        )
        await self.turns["race"].shows(3)
        self.calls.append(asyncio.create_task(self._cancel("race")))

    async def ended(self) -> None:
        """All turns have ended, and all calls were answered."""
        await asyncio.gather(*(turn.ended() for turn in self.turns.values()), *self.calls)

    async def problems(self) -> list[str]:
        """What is wrong with any turn."""
        found = await asyncio.gather(*(turn.problems() for turn in self.turns.values()))
        return [
            f"{step}: {each}"
            for step, those in zip(self.turns, found, strict=True)
            for each in those
        ]

    def abandon(self) -> None:
        """Stop all clients."""
        for turn in self.turns.values():
            turn.abandon()
        for call in self.calls:
            call.cancel()

    async def _cancel(self, name: str) -> None:
        await until_ok(self.client, "CancelTurn", seconds=150, **self.turns[name].ref)

    async def _send_unary(self) -> None:
        """A unary call that holds its key when the fault comes: a retry is answered, no lasting 409 (T1)."""
        conversation = await self.client.conversation()
        text = f"{script_text(tokens=5, gate=self.gate)} {uuid.uuid4().hex}"
        body: dict[str, Any] = {"conversationId": conversation, "text": text}
        key = {"idempotency-key": uuid.uuid4().hex}
        sent = await until_ok(self.client, "SendMessage", key, seconds=150, **body)
        again = await until_ok(self.client, "SendMessage", key, **body)
        assert again == sent
        listed = await until_ok(self.client, "ListMessages", conversationId=conversation)
        assert [each["role"] for each in listed["messages"]] == ["USER", "ASSISTANT"]


@asynccontextmanager
async def column(platform: Platform, client: Client, socket: Path) -> AsyncIterator[Column]:
    """Turns that stand at every step; afterwards all are let go, whatever happened."""
    gate = uuid.uuid4().hex
    async with FailpointControl(socket) as control:
        points = [f"{step}:1:stop" for step in (*STEPS, "turn.after_cancel_recorded")]
        await restart(platform, "llm", control.environment(*points))
        await until_begun(platform)
        standing = Column(platform, client, gate)
        try:
            await standing.stand(control)
            yield standing
            for hit in list(control.hits):
                await hit.release()
            await release(platform, gate)
            await standing.ended()
        finally:
            standing.abandon()
            await release(platform, gate)


async def _column_survives(
    platform: Platform,
    client: Client,
    socket: Path,
    figure: Callable[..., None],
    target: str,
) -> None:
    async with column(platform, client, socket) as standing:
        recovery = Recovery(client, by_workflow=target in BY_WORKFLOW)
        await kill(platform, target)
        recovered = asyncio.create_task(recovery.seconds())
        await running(platform, target)
        healed = time.monotonic()
    figure(figure="recovery after kill -9", target=target, seconds=await recovered)
    late = {
        step: round(turn.ended_at - healed, 1)
        for step, turn in standing.turns.items()
        if turn.ended_at - healed > HEAL_SECONDS
    }
    assert not late, f"seconds after {target} was back: {late}"
    if target == "llm":  # else the kill missed the attempts that stood in that process
        begun_anew = {step for step, turn in standing.turns.items() if turn.fold.restarts}
        assert {"turn.after_chunk", "middle"} <= begun_anew
    assert await standing.problems() == []
    assert {step: await standing.turns[step].model_calls(platform) for step in GENERATED} == (
        dict.fromkeys(GENERATED, 1) | {BY_ACTIVITY: 2}
    ), "a checkpointed answer was asked for again"
    await asyncio.gather(*map(next_turn_works, standing.turns.values()))


@requirement(
    "chaos:T0",
    "chaos:T1",
    "chaos:T2",
    "chaos:T3",
    "chaos:T4",
    "chaos:T5",
    "chaos:T6",
    "chaos:T11",
    "chaos:T12",
    "chaos:W2",
    "turns:fenced",
    "turns:attempt-restarted",
    "turns:liveness",
    "turns:one-terminal",
    "kit:segments",
)
@pytest.mark.parametrize("target", ["llm", "llm-daprd", "workflows", "workflows-daprd", "edge"])
async def test_a_kill_at_any_step_loses_nothing_and_doubles_nothing(
    platform: Platform,
    alice: Client,
    socket: Path,
    figure: Callable[..., None],
    target: str,
) -> None:
    await _column_survives(platform, alice, socket, figure, target)


@requirement("chaos:control-plane")
@pytest.mark.parametrize("target", ["placement", "scheduler"])
async def test_a_turn_survives_the_control_plane(
    platform: Platform,
    alice: Client,
    socket: Path,
    figure: Callable[..., None],
    target: str,
) -> None:
    await _column_survives(platform, alice, socket, figure, target)


@requirement("chaos:stores")
@pytest.mark.parametrize("target", ["postgres", "valkey"])
async def test_a_turn_survives_a_restart_of_a_store(
    platform: Platform,
    alice: Client,
    socket: Path,
    figure: Callable[..., None],
    target: str,
) -> None:
    await _column_survives(platform, alice, socket, figure, target)
