"""Publishing by the outbox and handling by the inbox, on real sidecars, Valkey and Postgres."""

import asyncio
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from valkey.asyncio import Valkey

from services.kit.contract import rfc3339
from tests.component.pubsub.conftest import Apps
from tests.component.pubsub.topics import MOVED, PLACED
from tests.requirements import requirement
from tests.support.wait import wait_until

pytestmark = pytest.mark.timeout(150)


@requirement("kit:pubsub:outbox")
async def test_an_event_is_published_with_its_transaction_and_handled_once(apps: Apps) -> None:
    status, answer = await apps.post("llm", "/place", numbers=[11], fail=True)
    assert (status, answer["error"]["code"]) == (409, "ABORTED")
    await apps.place(12, 13)
    await apps.place(12, 13)
    await apps.wait_entered(12, 13)
    assert await apps.entries(11) == []
    assert await waiting(apps) == 0


@requirement("kit:pubsub:actors")
@pytest.mark.parametrize("access", ["postgres", "component"])
async def test_an_actors_event_is_published_with_its_commit(apps: Apps, access: str) -> None:
    apps.stack.restart("llm", env={"YOCASO_ACTOR_STATE": access})
    till = uuid.uuid4().hex
    numbers = range(20, 25)
    for number in numbers:
        await sell(apps, till, number)
    status, answer = await apps.post("llm", f"/sell/{till}", number=99, fail=True)
    assert (status, answer["error"]["code"]) == (400, "FAILED_PRECONDITION")
    await apps.wait_entered(*numbers)
    await wait_until(lambda: has_moves(apps, till, 5), 30, "the moves of the till")
    assert await moves(apps, till) == [1, 2, 3, 4, 5]
    assert await apps.entries(99) == []
    held = "SELECT count(*) FROM dapr.state WHERE key LIKE '%outbox/%'"

    async def released() -> bool:
        return (await apps.database.fetch_one(held))[0] == 0 and await waiting(apps) == 0

    await wait_until(released, 20, "the outbox to be empty")


@requirement("kit:pubsub:cloudevents")
async def test_events_are_cloudevents_of_the_callers_trace(apps: Apps) -> None:
    trace = uuid.uuid4().hex
    traced = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    status, _ = await apps.post("llm", "/place", traced, numbers=[31], text="ünïcode")
    assert status == 200
    await apps.wait_entered(31)
    query = "SELECT trace FROM ledger.entries WHERE number = 31"
    assert (await apps.database.fetch_one(query))[0].split("-")[1] == trace
    stored = await last_message(apps, PLACED.name)
    assert {
        name: stored[name] for name in ("specversion", "source", "type", "datacontenttype")
    } == {
        "specversion": "1.0",
        "source": "/yocaso/llm",
        "type": PLACED.name,
        "datacontenttype": "application/json",
    }
    assert stored["data"] == {"number": 31, "userId": "ada", "text": "ünïcode"}
    assert stored["traceparent"].split("-")[1] == trace
    assert stored["time"].endswith("Z")


@requirement("kit:pubsub:inbox")
async def test_a_repeated_delivery_has_one_effect(apps: Apps) -> None:
    event = envelope(PLACED.name, number=41)
    path = f"/events/{PLACED.name}"
    answers = await asyncio.gather(*(apps.deliver(path, event) for _ in range(5)))
    assert answers == ["SUCCESS"] * 5
    assert await apps.entries(41) == [41]


@requirement("kit:pubsub:callers")
async def test_only_the_broker_delivers_events(apps: Apps) -> None:
    event = envelope(PLACED.name, number=42)
    path = f"/events/{PLACED.name}"
    status, answer = await apps.post("auth", path, {"dapr-caller-app-id": "llm"}, **event)
    assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED")
    status, answer = await apps.post("auth", path, {"dapr-api-token": "wrong"}, **event)
    assert (status, answer["error"]["code"]) == (401, "UNAUTHENTICATED")
    assert await apps.entries(42) == []


@requirement("kit:pubsub:order")
async def test_events_of_a_key_are_handled_in_order(apps: Apps) -> None:
    tills = [uuid.uuid4().hex for _ in range(4)]

    async def sell_many(till: str) -> None:
        for number in range(40):
            await sell(apps, till, 1000 + number)

    await asyncio.gather(*map(sell_many, tills))
    for till in tills:
        await wait_until(lambda till=till: has_moves(apps, till, 40), 60, "the moves of a till")
        assert await moves(apps, till) == list(range(1, 41))


KEEP = """
    INSERT INTO events.outbox (number, app, topic, key, event_id, body, published_at)
    OVERRIDING SYSTEM VALUE VALUES ($1, 'llm', $2, $3, $4, '{}', now())
"""


