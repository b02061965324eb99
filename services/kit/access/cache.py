"""What is remembered of access checks: a yes, until a change that concerns it.

auth's change feed says for which user and which object a yes may have become a no. Each process reads it every two
seconds, and at once on a wake-up. While the feed cannot be read nothing remembered is used, and live streams end.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import structlog

from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.single_flight import SingleFlight
from services.kit.waiting import wait_for

if TYPE_CHECKING:  # the client of Valkey takes 7 MB: an app that checks no access does without
    from services.kit.storage.wake_ups import WakeUps

CHANGED: Final = "access.changed"
"""The wake-up that the feed has something new."""
POLL_SECONDS: Final = 2.0
"""How often the feed is read without a wake-up."""
READ_SECONDS: Final = 2.0
"""How long one read of the feed may take."""
FRESH_SECONDS: Final = 5.0
"""How old the last read may be for a remembered yes to be used: a revocation takes effect within this time."""
UNSURE_SECONDS: Final = 10.0
"""How long a live stream goes on while the feed or its own check cannot be read."""
REMEMBERED_SECONDS: Final = 300.0
"""Bounds what the feed cannot know: tuples that were changed in OpenFGA behind auth's back."""
RETRY_SECONDS: Final = 1.0
MAX_REMEMBERED: Final = 20_000
MAX_RECHECKS: Final = 32
"""Checks of live streams under way at once: a share with thousands of readers may end by one change."""

V = TypeVar("V")
Lost = Callable[[RpcError], None]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AccessCheck:
    """May this user do this with this object? `relation` and `object` are OpenFGA's: `editor`, `conversation:…`."""

    user_id: str
    relation: str
    object: str


@dataclass(frozen=True, slots=True)
class AccessChange:
    """For this user and about this object a yes may have become a no; None stands for any."""

    user_id: str | None = None
    object: str | None = None

    def concerns(self, check: AccessCheck) -> bool:
        """Whether the answer of a check may have changed."""
        return self.object in (None, check.object) and self.user_id in (None, check.user_id)


EVERYTHING: Final = AccessChange()


@dataclass(frozen=True, slots=True)
class AccessChanges:
    """What changed after a position of the feed, and the position to go on from."""

    position: int
    changes: Sequence[AccessChange]


class AccessSource(Protocol):
    """Where access checks are answered and changes are fed from. UNAVAILABLE where that cannot be reached."""

    async def check(self, check: AccessCheck) -> bool:
        """By the tuples with every acknowledged change."""
        ...

    async def changes(self, after: int | None) -> AccessChanges:
        """Changes after a position; `EVERYTHING` without one, or where it is too old to tell."""
        ...


