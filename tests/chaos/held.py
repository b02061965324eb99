"""Operations held at every step that the apps declare, so that one fault meets them all."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from services.contracts.apps import APPS
from services.contracts.llm.turns import TurnStatus
from tests.chaos.operations import (
    Creation,
    Deletion,
    Erasure,
    KeyChange,
    KeyCreation,
    Operation,
    PaidTurn,
    connected,
)
from tests.chaos.turns import MIDDLE, ObservedTurn, script
from tests.support.failpoint_control import FailpointControl, declared
from tests.support.model_server import script_text
from tests.support.platform import Client, Platform, idempotency_key
from tests.support.retries import until_ok
from tests.support.wait import wait_until

KILLED_ELSEWHERE: Final = {
    "auth.session_refreshed": "tests/component/auth/test_sessions.py",
    "firebase.after_lookup": "tests/component/auth/test_firebase_minting.py",
}
"""Steps of a sign-in by Firebase, which this platform does not have, and the tests that kill there."""
STEPS: Final = frozenset().union(*(declared(app.folder) for app in APPS)) - set(KILLED_ELSEWHERE)
HELD_SECONDS: Final = 150.0
TURNS: Final = "SELECT value FROM dapr.state WHERE key LIKE $1"


@dataclass
class CancelledTurn:
    """A turn in the middle of its answer, and the call that cancels it."""

    turn: ObservedTurn
    cancelling: "asyncio.Task[object]"

    @classmethod
    async def begin(
        cls, client: Client, attempts: list[dict[str, Any]], words: int
    ) -> "CancelledTurn":
        """Cancel a turn once it shows so many words."""
        turn = await ObservedTurn.begin(client, attempts, may_be_cancelled=True)
        await turn.shows(words)
        call = until_ok(client, "CancelTurn", seconds=HELD_SECONDS, **turn.ref)
        return cls(turn, asyncio.create_task(call))

    async def ended(self) -> None:
        await asyncio.gather(self.turn.ended(), self.cancelling)

    async def problems(self) -> list[str]:
        return await self.turn.problems()

    def abandon(self) -> None:
        self.turn.abandon()
        self.cancelling.cancel()


@dataclass
class UnaryTurn:
    """A unary call whose key is reserved at the fault: a retry succeeds, without a lasting 409 (T1)."""

    client: Client
    body: dict[str, Any]
    key: dict[str, str]
    sending: "asyncio.Task[Any]"

    @classmethod
    async def begin(cls, client: Client, gate: str) -> "UnaryTurn":
        conversation = await client.conversation()
        text = f"{script_text(tokens=5, gate=gate)} {uuid.uuid4().hex}"
        body: dict[str, Any] = {"conversationId": conversation, "text": text}
        key = idempotency_key()
        call = until_ok(client, "SendMessage", key, seconds=HELD_SECONDS, **body)
        return cls(client, body, key, asyncio.create_task(call))

    async def ended(self) -> None:
        await self.sending

    async def problems(self) -> list[str]:
        again = await until_ok(self.client, "SendMessage", self.key, **self.body)
        found = [] if again == await self.sending else ["a repeat was answered otherwise"]
        named = self.body["conversationId"]
        listed = await until_ok(self.client, "ListMessages", conversationId=named)
        roles = [each["role"] for each in listed["messages"]]
        return found + ([] if roles == ["USER", "ASSISTANT"] else [f"messages: {roles}"])

    def abandon(self) -> None:
        self.sending.cancel()


@dataclass
class HeldOperations:
    """One operation at each step, and turns in states between steps."""

    platform: Platform
    client: Client
    control: FailpointControl
    gate: str = field(default_factory=lambda: uuid.uuid4().hex)
    operations: dict[str, Operation] = field(default_factory=dict[str, Operation])

    async def begin(self) -> None:
        """Bring an operation to each step, in the order of `_flows`, then turns between steps."""
        flows = self._flows()
        unknown = [step for step in STEPS if _flow_of(step, flows) is None]
        assert not unknown, f"no operation comes to {unknown}: add it to `_flows`"
        for prefix, begin in flows.items():
            steps = {step for step in STEPS if _flow_of(step, flows) == prefix}
            self.control.arm(*(f"{step}:1:stop" for step in steps))
            while steps:  # an operation stops at the first step at which none stands
                operation = await begin()
                step = await self._hit_of(steps, operation)
                self.operations[step] = operation
                steps.remove(step)
        self.control.arm()
        await self._begin_between()

    def turn(self, name: str) -> ObservedTurn:
        """The turn of this name."""
        found = self.operations[name]
        assert isinstance(found, ObservedTurn)
        return found

    @property
    def turns(self) -> dict[str, ObservedTurn]:
        """Those that are plain turns, in the order of their steps."""
        return {
            name: each for name, each in self.operations.items() if isinstance(each, ObservedTurn)
        }

    async def require_standing(self) -> None:
        """Fail unless every operation is still at its step."""
        gone = STEPS - {hit.name for hit in self.control.standing()}
        assert not gone, f"no longer standing at {sorted(gone)}"
        await self.platform.wait_held(self.gate, 4)
        assert await self._has_queued(), "the queued turn has begun"

    async def release(self) -> None:
        """Let every operation continue."""
        for hit in self.control.hits:
            hit.release()
        await self.platform.release_gate(self.gate)

    async def ended(self, seconds: float) -> None:
        """Fail unless all end within so many seconds."""
        ends = {name: asyncio.create_task(each.ended()) for name, each in self.operations.items()}
        await asyncio.wait(ends.values(), timeout=seconds)
        late = [name for name, end in ends.items() if not end.done()]
        for name in late:
            ends[name].cancel()
        assert not late, f"not ended after {seconds:.0f} s: {late}"
        for end in ends.values():
            end.result()

    async def problems(self) -> list[str]:
        """Violations of all, by step."""
        found = await asyncio.gather(*(each.problems() for each in self.operations.values()))
        named = zip(self.operations, found, strict=True)
        return [f"{name}: {each}" for name, those in named for each in those]

    def abandon(self) -> None:
        for each in self.operations.values():
            each.abandon()

    def _flows(self) -> dict[str, Callable[[], Awaitable[Operation]]]:
        """How an operation is begun that comes to the steps with a prefix; the longest prefix of a step counts.

        The last one holds the delivery of tuples back, for which others may wait.
        """

        def begins(
            kind: "type[Creation | Deletion | Erasure | KeyChange | KeyCreation | PaidTurn]",
        ):
            return lambda: kind.begin(self.platform, self.client)

        retried = [{"status": 500}, *script()[1:]]
        held = script(gate=self.gate, gate_after=MIDDLE)
        return {
            "conversation.": begins(Creation),
            "conversation.after_rows": begins(Deletion),
            "conversation.before_forget": begins(Deletion),
            "erasure.": begins(Erasure),
            "auth.key_created": begins(KeyCreation),
            "auth.key_changed": begins(KeyChange),
            "turn.": lambda: ObservedTurn.begin(self.client, script()),
            # Made by the workflow's activity, because its first attempt failed (W2).
            "turn.after_terminal": lambda: ObservedTurn.begin(self.client, retried),
            "turn.after_cancel_recorded": lambda: CancelledTurn.begin(self.client, held, MIDDLE),
            "turn.after_charge": begins(PaidTurn),
            "auth.outbox.deliver": begins(KeyCreation),
        }

    async def _begin_between(self) -> None:
        """Turns amid their answers, one queued behind another, a unary one, and one that races its cancel."""
        held = script(gate=self.gate, gate_after=MIDDLE)
        middle = self.operations["middle"] = await ObservedTurn.begin(self.client, held)
        ahead = self.operations["ahead"] = await ObservedTurn.begin(self.client, held)
        await asyncio.gather(middle.shows(MIDDLE), ahead.shows(MIDDLE))
        self.operations["unary"] = await UnaryTurn.begin(self.client, self.gate)
        self.operations["queued"] = await ObservedTurn.begin(
            self.client, script(), conversation=ahead.conversation, admission="ENQUEUE"
        )
        await wait_until(self._has_queued, 20, "the queued turn")
        await self.platform.wait_held(self.gate, 4)
        self.operations["race"] = await CancelledTurn.begin(self.client, script(delay_ms=10), 3)

    async def _has_queued(self) -> bool:
        """Whether a turn waits behind the one ahead; it has no event yet."""
        pattern = f"%ConversationActor/{self.turn('ahead').conversation}/turn/%"
        async with connected(self.platform) as connection:
            rows = await connection.fetch(TURNS, pattern)
        states = [json.loads(row["value"])["turn"]["status"] for row in rows]
        return TurnStatus.QUEUED in states

    async def _hit_of(self, steps: set[str], operation: Operation) -> str:
        """The step of these at which the operation stands."""

        def hit() -> str | None:
            return next((each.name for each in self.control.hits if each.name in steps), None)

        try:
            return await wait_until(hit, 20, f"an operation at one of {sorted(steps)}", every=0.005)
        except AssertionError:
            operation.abandon()
            raise


def _flow_of(step: str, prefixes: dict[str, Any]) -> str | None:
    return max((each for each in prefixes if step.startswith(each)), key=len, default=None)


@asynccontextmanager
async def held_operations(
    platform: Platform, client: Client, control: FailpointControl
) -> AsyncIterator[HeldOperations]:
    """Operations held at every step; the block ends when it has released them and they have ended."""
    held = HeldOperations(platform, client, control)
    try:
        await held.begin()
        yield held
    finally:
        held.abandon()
        await platform.release_gate(held.gate)
