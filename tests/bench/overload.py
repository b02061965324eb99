"""Overload: three times as many appends as the platform can serve, for a minute, by several users.

Open loop: a call is timed from its due time, and does not wait for earlier ones. The client is bare HTTP over asyncio,
since it shares the cores with the platform.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from typing_extensions import override

from services.contracts.llm.conversations import CONVERSATION_SERVICE
from tests.bench.figures import emit, milliseconds, quantile
from tests.support.platform import Platform
from tests.support.wait import wait_until

HEAVY_USERS: Final = 6
CONVERSATIONS: Final = 8
LIGHT_PER_S: Final = 5.0
TIMES: Final = 3.0
SECONDS: Final = float(os.environ.get("BENCH_OVERLOAD_SECONDS", "60"))
CAPACITY_SECONDS: Final = 10.0
CALM_SECONDS: Final = 15.0
TEXT: Final = "x" * 400


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
    _free: deque[Connection] = field(default_factory=deque)
    _sent: int = 0
    _open: int = 0

    async def call(self, user: str, due: float, answered: Callable[[], None] | None = None) -> None:
        """Send one call, without waiting for its response."""
        connection = self._free.pop() if self._free else await self._connect()
        requests, outcomes = self.requests[user], self.outcomes.setdefault(user, [])
        self._sent += 1
        self._open += 1

        def done(status: int) -> None:
            self._open -= 1
            outcomes.append((due, time.perf_counter() - due, status))
            if answered is not None:
                answered()

        connection.send(requests[self._sent % len(requests)], done)

    async def closed(self, seconds: float, concurrency: int) -> float:
        """A closed loop; returns answered calls per second."""
        users = [user for user in self.requests if user != "light"]
        until = time.perf_counter() + seconds
        done = 0

        async def worker(number: int) -> None:
            nonlocal done
            while (now := time.perf_counter()) < until:
                answered = asyncio.Event()
                await self.call(users[number % len(users)], now, answered.set)
                await answered.wait()
                done += 1

        await asyncio.gather(*(worker(number) for number in range(concurrency)))
        return done / seconds

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


async def measure(platform: Platform) -> None:
    """Print goodput, latency and fairness under overload, and the recovery time."""
    load = await _load(platform)
    await load.closed(CAPACITY_SECONDS / 2, 16)
    peak = await load.closed(CAPACITY_SECONDS, 16)
    load.outcomes.clear()
    quiet = {"light": LIGHT_PER_S}
    await load.open(CAPACITY_SECONDS, quiet)
    alone = [took for _, took, _ in load.outcomes.pop("light")]
    flips = platform.count_unhealthy()
    heavy = {user: TIMES * peak / HEAVY_USERS for user in load.requests if user != "light"}
    began = time.perf_counter()
    await load.open(SECONDS, {**heavy, **quiet})
    ended = began + SECONDS
    answered, load.outcomes = load.outcomes, {}
    light = answered.pop("light")
    everybody = [outcome for each in answered.values() for outcome in each]
    accepted = [took for due, took, status in everybody if status == 200 and due < ended]
    in_time = sum(status == 200 and due + took < ended for due, took, status in everybody)
    others = {status for _, _, status in everybody} - {200, 503}
    await load.open(CALM_SECONDS, dict.fromkeys(heavy, peak / 2 / HEAVY_USERS))
    late = [due for each in load.outcomes.values() for due, _, status in each if status != 200]
    emit(
        "overload, appends through the edge",
        seconds=SECONDS,
        peak_per_s=round(peak, 1),
        offered_per_s=round(len(everybody) / SECONDS, 1),
        goodput_per_s=round(in_time / SECONDS, 1),
        goodput_share_of_peak=round(in_time / SECONDS / peak, 2),
        shed_share=round(sum(status == 503 for *_, status in everybody) / len(everybody), 2),
        other_statuses=sorted(others),
        accepted_p50_ms=milliseconds(quantile(accepted, 0.5)),
        accepted_p99_ms=milliseconds(quantile(accepted, 0.99)),
        light_served=round(sum(status == 200 for *_, status in light) / len(light), 3),
        light_p50_ms=milliseconds(quantile([took for _, took, _ in light], 0.5)),
        light_p99_ms=milliseconds(quantile([took for _, took, _ in light], 0.99)),
        light_alone_p99_ms=milliseconds(quantile(alone, 0.99)),
        health_flips=platform.count_unhealthy() - flips,
        recovery_s=round(max(late, default=ended) - ended, 2),
    )
    load.close()


async def _load(platform: Platform) -> Load:
    requests: dict[str, list[bytes]] = {}
    host, port = platform.edge_url.removeprefix("http://").split(":")
    path = CONVERSATION_SERVICE["AppendMessage"].edge_path
    for user in [*(f"heavy-{number}" for number in range(HEAVY_USERS)), "light"]:
        async with platform.client(f"bench-{user}") as client:
            ids = [await client.conversation() for _ in range(CONVERSATIONS)]
            requests[user] = [_request(host, path, client.token, each) for each in ids]
    return Load(host, int(port), requests)


def _request(host: str, path: str, token: str, conversation: str) -> bytes:
    body = f'{{"conversationId":"{conversation}","text":"{TEXT}"}}'
    return (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()
