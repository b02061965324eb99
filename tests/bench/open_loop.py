"""Open loop: calls at a constant rate, each timed from its due time, whatever became of the earlier ones.

The client is bare HTTP over asyncio, since it shares the cores with the platform.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from typing_extensions import override

from services.contracts.llm.conversations import CONVERSATION_SERVICE
from tests.bench.figures import emit, milliseconds, quantile, require_few_failures
from tests.support.platform import Platform
from tests.support.wait import wait_until

USER: Final = "open-loop"
CONVERSATIONS: Final = 50
WARMING_SECONDS: Final = 3.0
LATE_SECONDS: Final = 0.005
"""A call that is sent later than this after its due time was delayed by the generator itself."""
TEXT: Final = "x" * 400
QUANTILES: Final = (("50", 0.5), ("90", 0.9), ("99", 0.99), ("999", 0.999))


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Calls per second, and for how long."""

    rate: float = 50
    seconds: float = 30


class Connection(asyncio.Protocol):
    """One connection, one call at a time."""

    def __init__(self, free: deque["Connection"]) -> None:
        self._free = free
        self._seen = bytearray()
        self._done: Callable[[int], None] | None = None
        self.transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, request: bytes, done: Callable[[int], None]) -> None:
        """Send a call; `done` gets its status, or 0 if the connection broke."""
        assert self.transport is not None
        self._done = done
        self.transport.write(request)

    @override
    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self._is_whole():
            status = int(self._seen[9:12])
            self._seen.clear()
            self._free.append(self)
            self._report(status)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._free:
            self._free.remove(self)
        self._report(0)

    def _is_whole(self) -> bool:
        head = self._seen.find(b"\r\n\r\n")
        if head < 0:
            return False
        fields = bytes(self._seen[:head]).lower()
        at = fields.find(b"content-length: ")
        if at < 0:
            return self._seen.endswith(b"0\r\n\r\n")
        length = int(fields[at + 16 :].split(b"\r\n", 1)[0])
        return len(self._seen) >= head + 4 + length

    def _report(self, status: int) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(status)


@dataclass
class Load:
    """Calls of several users, and their outcomes: due time, latency, status."""

    host: str
    port: int
    requests: dict[str, list[bytes]]
    outcomes: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)
    late: list[float] = field(default_factory=list)
    """How long after its due time each call was sent."""
    _free: deque[Connection] = field(default_factory=deque)
    _sent: int = 0
    _succeeded: int = 0
    _open: int = 0

    async def call(self, user: str, due: float, answered: Callable[[], None] | None = None) -> None:
        """Send one call, without waiting for its response."""
        connection = self._free.pop() if self._free else await self._connect()
        requests, outcomes = self.requests[user], self.outcomes.setdefault(user, [])
        self._sent += 1
        self._open += 1
        self.late.append(time.perf_counter() - due)

        def done(status: int) -> None:
            self._open -= 1
            self._succeeded += status == 200
            outcomes.append((due, time.perf_counter() - due, status))
            if answered is not None:
                answered()

        connection.send(requests[self._sent % len(requests)], done)

    async def closed(self, users: Sequence[str], seconds: float, concurrency: int) -> float:
        """A closed loop of some users; returns its successful calls per second."""
        until, before = time.perf_counter() + seconds, self._succeeded

        async def worker(number: int) -> None:
            while (now := time.perf_counter()) < until:
                answered = asyncio.Event()
                await self.call(users[number % len(users)], now, answered.set)
                await answered.wait()

        await asyncio.gather(*(worker(number) for number in range(concurrency)))
        return (self._succeeded - before) / seconds

    async def open(self, seconds: float, rates: dict[str, float]) -> None:
        """Calls at fixed rates for a time, then wait for all responses."""
        began = time.perf_counter()
        due = {user: began + number / 1000 for number, user in enumerate(rates)}
        while (now := time.perf_counter()) - began < seconds:
            for user, rate in rates.items():
                while due[user] <= now:
                    await self.call(user, due[user])
                    due[user] += 1 / rate
            await asyncio.sleep(max(0.0, min(due.values()) - time.perf_counter()))
        await wait_until(lambda: not self._open, 120, "the last answer")

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: Connection(self._free), self.host, self.port)
        return made

    def close(self) -> None:
        for each in list(self._free):
            if each.transport is not None:
                each.transport.close()


async def measure(platform: Platform, arrivals: Arrivals) -> None:
    """Print the latency of appends through the edge at a constant rate, and how late the calls were sent."""
    load = await load_of(platform, {USER: CONVERSATIONS})
    await load.open(WARMING_SECONDS, {USER: arrivals.rate})
    load.outcomes.clear()
    load.late.clear()
    await load.open(arrivals.seconds, {USER: arrivals.rate})
    outcomes = load.outcomes[USER]
    answered = [took for _, took, status in outcomes if status == 200]
    failed = len(outcomes) - len(answered)
    emit(
        "open loop, append 400 bytes through the edge",
        seconds=arrivals.seconds,
        offered_per_s=round(len(outcomes) / arrivals.seconds, 1),
        n=len(answered),
        failed=failed,
        **{f"p{name}_ms": milliseconds(quantile(answered, share)) for name, share in QUANTILES},
        max_ms=milliseconds(max(answered, default=0.0)),
        sent_late_p99_ms=milliseconds(quantile(load.late, 0.99)),
        sent_late_share=round(sum(each > LATE_SECONDS for each in load.late) / len(load.late), 4),
    )
    load.close()
    require_few_failures(failed, len(outcomes))


async def load_of(platform: Platform, users: dict[str, int]) -> Load:
    """A load of appends by users, each with so many conversations."""
    requests: dict[str, list[bytes]] = {}
    host, port = platform.edge_url.removeprefix("http://").split(":")
    path = CONVERSATION_SERVICE["AppendMessage"].edge_path
    for user, count in users.items():
        async with platform.client(f"bench-{user}") as client:
            ids = [await client.conversation() for _ in range(count)]
            requests[user] = [_request(host, path, client.token, each) for each in ids]
    return Load(host, int(port), requests)


def _request(host: str, path: str, token: str, conversation: str) -> bytes:
    body = f'{{"conversationId":"{conversation}","text":"{TEXT}"}}'
    return (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()
