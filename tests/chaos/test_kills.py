"""Kill -9 of every process that takes part in a turn, at every named step of a turn.

Twelve turns are held at twelve steps at once, so that one kill per process covers every step.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import Recovery, kill, restart, until_ready, until_writable
from tests.chaos.turns import MIDDLE, ObservedTurn, next_turn_works, script
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.model_server import script_text
from tests.support.platform import Client, Platform, idempotency_key
from tests.support.retries import RECOVERY_SECONDS, until_ok

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
"""The turn held at this step is run by the workflow's activity, because its first attempt failed (W2)."""
GENERATED = STEPS[STEPS.index("turn.after_generate") :]
"""From these steps on the answer is checkpointed: recovery does not call the model again."""
BY_WORKFLOW = ("workflows", "workflows-daprd", "scheduler")
"""Targets that only a turn with a failed first attempt needs."""


@dataclass
class HeldTurns:
    """Turns held at every step."""

    platform: Platform
    client: Client
    gate: str
    turns: dict[str, ObservedTurn] = field(default_factory=dict[str, ObservedTurn])
    calls: list[asyncio.Task[object]] = field(default_factory=list[asyncio.Task[object]])

    async def begin(self, control: FailpointControl) -> None:
        """Bring a turn to each step; fails if a step is not reached."""
        for step in STEPS:
            attempts = script()
            if step == BY_ACTIVITY:
                attempts[0] = {"status": 500}
            self.turns[step] = await ObservedTurn.begin(self.client, attempts)
            await control.wait_for(step, 20)
        held = script(gate=self.gate, gate_after=MIDDLE)
        self.turns["middle"] = await ObservedTurn.begin(self.client, held)
        self.turns["cancelled"] = await ObservedTurn.begin(self.client, held, may_be_cancelled=True)
        for name in ("middle", "cancelled"):
            await self.turns[name].shows(MIDDLE)
        self.calls.append(asyncio.create_task(self._cancel("cancelled")))
        await control.wait_for("turn.after_cancel_recorded", 20)
        self.calls.append(asyncio.create_task(self._send_unary()))
        await self.platform.wait_held(self.gate, 3)
        self.turns["race"] = await ObservedTurn.begin(
            self.client, script(delay_ms=10), may_be_cancelled=True
        )
        await self.turns["race"].shows(3)
        self.calls.append(asyncio.create_task(self._cancel("race")))

    async def ended(self) -> None:
        """Wait until all turns have ended and all calls were answered."""
        await asyncio.gather(*(turn.ended() for turn in self.turns.values()), *self.calls)

    async def problems(self) -> list[str]:
        """Violations of all turns, by step."""
        found = await asyncio.gather(*(turn.problems() for turn in self.turns.values()))
        return [
            f"{step}: {each}"
            for step, those in zip(self.turns, found, strict=True)
            for each in those
        ]

    def abandon(self) -> None:
        for turn in self.turns.values():
            turn.abandon()
        for call in self.calls:
            call.cancel()

    async def _cancel(self, name: str) -> None:
        await until_ok(self.client, "CancelTurn", seconds=150, **self.turns[name].ref)

    async def _send_unary(self) -> None:
        """A unary call whose key is reserved at the fault: a retry succeeds, without a lasting 409 (T1)."""
        conversation = await self.client.conversation()
        text = f"{script_text(tokens=5, gate=self.gate)} {uuid.uuid4().hex}"
        body: dict[str, Any] = {"conversationId": conversation, "text": text}
        key = idempotency_key()
        sent = await until_ok(self.client, "SendMessage", key, seconds=150, **body)
        again = await until_ok(self.client, "SendMessage", key, **body)
        assert again == sent
        listed = await until_ok(self.client, "ListMessages", conversationId=conversation)
        assert [each["role"] for each in listed["messages"]] == ["USER", "ASSISTANT"]


@asynccontextmanager
async def held_turns(platform: Platform, client: Client, socket: Path) -> AsyncIterator[HeldTurns]:
    """Holds turns at every step during the block, and releases them afterwards."""
    gate = uuid.uuid4().hex
    async with FailpointControl(socket) as control:
        points = [f"{step}:1:stop" for step in (*STEPS, "turn.after_cancel_recorded")]
        await restart(platform, "llm", control.environment(*points))
        await until_writable(platform)
        held = HeldTurns(platform, client, gate)
        try:
            await held.begin(control)
            yield held
            for hit in list(control.hits):
                await hit.release()
            await platform.release_gate(gate)
            await held.ended()
        finally:
            held.abandon()
            await platform.release_gate(gate)


@pytest.fixture
def turns_survive(
    platform: Platform, alice: Client, socket: Path, figure: Callable[..., None]
) -> Callable[[str], Awaitable[None]]:
    """Kills a process while a turn is held at every step, and checks all turns."""

    async def check(target: str) -> None:
        async with held_turns(platform, alice, socket) as held:
            recovery = Recovery(alice, by_workflow=target in BY_WORKFLOW)
            await kill(platform, target)
            recovered = asyncio.create_task(recovery.seconds())
            await until_ready(platform, target)
            healed = time.monotonic()
        figure(figure="recovery after kill -9", target=target, seconds=await recovered)
        late = {
            step: round(turn.ended_at - healed, 1)
            for step, turn in held.turns.items()
            if turn.ended_at - healed > RECOVERY_SECONDS
        }
        assert not late, f"seconds after {target} was ready: {late}"
        if target == "llm":  # only a kill of llm interrupts attempts
            restarted = {step for step, turn in held.turns.items() if turn.fold.restarts}
            assert {"turn.after_chunk", "middle"} <= restarted
        assert await held.problems() == []
        assert {step: await held.turns[step].model_calls(platform) for step in GENERATED} == (
            dict.fromkeys(GENERATED, 1) | {BY_ACTIVITY: 2}
        ), "the model was called again for a checkpointed answer"
        await asyncio.gather(*map(next_turn_works, held.turns.values()))

    return check


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
async def test_a_kill_at_any_step_of_a_turn_loses_and_duplicates_nothing(
    turns_survive: Callable[[str], Awaitable[None]], target: str
) -> None:
    await turns_survive(target)


@requirement("chaos:control-plane")
@pytest.mark.parametrize("target", ["placement", "scheduler"])
async def test_turns_survive_a_kill_of_the_control_plane(
    turns_survive: Callable[[str], Awaitable[None]], target: str
) -> None:
    await turns_survive(target)


@requirement("chaos:stores")
@pytest.mark.parametrize("target", ["postgres", "valkey"])
async def test_turns_survive_a_kill_of_a_store(
    turns_survive: Callable[[str], Awaitable[None]], target: str
) -> None:
    await turns_survive(target)
