"""Revocation of live streams."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from services.kit.access import cache as access_cache
from services.kit.access.cache import (
    ANY_ACCESS_CHANGE,
    MAX_UNVERIFIED_SECONDS,
    AccessChange,
    AccessCheck,
)
from services.kit.errors import AnyErrorCode, ErrorCode, RpcError
from tests.requirements import requirement
from tests.support.access import BOB, EDIT, VIEW, AccessFixture, FakeAccessSource
from tests.support.wait import wait_until
from tests.unit.kit.conftest import OpenAccess


class Streams:
    """Live streams, and the error that each received."""

    def __init__(self, access: AccessFixture, *checks: AccessCheck) -> None:
        self.told: list[list[AnyErrorCode]] = [[] for _ in checks]
        self._stack = ExitStack()
        for heard, check in zip(self.told, checks, strict=True):
            self._stack.enter_context(access.cache.watch(check, self._hear(heard)))

    def close(self) -> None:
        self._stack.close()

    @staticmethod
    def _hear(heard: list[AnyErrorCode]) -> Callable[[RpcError], None]:
        return lambda error: heard.append(error.code)


@requirement("access:stream-recheck")
async def test_streams_share_one_recheck_and_only_after_a_change_that_affects_them(
    open_access: OpenAccess,
) -> None:
    access = await open_access(FakeAccessSource(VIEW, BOB))
    for check in (VIEW, BOB):
        assert await access.cache.allows(check)
    streams = Streams(access, *[VIEW] * 100, BOB)
    await access.change(AccessChange("carl"), AccessChange("ada", "conversation:c2"))
    assert len(access.source.asked) == 2
    await access.change(AccessChange(None, "conversation:c1"), removed=[VIEW])
    await wait_until(lambda: all(streams.told[:100]))
    await wait_until(lambda: len(access.source.asked) == 4)
    assert streams.told == [[ErrorCode.NOT_FOUND]] * 100 + [[]]
    streams.close()
    await access.change(ANY_ACCESS_CHANGE)
    assert len(access.source.asked) == 4  # no stream is left


@requirement("access:stream-recheck")
async def test_a_change_between_admission_and_watch_ends_the_stream(
    open_access: OpenAccess,
) -> None:
    access = await open_access(FakeAccessSource(EDIT, VIEW))
    assert await access.cache.allows(EDIT)
    await access.change(AccessChange("ada", "conversation:c1"), removed=[EDIT, VIEW])
    heard: list[RpcError] = []
    with access.cache.watch(VIEW, heard.append, granted=EDIT):
        await wait_until(lambda: heard)
    assert heard[0].code is ErrorCode.NOT_FOUND


@requirement("access:stream-recheck")
async def test_a_stream_admitted_from_the_cache_costs_no_check(open_access: OpenAccess) -> None:
    access = await open_access(FakeAccessSource(EDIT, VIEW))
    assert await access.cache.allows(EDIT)
    with access.cache.watch(VIEW, lambda error: None, granted=EDIT):
        await asyncio.sleep(0)
    assert access.source.asked == [EDIT]


@requirement("access:stream-recheck")
async def test_a_change_during_the_recheck_causes_another_check(open_access: OpenAccess) -> None:
    access = await open_access(FakeAccessSource(VIEW))
    assert await access.cache.allows(VIEW)
    streams = Streams(access, VIEW)
    access.source.asking.clear()
    access.source.gate.clear()
    await access.change(AccessChange("ada"))
    await access.source.asking.wait()  # a late answer from the current source
    await access.change(AccessChange("ada"), removed=[VIEW])
    access.source.gate.set()
    await wait_until(lambda: streams.told[0])
    assert streams.told == [[ErrorCode.NOT_FOUND]]
    assert len(access.source.asked) == 3
    streams.close()


@requirement("access:stream-recheck", "access:fail-closed")
async def test_streams_end_ten_seconds_after_the_last_feed_read(open_access: OpenAccess) -> None:
    access = await open_access(FakeAccessSource(VIEW))
    assert await access.cache.allows(VIEW)
    streams = Streams(access, VIEW)
    access.source.feed_away = True
    access.now = MAX_UNVERIFIED_SECONDS - 0.1
    await access.read()
    assert streams.told == [[]]
    access.now = MAX_UNVERIFIED_SECONDS
    await access.read()
    await wait_until(lambda: streams.told[0])
    assert streams.told == [[ErrorCode.UNAVAILABLE]]
    streams.close()


@requirement("access:stream-recheck", "access:fail-closed")
async def test_a_stream_ends_if_its_recheck_times_out(
    open_access: OpenAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = await open_access(FakeAccessSource(VIEW))
    assert await access.cache.allows(VIEW)
    monkeypatch.setattr(access_cache, "MAX_UNVERIFIED_SECONDS", 0.05)
    streams = Streams(access, VIEW)
    access.source.away = True
    await access.change(AccessChange("ada"))
    await wait_until(lambda: streams.told[0])
    assert streams.told == [[ErrorCode.UNAVAILABLE]]
    streams.close()


@requirement("access:stream-recheck")
async def test_a_failed_recheck_is_retried(
    open_access: OpenAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_cache, "RETRY_SECONDS", 0.01)
    access = await open_access(FakeAccessSource(VIEW))
    assert await access.cache.allows(VIEW)
    streams = Streams(access, VIEW)
    access.source.away = True
    await access.change(AccessChange("ada"))
    await wait_until(lambda: len(access.source.asked) > 2)
    access.source.away = False

    async def remembered() -> bool:
        asked = len(access.source.asked)
        return await access.cache.allows(VIEW) and len(access.source.asked) == asked

    await wait_until(remembered)
    assert streams.told == [[]]
    streams.close()
