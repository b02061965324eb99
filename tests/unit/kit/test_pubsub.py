"""Topics, the envelope of events, and routers of subscriptions; the README's example."""

import json
from dataclasses import replace
from typing import Any

import pytest

from services.kit.contract import Message
from services.kit.dapr.pubsub.cloudevents import Event, decode, with_sequence
from services.kit.dapr.pubsub.outbox import MAX_EVENT_BYTES, Outbox, outbox_event, require_outbox
from services.kit.dapr.pubsub.subscriptions import EventRouter, Subscriptions
from services.kit.errors import ErrorCode, RpcError
from services.kit.manifest import App
from services.kit.storage.db import Transaction
from services.kit.topics import Topic
from tests.requirements import requirement


class Placed(Message):
    """An order."""

    order_id: str = ""


PLACED = Topic("shop.order.placed.v1", Placed, "An order was placed.")
ORDERED = Topic("shop.order.moved.v1", Placed, "An order was moved.", ordered=True)


@pytest.mark.parametrize(
    "name", ["shop.order.placed", "order.v1", "Shop.order.placed.v1", "a.b.c.v0"]
)
def test_a_topic_has_an_app_a_noun_a_verb_and_a_version(name: str) -> None:
    with pytest.raises(TypeError, match="is not <app>"):
        Topic(name, Placed, "")
    assert PLACED.app_id == "shop"


@requirement("kit:pubsub:cloudevents")
def test_an_event_is_read_as_it_was_written() -> None:
    written = outbox_event(ORDERED, Placed(order_id="ö1"), key="k")
    envelope = decode(with_sequence(written.body, 7, 5))
    assert (envelope.key, envelope.sequence, envelope.previous) == ("k", 7, 5)
    assert envelope.has_place
    assert envelope.open(ORDERED).data == Placed(order_id="ö1")
    assert decode(written.body).id == envelope.id != decode(outbox_event(PLACED, Placed()).body).id


@requirement("kit:pubsub:cloudevents")
@pytest.mark.parametrize(
    "change",
    [
        {"specversion": "0.3"},
        {"id": ""},
        {"id": "x" * 256},
        {"time": "yesterday"},
        {"time": "2026-01-01T00:00:00"},
        {"sequence": "-1"},
    ],
)
def test_an_invalid_envelope_is_refused(change: dict[str, Any]) -> None:
    body = {**json.loads(outbox_event(PLACED, Placed()).body), **change}
    with pytest.raises(RpcError) as error:
        decode(json.dumps(body))
    assert error.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_large_event_and_one_without_its_key_are_refused() -> None:
    with pytest.raises(RpcError, match=r"shop\.order\.placed\.v1 has \d+ bytes") as error:
        outbox_event(PLACED, Placed(order_id="x" * MAX_EVENT_BYTES))
    assert error.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    with pytest.raises(TypeError, match="its events need a key"):
        outbox_event(ORDERED, Placed())
    with pytest.raises(TypeError, match="1 to 255 characters"):
        outbox_event(PLACED, Placed(), key="")


def test_only_the_topics_of_the_manifest_are_published() -> None:
    event = outbox_event(PLACED, Placed())
    assert require_outbox(None, []) is None
    with pytest.raises(TypeError, match="publishes nothing"):
        require_outbox(None, [event])
    with pytest.raises(TypeError, match="is not in `publishes`"):
        require_outbox(Outbox([ORDERED]), [event])


def test_subscriptions_equal_those_of_the_manifest() -> None:
    router = EventRouter()

    @router.subscribe(PLACED)
    async def handle(event: Event[Placed], transaction: Transaction) -> None:
        del event, transaction

    assert list(Subscriptions("stats", [PLACED], [router]).by_topic) == [PLACED.name]
    with pytest.raises(RuntimeError, match=r"shop\.order\.moved\.v1"):
        Subscriptions("stats", [PLACED, ORDERED], [router])
    with pytest.raises(TypeError, match="has two handlers"):
        router.subscribe(PLACED)(handle)

    async def wrong(event: Event[Placed]) -> None:
        del event

    with pytest.raises(TypeError, match="needs the parameters"):
        router.subscribe(ORDERED)(wrong)


def test_an_app_that_subscribes_serves_its_dead_letters_and_uses_the_broker() -> None:
    app = App(id="stats", purpose="counts", number=99, subscribes=(PLACED,))
    assert [service.name for service in app.services] == ["yocaso.stats.v1.DeadLetterService"]
    assert app.components == ("pubsub",)
    assert set(app.methods) <= set(app.calls)
    again = replace(app, number=97)
    assert (again.services, again.components, again.calls) == (
        app.services,
        app.components,
        app.calls,
    )
    assert App(id="idle", purpose="rests", number=98).components == ()