class _Checks(Generic[V]):
    """Checks with a value each, found by their object too; in order of use."""

    def __init__(self) -> None:
        self._values: OrderedDict[AccessCheck, V] = OrderedDict()
        self._about: dict[str, set[AccessCheck]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[AccessCheck]:
        return iter(self._values)

    def get(self, check: AccessCheck) -> V | None:
        return self._values.get(check)

    def put(self, check: AccessCheck, value: V) -> None:
        self._values[check] = value
        self._values.move_to_end(check)
        self._about.setdefault(check.object, set()).add(check)

    def discard(self, check: AccessCheck) -> None:
        if self._values.pop(check, None) is not None:
            about = self._about[check.object]
            about.discard(check)
            if not about:
                del self._about[check.object]

    def touch(self, check: AccessCheck) -> None:
        self._values.move_to_end(check)

    def concerned(self, change: AccessChange) -> list[AccessCheck]:
        found = self._values if change.object is None else self._about.get(change.object, ())
        return [check for check in found if change.concerns(check)]


class AccessCache:
    """Answers access checks from memory where the feed allows, and asks once for what is asked at the same time."""

    def __init__(self, source: AccessSource, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._remembered: _Checks[float] = _Checks()
        self._watched: _Checks[set[Lost]] = _Checks()
        self._asking: SingleFlight[AccessCheck, bool] = SingleFlight()
        self._rechecks: dict[AccessCheck, asyncio.Task[None]] = {}
        self._few = asyncio.Semaphore(MAX_RECHECKS)
        self._position: int | None = None
        self._read_at = float("-inf")
        self._news = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._caught_up.set()

    async def allows(self, check: AccessCheck) -> bool:
        """Whether it is allowed, after every change that this process was told of. A no is never remembered."""
        if await self._is_current() and self._remembers(check):
            self._remembered.touch(check)
            return True
        return await self._asking.run(check, lambda: self._ask(check))

    @contextmanager
    def watch(
        self, check: AccessCheck, lost: Lost, *, granted: AccessCheck | None = None
    ) -> Iterator[None]:
        """Call `lost` as soon as a change makes the answer no: NOT_FOUND; or UNAVAILABLE after 10 s of not knowing.

        The caller was let in just now, by the yes to `granted` if that is another check.
        """
        watchers = self._watched.get(check)
        if watchers is None:
            watchers = set[Lost]()
            self._watched.put(check, watchers)
        watchers.add(lost)
        if not self._remembers(check) and not (granted and self._remembers(granted)):
            self._recheck(check)  # a change may have come between that yes and now
        try:
            yield
        finally:
            watchers.discard(lost)
            if not watchers and self._watched.get(check) is watchers:
                self._watched.discard(check)

    async def follow_feed(self, wake_ups: "WakeUps") -> None:
        """Read the feed for as long as the app runs; until it is cancelled."""
        try:
            async with wake_ups.listen(CHANGED) as self._news:
                while True:
                    self._news.clear()
                    await self._read()
                    self._caught_up.set()
                    if await wait_for(self._news, self._at_most(POLL_SECONDS)):
                        self._caught_up.clear()
        finally:
            for task in tuple(self._rechecks.values()):
                task.cancel()

    async def _is_current(self) -> bool:
        """Whether memory may be used. After a wake-up, waits for the read that it began."""
        if self._news.is_set():
            self._caught_up.clear()
        caught_up = await wait_for(self._caught_up, READ_SECONDS)
        fresh = self._clock() - self._read_at <= FRESH_SECONDS
        return caught_up and fresh and not self._news.is_set()

    def _remembers(self, check: AccessCheck) -> bool:
        until = self._remembered.get(check)
        return until is not None and self._clock() < until

    async def _ask(self, check: AccessCheck) -> bool:
        allowed = await self._source.check(check)
        if not allowed:
            self._remembered.discard(check)
        elif self._asking.is_latest(check):  # nothing changed while it was under way
            self._remembered.put(check, self._clock() + REMEMBERED_SECONDS)
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.discard(next(iter(self._remembered)))
        return allowed

    async def _read(self) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(self._at_most(READ_SECONDS)):
                found = await self._source.changes(self._position)
        except Exception as error:  # whatever it is, the loop has to go on: streams are cut by it
            log.warning("access.feed_unread", error=repr(error))
            if self._clock() - self._read_at >= UNSURE_SECONDS:
                for check in list(self._watched):
                    self._end(check, _unsure())
            return
        self._position, self._read_at = found.position, began
        for change in found.changes:
            self._forget(change)

    def _at_most(self, seconds: float) -> float:
        """Not beyond the time when streams have to end for want of a read."""
        left = self._read_at + UNSURE_SECONDS - self._clock()
        return min(seconds, left) if left > 0 else seconds

    def _forget(self, change: AccessChange) -> None:
        for check in self._remembered.concerned(change):
            self._remembered.discard(check)
        self._asking.forget(change.concerns)
        for check in self._watched.concerned(change):
            self._recheck(check)

    def _recheck(self, check: AccessCheck) -> None:
        """Ask anew for all who watch this check."""
        if check not in self._rechecks:
            self._rechecks[check] = asyncio.create_task(self._settle(check), name="access recheck")

    async def _settle(self, check: AccessCheck) -> None:
        try:
            async with asyncio.timeout(UNSURE_SECONDS), self._few:
                if not await self._still_allows(check):
                    self._end(check, not_found("stream"))
        except TimeoutError:
            self._end(check, _unsure())
        finally:
            # Not by a done callback, which comes a moment late: a change in between would begin no recheck.
            del self._rechecks[check]

    async def _still_allows(self, check: AccessCheck) -> bool:
        """Asks until there is an answer that no change has overtaken: a yes is remembered then."""
        while self._watched.get(check):
            try:
                if not await self._asking.run(check, lambda: self._ask(check)):
                    return False
            except RpcError:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if self._remembers(check):
                    return True
        return True

    def _end(self, check: AccessCheck, error: RpcError) -> None:
        for lost in tuple(self._watched.get(check) or ()):
            lost(error)


def _unsure() -> RpcError:
    return RpcError(ErrorCode.UNAVAILABLE, "Nobody can tell now whether you may still read this.")
