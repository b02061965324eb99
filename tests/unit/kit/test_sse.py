"""A live stream asks again whether its reader may still read."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.kit import sse
from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import EventLog
from tests.requirements import requirement


class Reader:
    """A stream without news, whose clock moves a second at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(sse, "time", SimpleNamespace(monotonic=lambda: self.now))

    async def follow(self, stream_id: str, after: int) -> AsyncIterator[list[Any]]:
        while True:
            self.now += 1
            yield []

    async def until_ended(self, permitted: Any, limit: float = 60) -> bytes:
        chunks = sse.follow_as_sse(
            cast(EventLog, self),
            "s",
            0,
            is_terminal=lambda _: False,
            draining=lambda: self.now > limit,
            permitted=permitted,
        )
        return [chunk async for chunk in chunks][-1]


@requirement("access:stream-recheck")
async def test_a_reader_who_may_no_longer_read_is_cut_off_within_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = Reader(monkeypatch)

    async def permitted() -> bool:
        return reader.now < 12

    last = await reader.until_ended(permitted)
    assert last.startswith(b"event: error\n")
    assert b'"code":"NOT_FOUND"' in last
    assert reader.now <= 12 + 10


@requirement("access:stream-recheck", "access:fail-closed")
async def test_a_stream_ends_ten_seconds_after_the_last_certainty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = Reader(monkeypatch)
    sure: list[float] = [0.0]

    async def permitted() -> bool:
        if reader.now < 20:
            sure.append(reader.now)
            return True
        raise RpcError(ErrorCode.UNAVAILABLE, "away")

    last = await reader.until_ended(permitted)
    assert b'"code":"UNAVAILABLE"' in last
    assert reader.now - sure[-1] == 10


async def test_a_stream_outlives_a_short_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(monkeypatch)

    async def permitted() -> bool:
        if 20 <= reader.now < 25:
            raise RpcError(ErrorCode.UNAVAILABLE, "away")
        return True

    assert (await reader.until_ended(permitted)).startswith(b"event: reconnect\n")
    assert reader.now > 60