@requirement("kit:pubsub:order")
@pytest.mark.parametrize("time", ["2020-01-01T00:00:00Z", ""])
async def test_an_early_event_waits_and_a_repeated_one_is_done(apps: Apps, time: str) -> None:
    """Also after a long outage: the age of an event does not let it pass its predecessor."""
    key, start = uuid.uuid4().hex, 2_000_000_000
    path = f"/events/{MOVED.name}"
    first, second, third = (
        envelope(MOVED.name, step=step)
        | {
            "partitionkey": key,
            "sequence": str(start + step),
            "previoussequence": str(start + step - 1 if step > 1 else 0),
        }
        | ({"time": time} if time else {})
        for step in (1, 2, 3)
    )
    for step, event in enumerate((first, second, third), 1):
        await apps.database.fetch(KEEP, start + step, MOVED.name, key, event["id"])
    assert await apps.deliver(path, second) == "RETRY"
    assert await apps.deliver(path, first) == "SUCCESS"
    assert await apps.deliver(path, third) == "RETRY"
    assert await apps.deliver(path, second) == "SUCCESS"
    assert await apps.deliver(path, first) == "SUCCESS"
    assert await apps.deliver(path, third) == "SUCCESS"
    assert await moves(apps, key) == [1, 2, 3]
    await wait_until(lambda: is_confirmed(apps), 20, "the outbox to be empty")


@requirement("kit:pubsub:order")
async def test_a_new_subscription_begins_in_the_middle_of_a_key(apps: Apps) -> None:
    """The publisher did not keep the predecessor, as nobody subscribed to it."""
    key = uuid.uuid4().hex
    event = envelope(MOVED.name, step=9) | {
        "partitionkey": key,
        "sequence": "900",
        "previoussequence": "800",
    }
    assert await apps.deliver(f"/events/{MOVED.name}", event) == "SUCCESS"
    assert await moves(apps, key) == [9]


@requirement("kit:pubsub:outbox")
async def test_events_wait_while_the_broker_is_down(apps: Apps) -> None:
    apps.stack.halt("valkey")
    try:
        status, answer = await apps.post("llm", "/place", numbers=[51, 52])
        assert (status, answer) == (200, {"placed": 2})
        assert await waiting(apps) == 2
    finally:
        apps.stack.supervisor.start("valkey")
    await apps.wait_entered(51, 52, seconds=90)


@requirement("kit:pubsub:undelivered")
async def test_an_event_that_the_broker_lost_is_taken_from_the_outbox(apps: Apps) -> None:
    """The broker loses its data between publication and delivery."""
    apps.stack.halt("auth-daprd")
    till = uuid.uuid4().hex
    try:
        await apps.place(71, 72)
        for number in (73, 74):
            await sell(apps, till, number)
        await wait_until(lambda: is_published(apps), 20, "the publication")
        valkey = Valkey.from_url(apps.stack.environment.valkey_url)
        await valkey.delete(PLACED.name, MOVED.name)
        await valkey.aclose()
    finally:
        apps.stack.supervisor.start("auth-daprd")
    await apps.wait_entered(71, 72, 73, 74, seconds=80)
    await wait_until(lambda: has_moves(apps, till, 2), 60, "the moves")
    assert await moves(apps, till) == [1, 2]
    await wait_until(lambda: is_confirmed(apps), 20, "the outbox to be empty")


async def is_confirmed(apps: Apps) -> bool:
    """Whether the ledger has recorded everything."""
    return (await apps.database.fetch_one("SELECT count(*) FROM events.outbox"))[0] == 0


async def is_published(apps: Apps) -> bool:
    return await waiting(apps) == 0


async def sell(apps: Apps, till: str, number: int) -> None:
    """One sale, repeated until the till has answered; only for tests without a kill."""

    async def sold() -> bool:
        status, answer = await apps.post("llm", f"/sell/{till}", number=number)
        assert status in (200, 503), answer
        return status == 200

    await wait_until(sold, 40, "a sale", every=0.2)


async def moves(apps: Apps, key: str) -> list[int]:
    """The steps of a key in the order of their effects."""
    query = "SELECT step FROM ledger.moves WHERE key = $1 ORDER BY place"
    return [row[0] for row in await apps.database.fetch(query, key)]


async def has_moves(apps: Apps, key: str, count: int) -> bool:
    return len(await moves(apps, key)) >= count


async def waiting(apps: Apps) -> int:
    """Events in the shop's outbox that are not published."""
    query = "SELECT count(*) FROM events.outbox WHERE published_at IS NULL"
    return (await apps.database.fetch_one(query))[0]


async def last_message(apps: Apps, topic: str) -> dict[str, Any]:
    """The newest message of a topic, as the broker holds it."""
    valkey = Valkey.from_url(apps.stack.environment.valkey_url)
    try:
        [(_, fields)] = await valkey.xrevrange(topic, count=1)
        return json.loads(fields[b"data"])
    finally:
        await valkey.aclose()


def envelope(topic: str, **data: Any) -> dict[str, Any]:
    """A CloudEvent as the sidecar delivers it."""
    return {
        "specversion": "1.0",
        "id": uuid.uuid4().hex,
        "source": "/yocaso/llm",
        "type": topic,
        "time": rfc3339(datetime.now(UTC)),
        "data": data,
    }
