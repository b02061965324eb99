"""What is remembered of access checks, what makes it forgotten, and when a live stream is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from typing import Any, cast

import pytest

from services.kit import access_cache
from services.kit.access_cache import (
    EVERYTHING,
    FRESH_SECONDS,
    REMEMBERED_SECONDS,
    UNSURE_SECONDS,
    AccessCache,
    AccessChange,
    AccessChanges,
    AccessCheck,
)
from services.kit.errors import ErrorCode, RpcError
from services.kit.signals import Signals
from tests.requirements import requirement
from tests.support.wait import wait_until

VIEW = AccessCheck("ada", "viewer", "conversation:c1")
EDIT = AccessCheck("ada", "editor", "conversation:c1")
OTHER = AccessCheck("ada", "viewer", "conversation:c2")
BOB = AccessCheck("bob", "viewer", "conversation:c1")
AWAY = RpcError(ErrorCode.UNAVAILABLE, "away")


class Tuples:
    """An `AccessSource` over a set of what is allowed, with a feed that is written by hand."""

    def __init__(self, *allowed: AccessCheck) -> None:
        self.allowed = set(allowed)
        self.asked: list[AccessCheck] = []
        self.fed: list[AccessChange] = []
        self.reads = 0
        self.away = False
        self.feed_away = False
        self.asking = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.feed_gate = asyncio.Event()
        self.feed_gate.set()

    async def check(self, check: AccessCheck) -> bool:
        allowed = check in self.allowed
        self.asked.append(check)
        self.asking.set()
        await self.gate.wait()
        if self.away:
            raise AWAY
        return allowed

    async def changes(self, after: int | None) -> AccessChanges:
        await self.feed_gate.wait()
        self.reads += 1
        if self.feed_away:
            raise AWAY
        new = [EVERYTHING] if after is None else self.fed[after:]
        return AccessChanges(len(self.fed), new)


class WakeUps:
    """`Signals` within one process."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    @asynccontextmanager
    async def listen(self, name: str) -> AsyncIterator[asyncio.Event]:
        yield self.event


class World:
    """A cache that follows its feed, at a time that is moved by hand."""

    def __init__(self, tuples: Tuples) -> None:
        self.now = 0.0
        self.tuples = tuples
        self.cache = AccessCache(tuples, lambda: self.now)
        self.wake_ups = WakeUps()
        self.following: asyncio.Task[None] | None = None

    async def follow(self) -> "World":
        follow = self.cache.follow_feed(cast(Signals, self.wake_ups))
        self.following = asyncio.create_task(follow)
        await wait_until(lambda: self.tuples.reads == 1)
        return self

    async def change(self, *changes: AccessChange, removed: Iterable[AccessCheck] = ()) -> None:
        """Feed a change, and have it read."""
        self.tuples.allowed -= set(removed)
        self.tuples.fed += changes
        await self.read()

    async def read(self) -> None:
        before = self.tuples.reads
        self.wake_ups.event.set()
        await wait_until(lambda: self.tuples.reads > before)


@pytest.fixture
async def open_world() -> AsyncIterator[Callable[[Tuples], Awaitable[World]]]:
    opened: list[World] = []

    async def make(tuples: Tuples) -> World:
        opened.append(World(tuples))
        return await opened[-1].follow()

    yield make
    for world in opened:
        assert world.following is not None
        world.following.cancel()
        await asyncio.gather(world.following, return_exceptions=True)


OpenWorld = Callable[[Tuples], Awaitable[World]]


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


class Streams:
    """Live streams: what each was told."""

    def __init__(self, world: World, *checks: AccessCheck) -> None:
        self.told: list[list[ErrorCode]] = [[] for _ in checks]
        self._stack = ExitStack()
        for heard, check in zip(self.told, checks, strict=True):
            self._stack.enter_context(world.cache.watch(check, self._hear(heard)))

    def close(self) -> None:
        self._stack.close()

    @staticmethod
    def _hear(heard: list[ErrorCode]) -> Callable[[RpcError], None]:
        return lambda error: heard.append(error.code)


