"""Readers of streams in this process: they get what this process appends directly, and the rest by wake-up and poll."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from services.kit.eventlog.records import StoredEvent
from services.kit.storage.wake_ups import Subscription, WakeUps

RECENT: Final = 32
"""Events of a stream kept in memory for readers that follow closely."""


class Tail:
    """The newest events of one stream, and who follows it here."""

    __slots__ = ("_recent", "followers", "last_seq", "local", "wake_up")

    def __init__(self) -> None:
        self.last_seq = 0
        self.local = False
        """Whether an attempt of this process writes the stream, so that `last_seq` is the truth."""
        self.followers: set[asyncio.Event] = set()
        self.wake_up: Subscription | None = None
        self._recent: deque[StoredEvent] = deque(maxlen=RECENT)

    def add(self, events: Sequence[StoredEvent]) -> None:
        """Keep what was committed, and wake the followers."""
        if self._recent and events[0].seq != self._recent[-1].seq + 1:
            self._recent.clear()
        self._recent.extend(events)
        self.last_seq = events[-1].seq
        self.wake()

    def after(self, seq: int) -> list[StoredEvent] | None:
        """Events after `seq`; None where only the table knows."""
        if self.local and seq >= self.last_seq:
            return []
        if not self._recent or not self._recent[0].seq <= seq + 1 <= self._recent[-1].seq:
            return None
        skipped = seq + 1 - self._recent[0].seq
        return [event for place, event in enumerate(self._recent) if place >= skipped]

    def saw(self, seq: int) -> None:
        """A follower has read up to here from the table."""
        if not self.local:
            self.last_seq = max(self.last_seq, seq)

    def wake(self) -> None:
        """Let the followers look."""
        for news in self.followers:
            news.set()


class LiveTails:
    """The tails of this process."""

    def __init__(self, wake_ups: WakeUps) -> None:
        self._wake_ups = wake_ups
        self._tails: dict[str, Tail] = {}

    def begin(self, stream_id: str, last_seq: int, opening: Sequence[StoredEvent] = ()) -> None:
        """An attempt in this process writes the stream from now on."""
        tail = self._tails.setdefault(stream_id, Tail())
        tail.local, tail.last_seq = True, last_seq
        self._unsubscribe(tail)
        if opening:
            tail.add(opening)
        else:
            tail.wake()

    def end(self, stream_id: str) -> None:
        """That attempt is over; who follows goes on by wake-up and poll."""
        tail = self._tails.get(stream_id)
        if tail is not None:
            tail.local = False
            if tail.followers:
                self._subscribe(stream_id, tail)
            self._drop_unused(stream_id, tail)

    def last_seq(self, stream_id: str) -> int | None:
        """The last seq of a stream that an attempt of this process writes."""
        tail = self._tails.get(stream_id)
        return tail.last_seq if tail is not None and tail.local else None

    def add(self, stream_id: str, events: Sequence[StoredEvent]) -> None:
        """Hand committed events to the followers here."""
        tail = self._tails.get(stream_id)
        if tail is not None and events:
            tail.add(events)

    @contextmanager
    def following(self, stream_id: str) -> Iterator[tuple[Tail, asyncio.Event]]:
        """The tail of a stream, and an event that is set at each news."""
        tail = self._tails.setdefault(stream_id, Tail())
        news = asyncio.Event()
        tail.followers.add(news)
        if not tail.local:
            self._subscribe(stream_id, tail)
        try:
            yield tail, news
        finally:
            tail.followers.discard(news)
            self._drop_unused(stream_id, tail)

    def remote(self) -> list[str]:
        """Streams that are followed here and written elsewhere, or by nobody."""
        return [name for name, tail in self._tails.items() if tail.followers and not tail.local]

    def poll(self, stream_id: str, last_seq: int) -> None:
        """What the table says of a stream: wake its followers where they are behind."""
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
            if not tail.local and self._tails.get(stream_id) is tail:
                del self._tails[stream_id]


def channel(stream_id: str) -> str:
    """Where followers of a stream in other processes hear of news."""
    return f"yocaso:events:{stream_id}"
