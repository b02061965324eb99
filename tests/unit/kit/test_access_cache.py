"""What is remembered of access checks, and what makes it forgotten."""

import asyncio
from typing import Any, cast

import pytest

from services.kit.access import cache as access_cache
from services.kit.access.cache import (
    EVERYTHING,
    FRESH_SECONDS,
    REMEMBERED_SECONDS,
    AccessChange,
    AccessCheck,
)
from services.kit.errors import ErrorCode, RpcError
from tests.requirements import requirement
from tests.support.access import BOB, EDIT, OTHER, VIEW, Tuples
from tests.support.wait import wait_until
from tests.unit.kit.conftest import OpenWorld


@requirement("access:cache")
async def test_a_yes_is_remembered_and_changes_that_concern_others_cost_no_check(
    open_world: OpenWorld,
) -> None:
    tuples = Tuples(VIEW, EDIT, OTHER, BOB)
    world = await open_world(tuples)
    for check in (VIEW, EDIT, OTHER, BOB):
        assert await world.cache.allows(check)
    for change in (
        AccessChange("bob", "conversation:c2"),  # another user's, of an object of ada's
        AccessChange("ada", "conversation:c3"),  # ada's, of another object
        AccessChange("carl"),
        AccessChange(None, "conversation:c4"),
    ):
        await world.change(change)
    for check in (VIEW, EDIT, OTHER, BOB):
        assert await world.cache.allows(check)
    assert len(tuples.asked) == 4


@requirement("access:cache")
@pytest.mark.parametrize(
    ("change", "concerned"),
    [
        (AccessChange("ada", "conversation:c1"), {VIEW, EDIT}),
        (AccessChange(None, "conversation:c1"), {VIEW, EDIT, BOB}),
        (AccessChange("ada"), {VIEW, EDIT, OTHER}),
        (EVERYTHING, {VIEW, EDIT, OTHER, BOB}),
    ],
    ids=["user and object", "object", "user", "everything"],
)
async def test_what_a_change_concerns_and_nothing_else_is_asked_again(
    open_world: OpenWorld, change: AccessChange, concerned: set[AccessCheck]
) -> None:
    every = (VIEW, EDIT, OTHER, BOB)
    world = await open_world(Tuples(*every))
    for check in every:
        await world.cache.allows(check)
    await world.change(change, removed=concerned)
    assert {check for check in every if not await world.cache.allows(check)} == concerned
    assert len(world.tuples.asked) == len(every) + len(concerned)


@requirement("access:cache")
async def test_a_no_is_never_remembered(open_world: OpenWorld) -> None:
    world = await open_world(Tuples())
    assert not await world.cache.allows(VIEW)
    world.tuples.allowed.add(VIEW)
    assert await world.cache.allows(VIEW)


@requirement("access:cache")
async def test_after_a_wake_up_a_call_waits_for_what_changed(open_world: OpenWorld) -> None:
    world = await open_world(Tuples(VIEW))
    assert await world.cache.allows(VIEW)
    world.tuples.feed_gate.clear()
    world.tuples.allowed.clear()
    world.tuples.fed.append(AccessChange("ada", "conversation:c1"))
    world.wake_ups.event.set()
    call = asyncio.create_task(world.cache.allows(VIEW))
    await asyncio.sleep(0)
    assert not call.done()
    world.tuples.feed_gate.set()
    assert not await call


@requirement("access:cache")
async def test_a_lost_wake_up_costs_five_seconds_at_most(open_world: OpenWorld) -> None:
    world = await open_world(Tuples(VIEW))
    assert await world.cache.allows(VIEW)
    world.tuples.allowed.clear()  # removed, and the feed is not read
    world.now = FRESH_SECONDS
    assert await world.cache.allows(VIEW)
    world.now = FRESH_SECONDS + 0.1
    assert not await world.cache.allows(VIEW)


@requirement("access:cache", "access:fail-closed")
async def test_while_the_feed_cannot_be_read_everything_is_asked_and_then_remembered_again(
    open_world: OpenWorld,
) -> None:
    world = await open_world(Tuples(VIEW, BOB))
    assert await world.cache.allows(VIEW)
    world.tuples.feed_away = True
    world.now = FRESH_SECONDS + 0.1
    await world.read()
    for _ in range(3):
        assert await world.cache.allows(VIEW)
    assert len(world.tuples.asked) == 4
    world.tuples.away = True
    with pytest.raises(RpcError) as unknown:
        await world.cache.allows(VIEW)
    assert unknown.value.code is ErrorCode.UNAVAILABLE
    # Back, with all that was missed: the feed goes on where it was read last.
    world.tuples.away = world.tuples.feed_away = False
    await world.change(AccessChange("ada", "conversation:c1"), removed=[VIEW])
    assert not await world.cache.allows(VIEW)
    assert await world.cache.allows(BOB)
    asked = len(world.tuples.asked)
    assert await world.cache.allows(BOB)
    assert len(world.tuples.asked) == asked


@requirement("access:cache")
async def test_a_yes_is_not_remembered_for_ever(open_world: OpenWorld) -> None:
    world = await open_world(Tuples(VIEW))
    assert await world.cache.allows(VIEW)
    world.now = REMEMBERED_SECONDS
    await world.read()  # the feed is fresh
    assert await world.cache.allows(VIEW)
    assert len(world.tuples.asked) == 2


@requirement("access:cache")
async def test_one_check_answers_all_who_ask_at_the_same_time(open_world: OpenWorld) -> None:
    world = await open_world(Tuples(VIEW))
    world.tuples.gate.clear()
    asking = [asyncio.create_task(world.cache.allows(VIEW)) for _ in range(50)]
    await world.tuples.asking.wait()
    world.tuples.gate.set()
    assert await asyncio.gather(*asking) == [True] * 50
    assert world.tuples.asked == [VIEW]


@requirement("access:cache")
@pytest.mark.parametrize(
    ("change", "asked"), [(AccessChange("ada"), 2), (AccessChange("bob"), 1)], ids=["ada", "bob"]
)
async def test_an_answer_that_a_change_has_overtaken_is_not_remembered(
    open_world: OpenWorld, change: AccessChange, asked: int
) -> None:
    world = await open_world(Tuples(VIEW))
    world.tuples.gate.clear()
    asking = asyncio.create_task(world.cache.allows(VIEW))
    await world.tuples.asking.wait()
    await world.change(change)
    world.tuples.gate.set()
    assert await asking
    assert await world.cache.allows(VIEW)
    assert len(world.tuples.asked) == asked


@requirement("access:cache")
async def test_what_was_not_used_for_longest_is_forgotten_first(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_cache, "MAX_REMEMBERED", 2)
    world = await open_world(Tuples(VIEW, OTHER, BOB))
    for check in (VIEW, OTHER, VIEW, BOB):
        assert await world.cache.allows(check)
    asked = len(world.tuples.asked)
    for check in (VIEW, BOB):
        assert await world.cache.allows(check)
    assert len(world.tuples.asked) == asked
    assert await world.cache.allows(OTHER)
    assert len(world.tuples.asked) == asked + 1


async def test_a_feed_that_breaks_in_an_unforeseen_way_is_read_again(open_world: OpenWorld) -> None:
    world = await open_world(Tuples(VIEW))
    fed: Any = world.tuples.fed
    world.tuples.fed = cast(Any, None)
    world.wake_ups.event.set()
    await wait_until(lambda: world.tuples.reads == 2)
    world.tuples.fed = fed
    await world.read()
    assert await world.cache.allows(VIEW)
    assert await world.cache.allows(VIEW)
    assert len(world.tuples.asked) == 1
