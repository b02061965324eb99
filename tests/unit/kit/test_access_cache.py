"""The access cache, and its invalidation by the change feed."""

import asyncio
from typing import Any, cast

import pytest

from services.kit.access import cache as access_cache
from services.kit.access.cache import (
    ANY_ACCESS_CHANGE,
    CACHE_SECONDS,
    FRESH_SECONDS,
    AccessChange,
    AccessCheck,
)
from services.kit.errors import ErrorCode, RpcError
from tests.requirements import requirement
from tests.support.access import BOB, EDIT, OTHER, VIEW, FakeAccessSource
from tests.support.wait import wait_until
from tests.unit.kit.conftest import OpenAccess


@requirement("access:cache")
async def test_a_granted_check_is_cached_and_unrelated_changes_cost_no_check(
    open_access: OpenAccess,
) -> None:
    source = FakeAccessSource(VIEW, EDIT, OTHER, BOB)
    access = await open_access(source)
    for check in (VIEW, EDIT, OTHER, BOB):
        assert await access.cache.allows(check)
    for change in (
        AccessChange("bob", "conversation:c2"),  # another user, ada's object
        AccessChange("ada", "conversation:c3"),  # ada, another object
        AccessChange("carl"),
        AccessChange(None, "conversation:c4"),
    ):
        await access.change(change)
    for check in (VIEW, EDIT, OTHER, BOB):
        assert await access.cache.allows(check)
    assert len(source.asked) == 4


@requirement("access:cache")
@pytest.mark.parametrize(
    ("change", "concerned"),
    [
        (AccessChange("ada", "conversation:c1"), {VIEW, EDIT}),
        (AccessChange(None, "conversation:c1"), {VIEW, EDIT, BOB}),
        (AccessChange("ada"), {VIEW, EDIT, OTHER}),
        (ANY_ACCESS_CHANGE, {VIEW, EDIT, OTHER, BOB}),
    ],
    ids=["user and object", "object", "user", "everything"],
)
async def test_only_affected_checks_are_repeated_after_a_change(
    open_access: OpenAccess, change: AccessChange, concerned: set[AccessCheck]
) -> None:
    every = (VIEW, EDIT, OTHER, BOB)
    access = await open_access(FakeAccessSource(*every))
    for check in every:
        await access.cache.allows(check)
    await access.change(change, removed=concerned)
    assert {check for check in every if not await access.cache.allows(check)} == concerned
    assert len(access.source.asked) == len(every) + len(concerned)


@requirement("access:cache")
async def test_a_denial_is_never_cached(open_access: OpenAccess) -> None:
    access = await open_access(FakeAccessSource())
    assert not await access.cache.allows(VIEW)
    access.source.allowed.add(VIEW)
    assert await access.cache.allows(VIEW)


@requirement("access:cache")
async def test_after_a_wake_up_a_call_waits_for_the_feed(open_access: OpenAccess) -> None:
    access = await open_access(FakeAccessSource(VIEW))
    assert await access.cache.allows(VIEW)
    access.source.feed_gate.clear()
    access.source.allowed.clear()
    access.source.fed.append(AccessChange("ada", "conversation:c1"))
    access.wake_ups.event.set()
    call = asyncio.create_task(access.cache.allows(VIEW))
    await asyncio.sleep(0)
    assert not call.done()
    access.source.feed_gate.set()
    assert not await call


@requirement("access:cache")
async def test_a_lost_wake_up_costs_five_seconds_at_most(open_access: OpenAccess) -> None:
    access = await open_access(FakeAccessSource(VIEW))
    assert await access.cache.allows(VIEW)
    access.source.allowed.clear()  # removed, but the feed is not read
    access.now = FRESH_SECONDS
    assert await access.cache.allows(VIEW)
    access.now = FRESH_SECONDS + 0.1
    assert not await access.cache.allows(VIEW)


@requirement("access:cache", "access:fail-closed")
async def test_while_the_feed_is_unreadable_the_cache_is_not_used(
    open_access: OpenAccess,
) -> None:
    access = await open_access(FakeAccessSource(VIEW, BOB))
    assert await access.cache.allows(VIEW)
    access.source.feed_away = True
    access.now = FRESH_SECONDS + 0.1
    await access.read()
    for _ in range(3):
        assert await access.cache.allows(VIEW)
    assert len(access.source.asked) == 4
    access.source.away = True
    with pytest.raises(RpcError) as unknown:
        await access.cache.allows(VIEW)
    assert unknown.value.code is ErrorCode.UNAVAILABLE
    # The feed continues at its last position, so no change is missed.
    access.source.away = access.source.feed_away = False
    await access.change(AccessChange("ada", "conversation:c1"), removed=[VIEW])
    assert not await access.cache.allows(VIEW)
    assert await access.cache.allows(BOB)
    asked = len(access.source.asked)
    assert await access.cache.allows(BOB)
    assert len(access.source.asked) == asked


@requirement("access:cache")
async def test_a_cached_check_expires(open_access: OpenAccess) -> None:
    access = await open_access(FakeAccessSource(VIEW))
    assert await access.cache.allows(VIEW)
    access.now = CACHE_SECONDS
    await access.read()  # the feed is fresh
    assert await access.cache.allows(VIEW)
    assert len(access.source.asked) == 2


@requirement("access:cache")
async def test_concurrent_calls_share_one_check(open_access: OpenAccess) -> None:
    access = await open_access(FakeAccessSource(VIEW))
    access.source.gate.clear()
    asking = [asyncio.create_task(access.cache.allows(VIEW)) for _ in range(50)]
    await access.source.asking.wait()
    access.source.gate.set()
    assert await asyncio.gather(*asking) == [True] * 50
    assert access.source.asked == [VIEW]


@requirement("access:cache")
@pytest.mark.parametrize(
    ("change", "asked"), [(AccessChange("ada"), 2), (AccessChange("bob"), 1)], ids=["ada", "bob"]
)
async def test_an_answer_overtaken_by_a_change_is_not_cached(
    open_access: OpenAccess, change: AccessChange, asked: int
) -> None:
    access = await open_access(FakeAccessSource(VIEW))
    access.source.gate.clear()
    asking = asyncio.create_task(access.cache.allows(VIEW))
    await access.source.asking.wait()
    await access.change(change)
    access.source.gate.set()
    assert await asking
    assert await access.cache.allows(VIEW)
    assert len(access.source.asked) == asked


@requirement("access:cache")
async def test_the_least_recently_used_check_is_evicted_first(
    open_access: OpenAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_cache, "MAX_CACHED", 2)
    access = await open_access(FakeAccessSource(VIEW, OTHER, BOB))
    for check in (VIEW, OTHER, VIEW, BOB):
        assert await access.cache.allows(check)
    asked = len(access.source.asked)
    for check in (VIEW, BOB):
        assert await access.cache.allows(check)
    assert len(access.source.asked) == asked
    assert await access.cache.allows(OTHER)
    assert len(access.source.asked) == asked + 1


async def test_a_feed_is_read_again_after_an_unexpected_exception(open_access: OpenAccess) -> None:
    access = await open_access(FakeAccessSource(VIEW))
    fed: Any = access.source.fed
    access.source.fed = cast(Any, None)
    access.wake_ups.event.set()
    await wait_until(lambda: access.source.reads == 2)
    access.source.fed = fed
    await access.read()
    assert await access.cache.allows(VIEW)
    assert await access.cache.allows(VIEW)
    assert len(access.source.asked) == 1
