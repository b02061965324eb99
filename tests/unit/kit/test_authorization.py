"""What is remembered of who may do what, and how a call is refused."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from services.kit.authorization import REMEMBERED, RENEWED, Decisions, Guard, Question, require
from services.kit.errors import ErrorCode, RpcError
from services.kit.identity import CallerIdentity
from services.kit.limits import RateLimiter
from tests.requirements import requirement
from tests.support.wait import wait_until

VIEW = Question("ada", "viewer", "conversation:c1")
ADA = CallerIdentity("ada", "ada@example.com", frozenset())


class Facts:
    """A `Judge` over a set of what holds; counts what it is asked."""

    def __init__(self, *holds: Question) -> None:
        self.holds = set(holds)
        self.asked: list[Question] = []
        self.away = False
        self.heard = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def judge(self, question: Question) -> bool:
        self.asked.append(question)
        self.heard.set()
        await self.gate.wait()
        if self.away:
            raise RpcError(ErrorCode.UNAVAILABLE, "away")
        return question in self.holds


class Denied:
    """Remembers who was denied what."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    async def denied(self, caller: CallerIdentity, relation: str, target: str) -> None:
        self.seen.append((caller.user_id, relation, target))


class Clock:
    """Moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_guard(facts: Facts, denials: Denied | None = None) -> Guard:
    return Guard(Decisions(facts), cast(RateLimiter, None), denials or Denied())


async def refusal(call: Callable[[], Any]) -> ErrorCode:
    with pytest.raises(RpcError) as caught:
        await call()
    return caught.value.code


@requirement("access:decisions")
async def test_a_yes_is_remembered_for_a_moment_only() -> None:
    facts, clock = Facts(VIEW), Clock()
    decisions = Decisions(facts, clock)
    assert await decisions.allows(VIEW)
    facts.holds.clear()
    clock.now = (REMEMBERED - RENEWED).total_seconds() - 0.1
    assert await decisions.allows(VIEW)
    clock.now = REMEMBERED.total_seconds()
    assert not await decisions.allows(VIEW)
    assert len(facts.asked) == 2


@requirement("access:decisions")
async def test_a_yes_in_use_is_renewed_beside_the_calls_that_it_lets_through() -> None:
    facts, clock = Facts(VIEW), Clock()
    decisions = Decisions(facts, clock)
    assert await decisions.allows(VIEW)
    clock.now = (REMEMBERED - RENEWED).total_seconds()
    facts.gate.clear()
    assert [await decisions.allows(VIEW) for _ in range(3)] == [True] * 3
    facts.gate.set()
    await wait_until(lambda: len(facts.asked) == 2)
    clock.now = REMEMBERED.total_seconds()
    assert await decisions.allows(VIEW)
    assert len(facts.asked) == 2


@requirement("access:decisions")
async def test_a_renewal_that_says_no_ends_what_was_remembered() -> None:
    facts, clock = Facts(VIEW), Clock()
    decisions = Decisions(facts, clock)
    assert await decisions.allows(VIEW)
    facts.holds.clear()
    clock.now = (REMEMBERED - RENEWED).total_seconds()
    assert await decisions.allows(VIEW)

    async def refused() -> bool:
        return not await decisions.allows(VIEW)

    await wait_until(refused, what="the no")


@requirement("access:fail-closed")
async def test_a_renewal_that_nobody_answers_leaves_a_yes_its_moment_and_no_longer() -> None:
    facts, clock = Facts(VIEW), Clock()
    decisions = Decisions(facts, clock)
    assert await decisions.allows(VIEW)
    facts.away = True
    clock.now = (REMEMBERED - RENEWED).total_seconds()
    assert await decisions.allows(VIEW)
    await wait_until(lambda: len(facts.asked) == 2)
    assert await decisions.allows(VIEW)
    clock.now = REMEMBERED.total_seconds()
    assert await refusal(lambda: decisions.allows(VIEW)) is ErrorCode.UNAVAILABLE


@requirement("access:decisions")
async def test_a_no_is_never_remembered() -> None:
    facts = Facts()
    decisions = Decisions(facts)
    assert not await decisions.allows(VIEW)
    facts.holds.add(VIEW)
    assert await decisions.allows(VIEW)


@requirement("access:decisions")
async def test_what_changed_is_asked_again_at_once() -> None:
    facts = Facts(VIEW)
    decisions = Decisions(facts)
    assert await decisions.allows(VIEW)
    facts.holds.clear()
    decisions.forget()
    assert not await decisions.allows(VIEW)


@requirement("access:decisions")
async def test_one_look_answers_all_who_ask_at_the_same_time() -> None:
    facts = Facts(VIEW)
    facts.gate.clear()
    decisions = Decisions(facts)
    asking = [asyncio.create_task(decisions.allows(VIEW)) for _ in range(50)]
    await facts.heard.wait()
    facts.gate.set()
    assert await asyncio.gather(*asking) == [True] * 50
    assert facts.asked == [VIEW]


@requirement("access:decisions")
async def test_an_answer_that_was_under_way_at_a_change_is_not_remembered() -> None:
    facts = Facts(VIEW)
    facts.gate.clear()
    decisions = Decisions(facts)
    asking = asyncio.create_task(decisions.allows(VIEW))
    await facts.heard.wait()
    decisions.forget()
    facts.gate.set()
    await asking
    facts.holds.clear()
    assert not await decisions.allows(VIEW)


@requirement("access:decisions")
async def test_a_stream_s_question_passes_by_what_is_remembered() -> None:
    facts = Facts(VIEW)
    decisions = Decisions(facts)
    assert await decisions.allows(VIEW)
    facts.holds.clear()
    assert not await decisions.still_allows(VIEW)
    assert not await decisions.allows(VIEW)


@requirement("access:fail-closed")
async def test_nobody_is_let_through_while_nobody_can_tell() -> None:
    facts = Facts(VIEW)
    facts.away = True
    guard = a_guard(facts)
    code = await refusal(lambda: require(guard, ADA, "viewer", "conversation:c1"))
    assert code is ErrorCode.UNAVAILABLE


@requirement("access:foreign-as-missing")
async def test_what_may_not_be_seen_is_not_found() -> None:
    denials = Denied()
    guard = a_guard(Facts(), denials)
    code = await refusal(lambda: require(guard, ADA, "editor", "conversation:c1"))
    assert code is ErrorCode.NOT_FOUND
    assert denials.seen == [("ada", "editor", "conversation:c1")]


async def test_what_may_be_seen_but_not_changed_says_so() -> None:
    guard = a_guard(Facts(VIEW))
    code = await refusal(lambda: require(guard, ADA, "editor", "conversation:c1"))
    assert code is ErrorCode.PERMISSION_DENIED
