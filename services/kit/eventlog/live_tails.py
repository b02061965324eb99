"""Delivers events to followers in this process: local appends directly, others by wake-up and poll."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from services.kit.eventlog.records import StoredEvent
from services.kit.storage.wake_ups import Subscription, WakeUps

RECENT: Final = 32
"""Events per stream kept in memory for followers."""


class Tail:
    """The newest events of one stream, and its followers in this process."""

    __slots__ = ("_recent", "followers", "is_local", "last_seq", "wake_up")

    def __init__(self) -> None:
        self.last_seq = 0
        self.is_local = False
        """Whether an attempt of this process writes the stream, so that `last_seq` is exact."""
        self.followers: set[asyncio.Event] = set()
        self.wake_up: Subscription | None = None
        self._recent: deque[StoredEvent] = deque(maxlen=RECENT)

    def add(self, events: Sequence[StoredEvent]) -> None:
        """Add committed events, and wake the followers."""
        if self._recent and events[0].seq != self._recent[-1].seq + 1:
            self._recent.clear()
        self._recent.extend(events)
        self.last_seq = events[-1].seq
        self.wake()

    def after(self, seq: int) -> list[StoredEvent] | None:
        """Events after `seq`; None if they must be read from the table."""
        if self.is_local and seq >= self.last_seq:
            return []
        if not self._recent or not self._recent[0].seq <= seq + 1 <= self._recent[-1].seq:
            return None
        skipped = seq + 1 - self._recent[0].seq
        return [event for place, event in enumerate(self._recent) if place >= skipped]

    def advance(self, seq: int) -> None:
        """Note that a follower read the table up to `seq`."""
        if not self.is_local:
            self.last_seq = max(self.last_seq, seq)

    def wake(self) -> None:
        for wake_up in self.followers:
            wake_up.set()


class LiveTails:
    """The tails of this process."""

    def __init__(self, wake_ups: WakeUps) -> None:
        self._wake_ups = wake_ups
        self._tails: dict[str, Tail] = {}

    def begin(self, stream_id: str, last_seq: int, opening: Sequence[StoredEvent] = ()) -> None:
        """Note that an attempt of this process begins to write the stream."""
        tail = self._tails.setdefault(stream_id, Tail())
        tail.is_local, tail.last_seq = True, last_seq
        self._unsubscribe(tail)
        if opening:
            tail.add(opening)
        else:
            tail.wake()

    def end(self, stream_id: str) -> None:
        """Note that this attempt ended; followers continue by wake-up and poll."""
        tail = self._tails.get(stream_id)
        if tail is not None:
            tail.is_local = False
            if tail.followers:
                self._subscribe(stream_id, tail)
            self._drop_unused(stream_id, tail)

    def last_seq(self, stream_id: str) -> int | None:
        """The last seq of a stream, if an attempt of this process writes it."""
        tail = self._tails.get(stream_id)
        return tail.last_seq if tail is not None and tail.is_local else None

    def add(self, stream_id: str, events: Sequence[StoredEvent]) -> None:
        """Deliver committed events to the followers in this process."""
        tail = self._tails.get(stream_id)
        if tail is not None and events:
            tail.add(events)

    @contextmanager
    def following(self, stream_id: str) -> Iterator[tuple[Tail, asyncio.Event]]:
        """The tail of a stream, and an event that is set when it grows."""
        tail = self._tails.setdefault(stream_id, Tail())
        wake_up = asyncio.Event()
        tail.followers.add(wake_up)
        if not tail.is_local:
            self._subscribe(stream_id, tail)
        try:
            yield tail, wake_up
        finally:
            tail.followers.discard(wake_up)
            self._drop_unused(stream_id, tail)

    def remote(self) -> list[str]:
        """Streams that are followed but not written in this process."""
        return [name for name, tail in self._tails.items() if tail.followers and not tail.is_local]

    def compare(self, stream_id: str, last_seq: int) -> None:
        """Wake a stream's followers if the table's `last_seq` is ahead of them."""
        tail = self._tails.get(stream_id)
        if tail is not None and last_seq > tail.last_seq:
            tail.wake()

    def _subscribe(self, stream_id: str, tail: Tail) -> None:
        if tail.wake_up is None:
            tail.wake_up = self._wake_ups.subscribe(channel(stream_id), tail.wake)

    def _unsubscribe(self, tail: Tail) -> None:
        if tail.wake_up is not None:
            tail.wake_up.close()
            tail.wake_up = None

    def _drop_unused(self, stream_id: str, tail: Tail) -> None:
        if not tail.followers:
            self._unsubscribe(tail)
            if not tail.is_local and self._tails.get(stream_id) is tail:
                del self._tails[stream_id]


def channel(stream_id: str) -> str:
    """The wake-up for followers of a stream in other processes."""
    return f"yocaso:events:{stream_id}"