@requirement("access:stream-recheck")
async def test_streams_are_asked_for_once_per_check_and_only_after_a_change_that_concerns_them(
    open_world: OpenWorld,
) -> None:
    world = await open_world(Tuples(VIEW, BOB))
    for check in (VIEW, BOB):
        assert await world.cache.allows(check)
    streams = Streams(world, *[VIEW] * 100, BOB)
    await world.change(AccessChange("carl"), AccessChange("ada", "conversation:c2"))
    assert len(world.tuples.asked) == 2
    await world.change(AccessChange(None, "conversation:c1"), removed=[VIEW])
    await wait_until(lambda: all(streams.told[:100]))
    await wait_until(lambda: len(world.tuples.asked) == 4)
    assert streams.told == [[ErrorCode.NOT_FOUND]] * 100 + [[]]
    streams.close()
    await world.change(EVERYTHING)
    assert len(world.tuples.asked) == 4  # nobody is left to ask for


@requirement("access:stream-recheck")
async def test_a_change_between_the_yes_and_the_stream_ends_the_stream(
    open_world: OpenWorld,
) -> None:
    world = await open_world(Tuples(EDIT, VIEW))
    assert await world.cache.allows(EDIT)
    await world.change(AccessChange("ada", "conversation:c1"), removed=[EDIT, VIEW])
    heard: list[RpcError] = []
    with world.cache.watch(VIEW, heard.append, granted=EDIT):
        await wait_until(lambda: heard)
    assert heard[0].code is ErrorCode.NOT_FOUND


@requirement("access:stream-recheck")
async def test_a_stream_that_a_remembered_yes_let_in_costs_no_check(open_world: OpenWorld) -> None:
    world = await open_world(Tuples(EDIT, VIEW))
    assert await world.cache.allows(EDIT)
    with world.cache.watch(VIEW, lambda error: None, granted=EDIT):
        await asyncio.sleep(0)
    assert world.tuples.asked == [EDIT]


@requirement("access:stream-recheck")
async def test_a_change_during_the_recheck_is_asked_for_as_well(open_world: OpenWorld) -> None:
    world = await open_world(Tuples(VIEW))
    assert await world.cache.allows(VIEW)
    streams = Streams(world, VIEW)
    world.tuples.asking.clear()
    world.tuples.gate.clear()
    await world.change(AccessChange("ada"))
    await world.tuples.asking.wait()  # answered by the tuples as they are now, and late
    await world.change(AccessChange("ada"), removed=[VIEW])
    world.tuples.gate.set()
    await wait_until(lambda: streams.told[0])
    assert streams.told == [[ErrorCode.NOT_FOUND]]
    assert len(world.tuples.asked) == 3
    streams.close()


@requirement("access:stream-recheck", "access:fail-closed")
async def test_streams_end_ten_seconds_after_the_feed_was_read_last(open_world: OpenWorld) -> None:
    world = await open_world(Tuples(VIEW))
    assert await world.cache.allows(VIEW)
    streams = Streams(world, VIEW)
    world.tuples.feed_away = True
    world.now = UNSURE_SECONDS - 0.1
    await world.read()
    assert streams.told == [[]]
    world.now = UNSURE_SECONDS
    await world.read()
    await wait_until(lambda: streams.told[0])
    assert streams.told == [[ErrorCode.UNAVAILABLE]]
    streams.close()


@requirement("access:stream-recheck", "access:fail-closed")
async def test_a_stream_ends_where_its_recheck_has_no_answer_in_time(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await open_world(Tuples(VIEW))
    assert await world.cache.allows(VIEW)
    monkeypatch.setattr(access_cache, "UNSURE_SECONDS", 0.05)
    streams = Streams(world, VIEW)
    world.tuples.away = True
    await world.change(AccessChange("ada"))
    await wait_until(lambda: streams.told[0])
    assert streams.told == [[ErrorCode.UNAVAILABLE]]
    streams.close()


@requirement("access:stream-recheck")
async def test_a_recheck_that_fails_for_a_moment_is_repeated(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_cache, "RETRY_SECONDS", 0.01)
    world = await open_world(Tuples(VIEW))
    assert await world.cache.allows(VIEW)
    streams = Streams(world, VIEW)
    world.tuples.away = True
    await world.change(AccessChange("ada"))
    await wait_until(lambda: len(world.tuples.asked) > 2)
    world.tuples.away = False

    async def remembered() -> bool:
        asked = len(world.tuples.asked)
        return await world.cache.allows(VIEW) and len(world.tuples.asked) == asked

    await wait_until(remembered)
    assert streams.told == [[]]
    streams.close()


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
