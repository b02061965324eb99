"""When a live stream is told that its reader may no longer read."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from services.kit.access import cache as access_cache
from services.kit.access.cache import EVERYTHING, UNSURE_SECONDS, AccessChange, AccessCheck
from services.kit.errors import AnyErrorCode, ErrorCode, RpcError
from tests.requirements import requirement
from tests.support.access import BOB, EDIT, VIEW, Tuples, World
from tests.support.wait import wait_until
from tests.unit.kit.conftest import OpenWorld


class Streams:
    """Live streams: what each was told."""

    def __init__(self, world: World, *checks: AccessCheck) -> None:
        self.told: list[list[AnyErrorCode]] = [[] for _ in checks]
        self._stack = ExitStack()
        for heard, check in zip(self.told, checks, strict=True):
            self._stack.enter_context(world.cache.watch(check, self._hear(heard)))

    def close(self) -> None:
        self._stack.close()

    @staticmethod
    def _hear(heard: list[AnyErrorCode]) -> Callable[[RpcError], None]:
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
