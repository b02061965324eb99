"""The access cache: positive access checks, kept until auth's change feed reports a change that affects them.

Each process reads the feed every two seconds, and at once on a wake-up. While the feed is unreadable the cache is not
used, and live streams end.
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

if TYPE_CHECKING:  # the Valkey client takes 7 MB: an app without access checks does not load it
    from services.kit.storage.wake_ups import WakeUps

CHANGED: Final = "access.changed"
"""Name of the wake-up for new entries in the feed."""
POLL_SECONDS: Final = 2.0
"""Interval between feed reads without a wake-up."""
READ_SECONDS: Final = 2.0
"""Timeout of one feed read."""
FRESH_SECONDS: Final = 5.0
"""Maximum age of the last feed read for the cache to be used: a revocation takes effect within this time."""
MAX_UNVERIFIED_SECONDS: Final = 10.0
"""How long a live stream continues while the feed or its own check is unreadable."""
CACHE_SECONDS: Final = 300.0
"""Lifetime of a cached check; bounds the effect of tuples changed in OpenFGA directly, which the feed lacks."""
RETRY_SECONDS: Final = 1.0
MAX_CACHED: Final = 20_000
MAX_RECHECKS: Final = 32
"""Concurrent rechecks: revoking one share can affect thousands of live streams."""

V = TypeVar("V")
OnRevoked = Callable[[RpcError], None]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AccessCheck:
    """Whether a user has a relation to an object; names as in OpenFGA: `editor`, `document:…`."""

    user_id: str
    relation: str
    object: str


@dataclass(frozen=True, slots=True)
class AccessChange:
    """A change that may revoke this user's access to this object; None means any."""

    user_id: str | None = None
    object: str | None = None

    def affects(self, check: AccessCheck) -> bool:
        """Whether the result of a check may have changed."""
        return self.object in (None, check.object) and self.user_id in (None, check.user_id)


ANY_ACCESS_CHANGE: Final = AccessChange()


@dataclass(frozen=True, slots=True)
class AccessChanges:
    """The changes after a position of the feed, and the position to read from next."""

    position: int
    changes: Sequence[AccessChange]


class AccessSource(Protocol):
    """Port to access checks and the change feed. UNAVAILABLE when it cannot be reached."""

    async def check(self, check: AccessCheck) -> bool:
        """Check against the tuples, including every acknowledged change."""
        ...

    async def changes(self, after: int | None) -> AccessChanges:
        """Changes after a position; `ANY_ACCESS_CHANGE` if it is None or older than the feed."""
        ...


