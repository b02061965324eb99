"""The outbox: events committed with the change that they announce, and published afterwards."""

import asyncio
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.kit.dapr.pubsub.cloudevents import encode
from services.kit.errors import ErrorCode, RpcError
from services.kit.topics import AnyTopic, E, Topic

if TYPE_CHECKING:  # SQLAlchemy takes 20 MB: only apps with tables of their own load it
    from services.kit.storage.db import Transaction

MAX_EVENT_BYTES: Final = 64 * 1024
"""Larger data is passed by reference."""
MAX_KEY_LENGTH: Final = 255

INSERT: Final = """
    INSERT INTO events.outbox (app, topic, key, event_id, body)
    VALUES (:app, :topic, :key, :event, :body)
"""


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """An event to commit with a change, made by `outbox_event`."""

    topic: AnyTopic
    key: str | None
    id: str
    body: str


def outbox_event(topic: Topic[E], data: E, *, key: str | None = None) -> OutboxEvent:
    """An event for `DurableState.commit` or another store that commits outbox events with its change.

    Raises:
        RpcError: PAYLOAD_TOO_LARGE over MAX_EVENT_BYTES.
        TypeError: an ordered topic's event has no key, or the key is empty or too long.
    """
    if topic.ordered and key is None:
        raise TypeError(f"{topic.name} is ordered: its events need a key")
    if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
        raise TypeError(f"{topic.name}: a key has 1 to {MAX_KEY_LENGTH} characters")
    event_id = uuid.uuid4().hex
    body = encode(topic, event_id, data, key)
    size = len(body.encode())
    if size > MAX_EVENT_BYTES:
        raise RpcError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"The event {topic.name} has {size} bytes; {MAX_EVENT_BYTES} are allowed: pass a reference.",
        )
    return OutboxEvent(topic, key, event_id, body)


class Outbox:
    """Adds events to the outbox of one app; its relay is woken when they are committed."""

    def __init__(self, topics: Collection[AnyTopic]) -> None:
        self._topics = topics
        self.committed = asyncio.Event()
        """Set when events may wait for the relay."""

    async def publish(
        self, transaction: "Transaction", topic: Topic[E], data: E, *, key: str | None = None
    ) -> None:
        """Publish an event if and when the transaction commits; raises as `outbox_event`."""
        from sqlalchemy import text

        event = outbox_event(topic, data, key=key)
        self.require(event)
        values = {"app": topic.app_id, "topic": topic.name, "key": key}
        await transaction.execute(text(INSERT), {**values, "event": event.id, "body": event.body})
        transaction.on_commit(self.wake)

    def require(self, event: OutboxEvent) -> None:
        """TypeError for a topic that the app's manifest does not publish."""
        if event.topic not in self._topics:
            raise TypeError(f"{event.topic.name} is not in `publishes` of the app's manifest")

    def wake(self) -> None:
        """Let the relay look for committed events."""
        self.committed.set()


def require_outbox(outbox: Outbox | None, events: Sequence[OutboxEvent]) -> Outbox | None:
    """The outbox of these events, or None without events.

    Raises:
        TypeError: the app's manifest does not publish one of their topics.
    """
    if not events:
        return None
    if outbox is None:
        raise TypeError(f"{events[0].topic.name}: the app's manifest publishes nothing")
    for event in events:
        outbox.require(event)
    return outbox
