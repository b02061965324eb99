"""A reader that names the last event it has gets the next one first: from memory, and on the wire."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from services.kit.eventlog import EventLog, StoredEvent
from services.kit.eventlog.live_tails import RECENT, Tail
from services.kit.http.draining import Draining
from services.kit.http.sse import follow_as_sse
from tests.requirements import requirement
from tests.support.sse import SseParser

COUNT = RECENT + 8
END = "run.completed"


def events(first: int, last: int) -> list[StoredEvent]:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        StoredEvent(seq, END if seq == COUNT else "text.delta", 1, "{}", at)
        for seq in range(first, last + 1)
    ]


def seqs(found: list[StoredEvent] | None) -> list[int] | None:
    return None if found is None else [event.seq for event in found]


@pytest.fixture
def tail() -> Tail:
    """Of COUNT events, of which the last RECENT are in memory."""
    tail = Tail()
    tail.is_local = True
    for seq in range(1, COUNT + 1):
        tail.add(events(seq, seq))
    return tail


@requirement("events:resume", "events:gap-free")
def test_a_tail_continues_after_any_event_or_leaves_it_to_the_table(tail: Tail) -> None:
    oldest = COUNT - RECENT + 1
    for after in range(COUNT):
        expected = list(range(after + 1, COUNT + 1)) if after + 1 >= oldest else None
        assert seqs(tail.after(after)) == expected
    assert tail.after(COUNT) == []


def test_a_tail_with_a_gap_has_only_what_follows_the_gap(tail: Tail) -> None:
    tail.add(events(COUNT + 5, COUNT + 6))
    assert tail.after(COUNT) is None
    assert seqs(tail.after(COUNT + 4)) == [COUNT + 5, COUNT + 6]


class Log:
    """An event log of COUNT events."""

    async def follow(
        self, stream_id: str, after: int, *, idle_seconds: float
    ) -> AsyncIterator[list[StoredEvent]]:
        del stream_id, idle_seconds
        yield events(after + 1, COUNT)


@contextmanager
def watch(_: Any) -> Iterator[None]:
    yield


@requirement("events:resume")
@pytest.mark.parametrize("after", [0, 1, COUNT - 2])
async def test_a_stream_begins_with_the_event_after_the_one_that_its_reader_has(after: int) -> None:
    stream = follow_as_sse(
        cast(EventLog, Log()),
        "s",
        after,
        is_terminal=lambda kind: kind == END,
        draining=Draining(),
        watch=watch,
        max_seconds=60,
    )
    sent = SseParser().feed(b"".join([chunk async for chunk in stream]))
    assert [int(event.id or 0) for event in sent] == list(range(after + 1, COUNT + 1))
