"""Load shedding: admission under overload, fairness, recovery."""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable

import pytest
from starlette.types import Message, Receive, Scope, Send

from services.contracts.apps import SERVICES
from services.kit.http.overload import (
    MIN_LIMIT,
    TARGET_SECONDS,
    AdmissionControl,
    Call,
    LoadShedder,
    mark_waiting,
)
from tests.requirements import requirement
from tests.support.clock import ManualClock


class Server:
    """A service of fixed rate that serves admitted calls one after the other."""

    def __init__(self, rate: float) -> None:
        self.clock = ManualClock()
        self.admission = AdmissionControl(self.clock)
        self.rate = rate
        self.served: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.delays: list[float] = []
        self._free_at = 0.0
        self._ends: list[tuple[float, int, Call, str]] = []

    def offer(self, seconds: float, users: dict[str, float]) -> None:
        """Calls of each user arrive at random, at a fixed rate, independent of responses."""
        draw = random.Random(1)
        arrivals = [(self.clock.now + draw.expovariate(rate), user) for user, rate in users.items()]
        heapq.heapify(arrivals)
        until = self.clock.now + seconds
        while arrivals and arrivals[0][0] < until:
            at, user = heapq.heappop(arrivals)
            self._finish(at)
            self.clock.now = at
            self._arrive(user)
            heapq.heappush(arrivals, (at + draw.expovariate(users[user]), user))
        self._finish(until)
        self.clock.now = until

    def _arrive(self, user: str) -> None:
        call = self.admission.admit(user.encode())
        if call is None:
            self.refused[user] += 1
            return
        self._free_at = max(self._free_at, self.clock.now) + 1 / self.rate
        heapq.heappush(self._ends, (self._free_at, id(call), call, user))

    def _finish(self, until: float) -> None:
        while self._ends and self._ends[0][0] <= until:
            self.clock.now, _, call, user = heapq.heappop(self._ends)
            self.served[user] += 1
            self.delays.append(self.clock.now - call.since)
            call.complete()


@requirement("kit:overload")
def test_three_times_the_load_is_served_at_the_rate_of_the_peak_without_a_queue() -> None:
    server = Server(300)
    server.offer(60, {f"u{number}": 150.0 for number in range(6)})
    assert server.served.total() > 0.95 * 300 * 60
    late = sorted(server.delays[len(server.delays) // 10 :])
    assert late[int(len(late) * 0.99)] < 4 * TARGET_SECONDS


@requirement("kit:overload")
def test_a_user_with_few_calls_is_admitted_while_another_has_many() -> None:
    server = Server(300)
    server.offer(20, {"heavy": 900.0, "light": 10.0})
    assert server.refused["heavy"] > 1000
    assert server.refused["light"] <= 0.02 * server.served["light"]


def test_many_users_with_one_call_each_are_limited() -> None:
    server = Server(300)
    server.offer(20, {f"u{number}": 1.0 for number in range(900)})
    assert server.served.total() > 0.9 * 300 * 20
    assert max(server.delays[len(server.delays) // 2 :]) < 1


@requirement("kit:overload")
def test_no_call_is_refused_after_the_overload() -> None:
    server = Server(300)
    server.offer(10, {"a": 900.0})
    server.offer(5, {"a": 100.0})
    before = server.refused.total()
    server.offer(20, {"a": 100.0})
    assert server.refused.total() == before
    assert server.admission.limit == math.inf


def test_a_burst_below_capacity_is_admitted() -> None:
    server = Server(300)
    server.offer(0.05, {"a": 4000.0})
    assert not server.refused


def test_one_slow_method_is_not_overload() -> None:
    clock = ManualClock()
    admission = AdmissionControl(clock)
    for _ in range(200):
        slow, quick = admission.admit(b"a"), admission.admit(b"b")
        assert slow is not None
        assert quick is not None
        clock.now += 0.01
        quick.complete()
        clock.now += 5
        slow.complete()
    assert admission.limit == math.inf


def test_a_stalled_process_admits_no_more_calls() -> None:
    clock = ManualClock()
    admission = AdmissionControl(clock)
    calls = [admission.admit(b"a") for _ in range(MIN_LIMIT)]
    clock.now += 2
    assert admission.admit(b"a") is None
    for call in calls:
        assert call is not None
        call.abandon()
    assert admission.admit(b"a") is not None


async def served(app: Callable, path: str) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(b"x-user-id", b"alice")]}
    await app(scope, receive, send)
    return sent


@requirement("kit:overload")
async def test_completing_calls_are_admitted_and_others_get_retry_after() -> None:
    async def ok(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    admission = AdmissionControl()
    admission.limit = 0
    door = LoadShedder(ok, ["/s/Begin"], admission)
    assert (await served(door, "/s/Complete"))[0]["status"] == 200
    refused = (await served(door, "/s/Begin"))[0]
    assert refused["status"] == 503
    assert {b"retry-after", b"x-overloaded"} <= dict(refused["headers"]).keys()


@pytest.mark.parametrize("answers", [True, False])
async def test_a_waiting_or_answered_call_is_not_counted(answers: bool) -> None:
    admission = AdmissionControl()
    places: list[int] = []

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        if answers:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        else:
            mark_waiting()
        places.append(admission._total)

    await served(LoadShedder(stream, ["/s/Stream"], admission), "/s/Stream")
    assert (places, admission._total) == ([0], 0)


def test_only_methods_that_begin_work_can_be_refused() -> None:
    completing = [m.name for each in SERVICES for m in each.methods if m.completes]
    assert completing == ["CancelTurn"]