class _CheckIndex(Generic[V]):
    """Values by check, in order of use, with an index by object."""

    def __init__(self) -> None:
        self._values: OrderedDict[AccessCheck, V] = OrderedDict()
        self._by_object: dict[str, set[AccessCheck]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[AccessCheck]:
        return iter(self._values)

    def get(self, check: AccessCheck) -> V | None:
        return self._values.get(check)

    def put(self, check: AccessCheck, value: V) -> None:
        self._values[check] = value
        self._values.move_to_end(check)
        self._by_object.setdefault(check.object, set()).add(check)

    def discard(self, check: AccessCheck) -> None:
        if self._values.pop(check, None) is not None:
            checks = self._by_object[check.object]
            checks.discard(check)
            if not checks:
                del self._by_object[check.object]

    def touch(self, check: AccessCheck) -> None:
        self._values.move_to_end(check)

    def affected_by(self, change: AccessChange) -> list[AccessCheck]:
        found = self._values if change.object is None else self._by_object.get(change.object, ())
        return [check for check in found if change.affects(check)]


class AccessCache:
    """Answers access checks from the cache while the feed is fresh, else by single flight from the source."""

    def __init__(self, source: AccessSource, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._cached_until: _CheckIndex[float] = _CheckIndex()
        self._watchers: _CheckIndex[set[OnRevoked]] = _CheckIndex()
        self._in_flight: SingleFlight[AccessCheck, bool] = SingleFlight()
        self._rechecks: dict[AccessCheck, asyncio.Task[None]] = {}
        self._recheck_slots = asyncio.Semaphore(MAX_RECHECKS)
        self._position: int | None = None
        self._read_at = float("-inf")
        self._changed = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._caught_up.set()

    async def allows(self, check: AccessCheck) -> bool:
        """Whether access is allowed, after every change announced to this process. A denial is never cached."""
        if await self._is_current() and self._is_cached(check):
            self._cached_until.touch(check)
            return True
        return await self._in_flight.run(check, lambda: self._ask(check))

    @contextmanager
    def watch(
        self, check: AccessCheck, on_revoked: OnRevoked, *, granted: AccessCheck | None = None
    ) -> Iterator[None]:
        """Call `on_revoked` with NOT_FOUND once access is revoked, or with UNAVAILABLE after 10 s without a check.

        `granted` is the check that just admitted the caller, if it is another one.
        """
        watchers = self._watchers.get(check)
        if watchers is None:
            watchers = set[OnRevoked]()
            self._watchers.put(check, watchers)
        watchers.add(on_revoked)
        if not self._is_cached(check) and not (granted and self._is_cached(granted)):
            self._recheck(check)  # a change may have been applied since the caller was admitted
        try:
            yield
        finally:
            watchers.discard(on_revoked)
            if not watchers and self._watchers.get(check) is watchers:
                self._watchers.discard(check)

    async def follow_feed(self, wake_ups: "WakeUps") -> None:
        """Read the feed until cancelled."""
        try:
            async with wake_ups.listen(CHANGED) as self._changed:
                while True:
                    self._changed.clear()
                    await self._read()
                    self._caught_up.set()
                    if await wait_for(self._changed, self._at_most(POLL_SECONDS)):
                        self._caught_up.clear()
        finally:
            for task in tuple(self._rechecks.values()):
                task.cancel()

    async def _is_current(self) -> bool:
        """Whether the cache may be used; after a wake-up, waits for the feed read that it triggered."""
        if self._changed.is_set():
            self._caught_up.clear()
        caught_up = await wait_for(self._caught_up, READ_SECONDS)
        is_fresh = self._clock() - self._read_at <= FRESH_SECONDS
        return caught_up and is_fresh and not self._changed.is_set()

    def _is_cached(self, check: AccessCheck) -> bool:
        until = self._cached_until.get(check)
        return until is not None and self._clock() < until

    async def _ask(self, check: AccessCheck) -> bool:
        allowed = await self._source.check(check)
        if not allowed:
            self._cached_until.discard(check)
        elif self._in_flight.is_latest(check):  # no change affected it during the call
            self._cached_until.put(check, self._clock() + CACHE_SECONDS)
            if len(self._cached_until) > MAX_CACHED:
                self._cached_until.discard(next(iter(self._cached_until)))
        return allowed

    async def _read(self) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(self._at_most(READ_SECONDS)):
                found = await self._source.changes(self._position)
        except (
            Exception
        ) as error:  # any failure: this loop must continue, as it ends revoked streams
            log.warning("access.feed_read_failed", error=repr(error))
            if self._clock() - self._read_at >= MAX_UNVERIFIED_SECONDS:
                for check in list(self._watchers):
                    self._revoke(check, _unverified())
            return
        self._position, self._read_at = found.position, began
        for change in found.changes:
            self._apply(change)

    def _at_most(self, seconds: float) -> float:
        """`seconds`, bounded by the time at which streams must end if the feed stays unread."""
        left = self._read_at + MAX_UNVERIFIED_SECONDS - self._clock()
        return min(seconds, left) if left > 0 else seconds

    def _apply(self, change: AccessChange) -> None:
        for check in self._cached_until.affected_by(change):
            self._cached_until.discard(check)
        self._in_flight.forget(change.affects)
        for check in self._watchers.affected_by(change):
            self._recheck(check)

    def _recheck(self, check: AccessCheck) -> None:
        if check not in self._rechecks:
            self._rechecks[check] = asyncio.create_task(
                self._run_recheck(check), name="access recheck"
            )

    async def _run_recheck(self, check: AccessCheck) -> None:
        try:
            async with asyncio.timeout(MAX_UNVERIFIED_SECONDS), self._recheck_slots:
                if not await self._still_allows(check):
                    self._revoke(check, not_found("stream"))
        except TimeoutError:
            self._revoke(check, _unverified())
        finally:
            # Not in a done callback: it runs later, and a change before it would start no recheck.
            del self._rechecks[check]

    async def _still_allows(self, check: AccessCheck) -> bool:
        """Check until there is an answer that no concurrent change invalidated: that one is cached."""
        while self._watchers.get(check):
            try:
                if not await self._in_flight.run(check, lambda: self._ask(check)):
                    return False
            except RpcError:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if self._is_cached(check):
                    return True
        return True

    def _revoke(self, check: AccessCheck, error: RpcError) -> None:
        for on_revoked in tuple(self._watchers.get(check) or ()):
            on_revoked(error)


def _unverified() -> RpcError:
    return RpcError(ErrorCode.UNAVAILABLE, "Access to this stream cannot be checked at present.")
